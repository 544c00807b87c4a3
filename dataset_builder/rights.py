"""What may be done with stories that others wrote: quoting and publishing them; and recognising ROCStories.

ROCStories may not be passed on. A file does not state its origin, so the layout decides, and doubtful stories count.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from .configurations import TERMS
from .errors import UserError
from .sources import Part, is_sample, resolve_sources, source_names
from .story import CLOZE_SENTENCES, ROC_SENTENCES, plain_name, sentence_columns
from .unpacking import split_compression

SAMPLE_LICENSE, SAMPLE_LANGUAGE = "apache-2.0", "en"
_NO_LICENSE = (None, "unknown")  # an id on the Hub that permits nothing
# On the card of a data set built of ROCStories, whose own layout may differ.
ROCSTORIES_TAG = "rocstories-layout"
_RECORDS_CHECKED = 1000  # of each file
_NAME = re.compile(r"roc[\W_]*stor(y|ies)", re.IGNORECASE)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def all_sample(sources: Sequence[str] | str) -> bool:
    """Whether all stories are bundled ones."""
    return all(map(is_sample, source_names(sources)))


def may_be_quoted(sources: Sequence[str] | str, *, license: str | None = None, allow_rocstories: bool = False) -> bool:
    """Whether a card may show stories of these sources.

    The bundled sample may be shown. Everything else needs a licence, and stories that look like ROCStories (see
    `in_rocstories_layout`) also `allow_rocstories`.

    Args:
        sources: as in `load_stories`.
        license: id of the licence of the stories, None if it is not known.
        allow_rocstories: whether stories in the layout of ROCStories may be shown.
    """
    if all_sample(sources):
        return True
    return license not in _NO_LICENSE and (allow_rocstories or not in_rocstories_layout(sources))


def check_push_of_rocstories(sources: Sequence[str] | str, *, allow_rocstories: bool = False) -> None:
    """Refuse stories that look like ROCStories, also for private repositories: the Hub is a third party.

    Raises:
        UserError: naming the files.
    """
    if not allow_rocstories and (found := in_rocstories_layout(sources)):
        raise UserError(
            f"{_list(found)} look{'s' if len(found) == 1 else ''} like ROCStories, and nothing was pushed: {TERMS}, "
            "not even in a private repository. If these are other stories, or you have the authors' permission, "
            "add --allow_rocstories"
        )


def check_public_push(sources: Sequence[str] | str, *, license: str | None = None) -> None:
    """Refuse to publish stories whose licence is not known.

    Raises:
        UserError: naming the sources.
    """
    others = [os.path.basename(os.path.abspath(source)) for source in source_names(sources) if not is_sample(source)]
    if others and license in _NO_LICENSE:
        raise UserError(
            f"a public repository needs the licence of {_list(others)}: pass --license ID, such as cc-by-4.0, "
            "or make the repository private with --private"
        )


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def in_rocstories_layout(sources: Sequence[str] | str) -> list[str]:
    """Titles of the files (or splits of data sets) that look like ROCStories; empty if none does.

    In the first 1,000 records of each file or split, one of these is enough:

    - all stories have five sentences and are in a table: CSV or TSV with the columns `sentence1` … `sentence5` (winter
      2017, spring 2016), or TSV without a header, as in papers on sentence ordering; these columns in Parquet (the
      configuration `guide`) or JSON Lines; or ReBART's `shuf_sents`; or Story Cloze tests;
    - a single story of five sentences has a UUID as `storyid`, like those of ROCStories;
    - the name of the file, the folder or the data set on the Hub contains ROCStories;
    - the card of a data set that `build_dataset` wrote has its tag.

    The bundled sample has this layout, but was written for this project and does not count.

    Args:
        sources: as in `load_stories`.

    Raises:
        UserError: a source cannot be read.
    """
    found: list[str] = []
    for source in source_names(sources):
        if is_sample(source):
            continue
        parts = resolve_sources([source])
        by_name = _NAME.search(os.path.basename(os.path.abspath(source))) or _is_tagged(source)
        found += [part.title for part in parts if by_name or _NAME.search(part.title) or _has_layout(part)]
    return found


def _has_layout(part: Part) -> bool:
    records = list(islice(part.records(), _RECORDS_CHECKED))
    five = [record for record in records if _number_of_sentences(record) == len(ROC_SENTENCES)]
    if any(_UUID.fullmatch(str(record.get("storyid"))) for record in five):
        return True
    is_table = split_compression(part.title)[0].lower().endswith((".csv", ".tsv"))
    return bool(five) and len(five) == len(records) and (is_table or "sentences" not in five[0])


def _number_of_sentences(record: Mapping[str, Any]) -> int:
    sentences = record.get("sentences", record.get("shuf_sents"))
    if isinstance(sentences, (list, tuple)):
        return len(sentences)
    is_cloze = set(CLOZE_SENTENCES) <= set(map(plain_name, map(str, record)))
    return len(ROC_SENTENCES) if is_cloze else len(sentence_columns(record))


def _is_tagged(source: str) -> bool:
    """Whether a folder or a data set on the Hub has a card with our tag."""
    card = os.path.join(source, "README.md")
    if not os.path.exists(source):
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

        try:
            card = hf_hub_download(source, "README.md", repo_type="dataset")
        except RemoteEntryNotFoundError:
            return False
        except LocalEntryNotFoundError:  # without a network it is unknown
            return True
    return os.path.isfile(card) and ROCSTORIES_TAG in Path(card).read_text(encoding="utf-8", errors="replace")
