"""Stories for learning sentence ordering: readers, splits, the data set as a script and as Parquet.

Names are imported when they are first used, because reading stories needs neither `datasets` nor `pyarrow`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .build import BuiltDataset, build_dataset
    from .configurations import generator_of_story, shuffle_of_story, shuffled_labels, story_key
    from .dataset_card import CardMarkup
    from .errors import UserError
    from .loading import load_all, load_stories, stories_of_rows, stream_stories
    from .rights import check_public_push, check_push_of_rocstories, in_rocstories_layout, may_be_quoted
    from .shuffled_rocstories import ShuffledRocstories
    from .sources import SAMPLE_FILE, SAMPLES
    from .splitting import split_rows
    from .story import BadRecord, Story, story_columns, story_hash
    from .story_cache import is_writable, writable_cache_folder
    from .story_files import SPLITS, files_in_folder, format_of_file, read_stories
    from .streaming import StoryStream

_NAMES = {
    "build": ("BuiltDataset", "build_dataset"),
    "configurations": ("generator_of_story", "shuffle_of_story", "shuffled_labels", "story_key"),
    "dataset_card": ("CardMarkup",),
    "errors": ("UserError",),
    "loading": ("load_all", "load_stories", "stories_of_rows", "stream_stories"),
    "rights": ("check_public_push", "check_push_of_rocstories", "in_rocstories_layout", "may_be_quoted"),
    "shuffled_rocstories": ("ShuffledRocstories",),
    "sources": ("SAMPLES", "SAMPLE_FILE"),
    "splitting": ("split_rows",),
    "story": ("BadRecord", "Story", "story_columns", "story_hash"),
    "story_cache": ("is_writable", "writable_cache_folder"),
    "story_files": ("SPLITS", "files_in_folder", "format_of_file", "read_stories"),
    "streaming": ("StoryStream",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = [
    "SAMPLES",
    "SAMPLE_FILE",
    "SPLITS",
    "BadRecord",
    "BuiltDataset",
    "CardMarkup",
    "ShuffledRocstories",
    "Story",
    "StoryStream",
    "UserError",
    "build_dataset",
    "check_public_push",
    "check_push_of_rocstories",
    "files_in_folder",
    "format_of_file",
    "generator_of_story",
    "in_rocstories_layout",
    "is_writable",
    "load_all",
    "load_stories",
    "may_be_quoted",
    "read_stories",
    "shuffle_of_story",
    "shuffled_labels",
    "split_rows",
    "stories_of_rows",
    "story_columns",
    "story_hash",
    "story_key",
    "stream_stories",
    "writable_cache_folder",
]


def _version() -> str:
    """The installed version; AttributeError where the code is used without being installed."""
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
