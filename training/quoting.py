"""Whether a card may show stories of its data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice

from dataset_builder.records import ROC_SENTENCES
from dataset_builder.sources import Part, resolve_sources

_LOOKED_AT = 1000  # stories of each file
_NAME = re.compile(r"roc[\W_]*stor(y|ies)", re.IGNORECASE)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def may_be_quoted(sources: Sequence[str], *, license: str | None = None) -> bool:
    """Whether a card may show stories of these sources: the sample's, and under a licence those that are no ROCStories.

    ROCStories may not be passed on, and a file does not say where it came from, so what looks like it counts as it:
    a name that says so, tables (CSV, TSV) of five sentences, and stories of five sentences whose id is a UUID.

    Args:
        sources: as in `load_stories`.
        license: id of the licence under which the stories may be passed on, None if it is not known.
    """
    others = [source for source in sources if source != "sample"]
    if not others:
        return True
    return license is not None and not any(_looks_like_rocstories(part) for part in resolve_sources(others))


def _looks_like_rocstories(part: Part) -> bool:
    if _NAME.search(part.name):
        return True
    stories = list(islice(part.read(), _LOOKED_AT))
    five = [story for story in stories if len(story.sentences) == len(ROC_SENTENCES)]
    is_table = part.name.lower().endswith((".csv", ".tsv"))
    return (is_table and len(five) == len(stories)) or any(_UUID.fullmatch(story.storyid) for story in five)
