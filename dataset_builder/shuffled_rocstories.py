"""ROCStories with the sentences of each story shuffled, as a data set to learn sentence ordering from.

ROCStories (Mostafazadeh et al. 2016, https://aclanthology.org/N16-1098) may not be passed on: ask for it at
https://cs.rochester.edu/nlp/rocstories/ and pass the file:

    load_dataset("dataset_builder/shuffled_rocstories.py", data_files="ROCStories_winter2017.csv",
                 trust_remote_code=True)

The class also works without `load_dataset`, which does not load scripts from datasets 4 on:

    builder = ShuffledRocstories(data_files="ROCStories_winter2017.csv")
    builder.download_and_prepare()
    builder.as_dataset()
"""

import glob
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import compress, islice
from typing import Any

import datasets
import numpy as np
import pyarrow.compute as pc

from .all_files_of_dataset_builder_are_needed import SCRIPT
from .configurations import CITATION, CONFIGURATIONS, HOMEPAGE

# load_dataset copies only the files that this script imports, so it imports those that they import as well. Its error
# names the first missing one, whose name therefore says that all are needed.
from .errors import UserError
from .file_writing import staged
from .json_formats import LARGEST_DOCUMENT
from .line_formats import Lines
from .parquet_format import TooLarge
from .sentence_splitting import SentenceSplitter
from .splitting import Portion, split_rows, split_table, warn_of_shared_stories, whole_table
from .story import BadRecord
from .story_cache import content_hash, stories_of_files, story_table
from .story_files import SPLITS, did_you_mean, files_in_folder, split_of_name
from .tables import ROC_HEADER
from .unpacking import COMPRESSIONS

# Imported only to be copied.
__all__ = ["COMPRESSIONS", "LARGEST_DOCUMENT", "SCRIPT", "BadRecord", "Lines", "ROC_HEADER", "SentenceSplitter"]
__all__ += ["TooLarge", "staged"]
__all__ += ["ShuffledRocstories", "ShuffledRocstoriesConfig"]

NO_DATA_FILES = (
    f"no data_files: ROCStories may not be passed on. Ask for it at {HOMEPAGE} and pass the file, "
    "data_files='ROCStories_winter2017.csv', or its folder, data_dir='FOLDER'"
)
VERSION = datasets.Version("1.0.0")
Files = tuple[tuple[str, str], ...]


@dataclass
class ShuffledRocstoriesConfig(datasets.BuilderConfig):
    """Keyword arguments of `load_dataset`.

    Attributes:
        seed: of the split and of the shuffles; the guide's is 42.
        test_size: share (or number) of stories held out of training.
        validation_size: share (or number) of the held-out stories for the validation split.
        split_sentences: language of prose to split into sentences; see `read_stories`.
    """

    seed: int = 42
    test_size: float | int = 0.2
    validation_size: float | int = 0.3
    split_sentences: str | None = None


