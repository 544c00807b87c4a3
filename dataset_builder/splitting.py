"""Train, validation and test: the guide's three-way split, and a warning for stories in several splits."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from .errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Portion:
    """Some rows of a table of stories, in the order of a split.

    Attributes:
        stories: the table (see `story_table`), in file order.
        rows: (n,) int64, indices in `stories`.
    """

    stories: Dataset
    rows: np.ndarray


def split_rows(
    count: int, *, seed: int = 42, test_size: float | int = 0.2, validation_size: float | int = 0.3
) -> dict[str, np.ndarray]:
    """Split `count` rows in three like the guide: some are held out, and validation rows are taken from these.

    The rows and their order are those of `Dataset.train_test_split(test_size, seed=seed)` followed by
    `["test"].train_test_split(validation_size, seed=seed)`, whose larger part is the test split: shares are rounded
    up, a whole number is a number of rows. 52,665 rows give 42,132 / 3,160 / 7,373.

    Returns:
        `train`, `validation`, `test`: (n,) int64 each, every row in exactly one of them.

    Raises:
        UserError: a size or the seed is out of range, or a split would be empty.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise UserError(f"seed={seed!r} must be a whole number, 0 or more")
    held_out = _rounded_up("test_size", test_size, count)
    validation = _rounded_up("validation_size", validation_size, held_out)
    if not 0 < validation < held_out < count:
        raise UserError(
            f"{count} stories are too few to split in train, validation and test with test_size={test_size} and "
            f"validation_size={validation_size}: a split would be empty; use more stories, or files with splits"
        )
    order = np.random.default_rng(seed).permutation(count)
    within = np.random.default_rng(seed).permutation(held_out)
    return {
        "train": order[held_out:],
        "validation": order[:held_out][within[:validation]],
        "test": order[:held_out][within[validation:]],
    }


def _rounded_up(name: str, size: float | int, count: int) -> int:
    whole = isinstance(size, (int, np.integer)) and not isinstance(size, bool)
    if not (whole and size >= 1) and not (isinstance(size, float) and 0 < size < 1):
        raise UserError(f"{name}={size!r} must be a share between 0 and 1, or a number of stories")
    return int(size) if whole else math.ceil(size * count)


def split_table(
    stories: Dataset, *, seed: int, test_size: float | int, validation_size: float | int
) -> dict[str, Portion]:
    """`split_rows` of a table of stories."""
    rows = split_rows(len(stories), seed=seed, test_size=test_size, validation_size=validation_size)
    return {split: Portion(stories, part) for split, part in rows.items()}


def whole_table(stories: Dataset) -> Portion:
    """All rows of a table of stories, in file order."""
    return Portion(stories, np.arange(len(stories)))


def warn_of_shared_stories(splits: Mapping[str, Sequence[Portion]]) -> int:
    """Log one warning, with the counts, if stories occur in more than one split; return the number of distinct ones."""
    hashes = {
        split: np.unique(np.concatenate([_text_hashes(portion) for portion in portions]))
        for split, portions in splits.items()
    }
    pairs = {
        f"{one} and {other}": np.intersect1d(hashes[one], hashes[other], assume_unique=True)
        for one, other in combinations(hashes, 2)
    }
    pairs = {names: shared for names, shared in pairs.items() if len(shared)}
    if not pairs:
        return 0
    total = len(np.unique(np.concatenate(list(pairs.values()))))
    counts = ", ".join(f"{names}: {len(shared)}" for names, shared in pairs.items())
    subject = "1 story is" if total == 1 else f"{total} stories are"
    logger.warning("%s in more than one split (%s): scores on the later one are too high", subject, counts)
    return total


def _text_hashes(portion: Portion) -> np.ndarray:
    return portion.stories.data.column("text_hash").to_numpy()[portion.rows]
