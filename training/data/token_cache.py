"""`Dataset.map` with a cache in a writable folder, which is rebuilt if it is damaged."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from datasets import Dataset

from dataset_builder import is_writable, writable_cache_folder


def cached_map(stories: Dataset, function: Callable[..., Any], fingerprint: str, description: str) -> Dataset:
    """`stories.map(function, batched=True)` without the old columns, from the cache if it is complete.

    The cache is in the folder of the stories' file, or in `writable_cache_folder` if that folder is not writable.

    Args:
        stories: the stories.
        function: computes the new columns of a batch of stories.
        fingerprint: identifies the result in the cache.
        description: of the progress bar.
    """
    name = None
    folders = {os.path.dirname(file["filename"]) for file in stories.cache_files}
    if not all(map(is_writable, folders)):
        name = os.path.join(writable_cache_folder(), f"cache-{fingerprint}.arrow")

    def mapped(from_cache: bool) -> Dataset:
        return stories.map(
            function,
            batched=True,
            remove_columns=stories.column_names,
            new_fingerprint=fingerprint,
            cache_file_name=name,
            load_from_cache_file=from_cache,
            desc=description,
        )

    try:
        result = mapped(from_cache=True)
        result.data.table.validate(full=True)
        whole = len(result) == len(stories)
    except (pa.ArrowException, OSError, ValueError):
        whole = False
    return result if whole else mapped(from_cache=False)
