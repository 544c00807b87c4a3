"""Stories to learn sentence ordering from: readers, splits, the data set as a script and as Parquet.

Names are imported when they are first used, because reading stories needs neither `datasets` nor `pyarrow`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .build import BuiltDataset, build_dataset
    from .configurations import shuffled_labels
    from .loading import load_all, load_stories
    from .readers import read_stories
    from .rights import may_be_quoted
    from .rocstories_layout import in_rocstories_layout
    from .rows import stories_of_rows
    from .shuffled_rocstories import ShuffledRocstories
    from .story import BadRecord, Story, story_hash

__all__ = [
    "BadRecord",
    "BuiltDataset",
    "ShuffledRocstories",
    "Story",
    "build_dataset",
    "in_rocstories_layout",
    "load_all",
    "load_stories",
    "may_be_quoted",
    "read_stories",
    "stories_of_rows",
    "shuffled_labels",
    "story_hash",
]
_MODULES = {
    "BadRecord": "story",
    "BuiltDataset": "build",
    "ShuffledRocstories": "shuffled_rocstories",
    "Story": "story",
    "build_dataset": "build",
    "load_all": "loading",
    "in_rocstories_layout": "rocstories_layout",
    "load_stories": "loading",
    "may_be_quoted": "rights",
    "read_stories": "readers",
    "stories_of_rows": "rows",
    "shuffled_labels": "configurations",
    "story_hash": "story",
}


def _version() -> str:
    """The installed version. This package's code may also be used without being installed: then it has no version."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("sentence-ordering")
    except PackageNotFoundError as error:
        raise AttributeError(f"module {__name__!r} has no attribute '__version__': it is not installed") from error


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
