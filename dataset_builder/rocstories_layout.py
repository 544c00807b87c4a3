"""Which sources may be ROCStories: by what they look like, since a file does not say where it came from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from .records import ROC_SENTENCES, sentence_columns
from .sources import Part, as_list, is_sample, resolve_sources

# On the card of a data set that was built of such stories: there the layout itself may be gone.
TAG = "rocstories-layout"
_LOOKED_AT = 1000  # records of each file
_NAME = re.compile(r"roc[\W_]*stor(y|ies)", re.IGNORECASE)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def in_rocstories_layout(sources: Sequence[str] | str) -> list[str]:
    """Those of some sources that look like ROCStories, by the titles of their files; empty if none does.

    Stories of ROCStories may not be passed on, so the doubtful counts as ROCStories. What is looked at, in the first
    1,000 records of each file (of a folder, too) or split of a data set:

    - tables of five sentences: CSV or TSV with the columns `sentence1` … `sentence5` (winter 2017, spring 2016), or
      TSV without a header, as papers on sentence ordering use it; the same columns in Parquet (the configuration
      `guide`) or JSON Lines; ReBART's `shuf_sents`, if all stories have five sentences;
    - among others, a single story of five sentences whose `storyid` is a UUID, as all of ROCStories have;
    - a name that says so: of the file, the folder or the data set on the Hub;
    - the card of a data set that `build_dataset` made of any of these.

    The bundled sample has the layout, but is ours and does not count.

    Args:
        sources: as in `load_stories`.

    Raises:
        ValueError: a source is nothing that can be read.
    """
    found: list[str] = []
    for source in as_list(sources):
        if is_sample(source):
            continue
        parts = resolve_sources([source])
        by_name = _NAME.search(os.path.basename(os.path.abspath(source))) or _is_said_on_card(source)
        found += [part.title for part in parts if by_name or _NAME.search(part.title) or _has_layout(part)]
    return found


def _has_layout(part: Part) -> bool:
    records = list(islice(part.records(), _LOOKED_AT))
    five = [record for record in records if _number_of_sentences(record) == len(ROC_SENTENCES)]
    if any(_UUID.fullmatch(str(record.get("storyid"))) for record in five):
        return True
    is_table = part.title.lower().endswith((".csv", ".tsv"))
    return bool(five) and len(five) == len(records) and (is_table or "sentences" not in five[0])


def _number_of_sentences(record: Mapping[str, Any]) -> int:
    sentences = record.get("sentences", record.get("shuf_sents"))
    return len(sentences) if isinstance(sentences, (list, tuple)) else len(sentence_columns(record))


def _is_said_on_card(source: str) -> bool:
    """Whether a folder or a data set on the Hub has a card with our tag."""
    card = os.path.join(source, "README.md")
    if not os.path.exists(source):
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

        try:
            card = hf_hub_download(source, "README.md", repo_type="dataset")
        except RemoteEntryNotFoundError:
            return False
        except LocalEntryNotFoundError:  # without a network nobody can tell
            return True
    return os.path.isfile(card) and TAG in Path(card).read_text(encoding="utf-8", errors="replace")