class ShuffledRocstories(datasets.GeneratorBasedBuilder):
    """The two configurations "shuffled" (the default) and "guide"; see README.md for columns and splits.

    `data_files` is a path, a list of them (joined) or a dict by split. Files without a split, and `train` alone, are
    split in three; several splits are kept. With `data_dir`, the file names decide the splits.
    """

    VERSION = VERSION
    BUILDER_CONFIG_CLASS = ShuffledRocstoriesConfig
    BUILDER_CONFIGS = [
        ShuffledRocstoriesConfig(name=name, version=VERSION, description=configuration.description)
        for name, configuration in CONFIGURATIONS.items()
    ]
    DEFAULT_CONFIG_NAME = "shuffled"

    def __init__(
        self,
        cache_dir: str | None = None,
        dataset_name: str | None = None,
        config_name: str | None = None,
        hash: str | None = None,
        *,
        base_path: str | None = None,
        data_files: Any = None,
        data_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        if data_files is not None:
            if not isinstance(data_files, datasets.data_files.DataFilesDict):
                data_files = _in_working_directory(data_files, data_dir, base_path)
        elif data_dir is not None:
            data_files = _by_split(data_dir, base_path)
        super().__init__(
            cache_dir,
            dataset_name,
            config_name,
            _hash_with_content(hash or _hash_of_code(), data_files),
            base_path=base_path,
            data_files=data_files,
            **kwargs,
        )

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description=self.config.description,
            features=CONFIGURATIONS[self.config.name].features,
            homepage=HOMEPAGE,
            citation=CITATION,
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        if not self.config.data_files:
            raise UserError(NO_DATA_FILES)
        files = {
            str(split): tuple(zip(names, dl_manager.download(list(names)), strict=True))
            for split, names in self.config.data_files.items()
        }
        arguments = self._streamed_splits(files) if dl_manager.is_streaming else self._splits_on_disk(files)
        return [datasets.SplitGenerator(name=split, gen_kwargs=kwargs) for split, kwargs in arguments.items()]

    def _sizes(self) -> dict[str, Any]:
        return {name: getattr(self.config, name) for name in ("seed", "test_size", "validation_size")}

    def _splits_on_disk(self, files: Mapping[str, Files]) -> dict[str, dict[str, Any]]:
        """Rows in the order of `Dataset.train_test_split`, for which the stories must be in a table."""
        language = self.config.split_sentences
        tables = {
            split: story_table(part, split_sentences=language, cache_dir=self._cache_dir_root)
            for split, part in files.items()
        }
        for split, table in tables.items():
            self._check(table, files[split])
        if list(tables) == ["train"]:
            portions = split_table(tables["train"], **self._sizes())
        else:
            portions = {split: whole_table(table) for split, table in tables.items()}
        warn_of_shared_stories({split: [portion] for split, portion in portions.items()})
        # No list among the arguments: datasets would distribute its items over the processes of num_proc.
        return {split: {"portion": portion} for split, portion in portions.items()}

    def _check(self, table: datasets.Dataset, files: Files) -> None:
        configuration = CONFIGURATIONS[self.config.name]
        if configuration.sentences is not None:
            lengths = pc.list_value_length(table.data.column("sentences")).to_numpy()
            for position in np.flatnonzero(lengths != configuration.sentences)[:1].tolist():
                # The table has no files and rows, which only this message needs: look them up.
                configuration.check(next(islice(stories_of_files(files, self.config.split_sentences), position, None)))

    def _streamed_splits(self, files: Mapping[str, Files]) -> dict[str, dict[str, Any]]:
        """The same rows in file order: `train` alone is counted first, and each split selects rows while reading."""
        if list(files) != ["train"]:
            return {split: {"files": part} for split, part in files.items()}
        count = sum(1 for _ in stories_of_files(files["train"], self.config.split_sentences))
        arguments = {}
        for split, rows in split_rows(count, **self._sizes()).items():
            picked = np.zeros(count, dtype=bool)
            picked[rows] = True
            arguments[split] = {"files": files["train"], "picked": picked}
        return arguments

    def _generate_examples(
        self, portion: Portion | None = None, files: Files = (), picked: np.ndarray | None = None
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        configuration = CONFIGURATIONS[self.config.name]
        if portion is not None:
            rows = configuration.rows_of_portion(portion, self.config.seed)
        else:
            rows = configuration.rows_of_stories(stories_of_files(files, self.config.split_sentences), self.config.seed)
            rows = rows if picked is None else compress(rows, picked)
        yield from enumerate(rows)


def _in_working_directory(data_files: Any, data_dir: str | None, base_path: str | None) -> dict[str, list[str]]:
    """Patterns by split, made absolute where they match in `data_dir` or the working directory.

    `datasets` resolves a relative path against the script's folder first.
    """
    if isinstance(data_files, (str, os.PathLike)):
        data_files = [data_files]
    if not isinstance(data_files, Mapping):
        data_files = {"train": data_files}
    found: dict[str, list[str]] = {}
    for split, patterns in data_files.items():
        patterns = [patterns] if isinstance(patterns, (str, os.PathLike)) else patterns
        found[str(split)] = [_pattern(os.fspath(pattern), data_dir, base_path) for pattern in patterns]
    return found


def _pattern(pattern: str, data_dir: str | None, base_path: str | None) -> str:
    if "://" in pattern:
        return pattern
    folders = [folder for folder in (data_dir, os.getcwd(), base_path) if folder and "://" not in folder]
    for path in (os.path.join(os.path.abspath(folder), os.path.expanduser(pattern)) for folder in folders):
        if os.path.isfile(path):
            return glob.escape(path)
        if glob.glob(path):
            return path
    if base_path and "://" in base_path:  # a repository on the Hub, in which datasets looks
        return pattern
    raise FileNotFoundError(f"data_files: {pattern}: no such file{did_you_mean(pattern)}")


def _by_split(data_dir: str, base_path: str | None) -> dict[str, list[str]]:
    """The files of a folder by the split in their names; all of them are `train` if no name has a split."""
    folders = [os.path.join(folder, data_dir) for folder in (os.getcwd(), base_path) if folder]
    folder = next((folder for folder in folders if os.path.isdir(folder)), None)
    if folder is None:
        raise FileNotFoundError(f"data_dir: {data_dir}: no such folder{did_you_mean(data_dir)}")
    paths = files_in_folder(folder)
    names: dict[str, str | None] = {path: split_of_name(path) for path in paths}
    if set(names.values()) <= {None, "train"}:
        return {"train": [glob.escape(path) for path in paths]}
    if None in names.values():
        listed = ", ".join(os.path.basename(path) for path in paths)
        raise UserError(f"{data_dir}: some file names have a split and some have none ({listed}); use data_files")
    return {
        split: [glob.escape(path) for path in paths if names[path] == split]
        for split in SPLITS
        if split in names.values()
    }


def _hash_with_content(code: str, data_files: Any) -> str:
    """A name for the cache folder that depends on the content of local files; `datasets` uses their names and times."""
    digest = hashlib.sha256(code.encode())
    for patterns in (data_files or {}).values():
        for pattern in (pattern for pattern in map(str, patterns) if "://" not in pattern):
            paths = [pattern] if os.path.isfile(pattern) else sorted(filter(os.path.isfile, glob.glob(pattern)))
            for path in paths:
                digest.update(content_hash(path).encode())
    return digest.hexdigest()


def _hash_of_code() -> str:
    """A hash of this package's code, so that rows are not taken from the cache of another version."""
    digest = hashlib.sha256()
    for path in sorted(glob.glob(os.path.join(glob.escape(os.path.dirname(os.path.abspath(__file__))), "*.py"))):
        with open(path, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()
