"""Files and model folders that no command can use, each wrong in one way."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

HEADER = "storyid,storytitle,sentence1,sentence2,sentence3,sentence4,sentence5\n"
_NOISE = random.Random(0).randbytes(3000)
_STORIES = [["It rained.", "Tom baked.", "She stayed dry."]] * 40

# Name of the file: its content, and what is said of it.
CONTENT: dict[str, tuple[bytes, str]] = {
    **{f"empty{suffix}": (b"", "no stories in") for suffix in (".txt", ".jsonl", ".tsv")},
    "empty.csv": (b"", "the file is empty"),
    "empty.parquet": (b"", "not readable as Parquet"),
    **{f"binary{suffix}": (_NOISE, "not UTF-8") for suffix in (".txt", ".jsonl", ".tsv", ".csv")},
    "binary.parquet": (_NOISE, "not readable as Parquet"),
    **{f"nul{suffix}": (b"\0" * 99 + b"\n" + b"\0" * 99, "NUL character") for suffix in (".txt",)},
    "nul.tsv": (b"It rained.\tTom\0baked.\n", "sentence 2 contains a NUL character"),
    "nul.jsonl": (b'{"sentences": ["It\\u0000 rained.", "Tom baked."]}\n', "sentence 1 contains a NUL character"),
    "nul.csv": (HEADER.encode() + b"1,T,a,b,c,d,\0\n", "sentence 5 contains a NUL character"),
    "nul.parquet": (b"\0" * 99, "not readable as Parquet"),
    **{f"white{suffix}": (b" \n\t\n  \n", "no stories in") for suffix in (".txt", ".jsonl", ".tsv")},
    "white.csv": (b" \n\n \n", "column(s) missing"),
    **{f"utf16{suffix}": ("It rained.".encode("utf-16"), "not UTF-8") for suffix in (".txt", ".tsv", ".jsonl", ".csv")},
    "latin.csv": ((HEADER + "1,T,à,b,c,d,e\n").encode("latin-1"), "row 2: not UTF-8: byte 0xe0 at offset 73"),
    "header-alone.csv": (HEADER.encode(), "no stories in"),
    "cut.csv": ((HEADER + '1,T,a,b,c,d,"e\n').encode(), "row 2: not valid CSV"),
    "long-row.csv": ((HEADER + "1,T,a,b,c,d,e,f\n").encode(), "8 fields"),
    "headless.csv": (b"1,Rain,It rained.,Tom baked.,She stayed.,We walked.,We ate.\n", "header row is missing"),
    "column.csv": (HEADER.replace("sentence1", "sentnce1").encode(), "is 'sentnce1' meant to be 'sentence1'?"),
    "column.tsv": (HEADER.replace("sentence5", "sentense5").replace(",", "\t").encode(), "is 'sentense5' meant"),
    "cut.jsonl": (b'{"sentences": ["It rained.", "Tom', "row 1: not a line of JSON"),
    "deep.jsonl": (b'{"sentences":' + b"[" * 100_000, "row 1: not a line of JSON"),
    "column.jsonl": (b'{"sentnces": ["It rained.", "Tom baked."]}\n', "is 'sentnces' meant to be 'sentences'?"),
    "list.jsonl": (b'["It rained.", "Tom baked."]\n', "not a JSON object"),
    "numbers.jsonl": (b'{"sentences": [1, 2]}\n', "sentence 1 is not text"),
    "surrogate.jsonl": (b'{"sentences": ["It \\ud800 rained.", "Tom."]}\n', "half of a surrogate pair"),
}  # fmt: skip


class Trap:
    """What a pickle could do: the first line of the file that it names would tell."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def write_bad_files(folder: Path) -> dict[str, str]:
    """Writes them all, those in binary formats too; what is said of each, by name."""
    for name, (content, _) in CONTENT.items():
        (folder / name).write_bytes(content)
    said = {name: words for name, (_, words) in CONTENT.items()}
    pq.write_table(pa.table({"sentences": _STORIES}), folder / "whole.parquet")
    whole = (folder / "whole.parquet").read_bytes()
    (folder / "whole.parquet").unlink()
    (folder / "cut.parquet").write_bytes(whole[:-20])
    (folder / "damaged.parquet").write_bytes(whole[:30] + b"\xff" * 60 + whole[90:])
    pq.write_table(
        pa.table({"sentences": _STORIES}), folder / "latin.parquet", compression="NONE", use_dictionary=False
    )
    latin = (folder / "latin.parquet").read_bytes().replace(b"It rained.", b"Il pl\xfbt...")
    (folder / "latin.parquet").write_bytes(latin)
    pq.write_table(pa.table({"sentnces": _STORIES}), folder / "column.parquet")
    pq.write_table(pa.table({"sentences": ["It rained."] * 40}), folder / "type.parquet")
    said |= {
        "cut.parquet": "not readable as Parquet",
        "latin.parquet": "not readable as Parquet: 'utf-8' codec can't decode",
        "damaged.parquet": "not readable as Parquet",
        "column.parquet": "is 'sentnces' meant to be 'sentences'?",
        "type.parquet": "'sentences' is not a list of sentences",
        "missing.jsonl": "no such file",
        "unreadable.jsonl": "cannot be read: Permission denied",
    }
    make_unreadable(folder / "unreadable.jsonl")
    return said


def make_unreadable(path: Path) -> None:
    """A file that nobody may read, the superuser neither, where the system has such."""
    path.write_text("{}")
    path.chmod(0)
    if not os.access(path, os.R_OK):
        return
    for pattern in ("class/*/*", "bus/*/drivers_probe", "devices/pci*/*/rescan"):
        for secret in Path("/sys").glob(pattern):
            if secret.is_file() and not secret.stat().st_mode & 0o444:
                path.unlink()
                path.symlink_to(secret)
                return


def write_bad_models(folder: Path, good: Path, encoder: Path) -> dict[str, str]:
    """Copies of a good model, each spoilt in one way; what is said of each, by name."""
    trap = Trap(folder / "sprung")
    said = {
        "no-weights": "has no weights",
        "cut-weights": "cannot be loaded",
        "empty-weights": "cannot be loaded",
        "other-weights": "its weights lack",
        "pickled-weights": "model.safetensors holds a pickle",
        "torch-weights": "model.safetensors holds a pickle",
        "pytorch-weights": "pytorch_model.bin is a pickle",
        "no-config": "no config.json",
        "broken-config": "config.json is broken",
        "list-config": "config.json is broken",
        "binary-config": "config.json is broken",
        "other-config": "is a bert model",
        "no-tokenizer": "no tokenizer",
        "broken-tokenizer": "cannot be loaded",
        "other-tokenizer": "do not belong together",
    }
    for name in said:
        shutil.copytree(good, folder / name, ignore=shutil.ignore_patterns("checkpoints", "tensorboard", "*.png"))

    def weights(name: str) -> Path:
        return folder / name / "model.safetensors"

    def config(name: str) -> Path:
        return folder / name / "config.json"

    weights("no-weights").unlink()
    weights("cut-weights").write_bytes((good / "model.safetensors").read_bytes()[:1000])
    weights("empty-weights").write_bytes(b"")
    shutil.copyfile(encoder / "model.safetensors", weights("other-weights"))
    weights("pickled-weights").write_bytes(pickle.dumps(trap))
    torch.save(trap, weights("torch-weights"))
    weights("pytorch-weights").unlink()
    torch.save(trap, folder / "pytorch-weights" / "pytorch_model.bin")
    config("no-config").unlink()
    config("broken-config").write_text("{")
    config("list-config").write_text("[1]")
    config("binary-config").write_bytes(_NOISE)
    shutil.copyfile(encoder / "config.json", config("other-config"))
    (folder / "no-tokenizer" / "tokenizer_config.json").unlink()
    (folder / "broken-tokenizer" / "tokenizer.json").write_text("{")
    path = folder / "other-tokenizer" / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary |= {f"word{number}": len(vocabulary) + number for number in range(99)}
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    return said


def write_bad_encoders(folder: Path, good: Path) -> dict[str, str]:
    """Copies of an encoder that would run code, `sprung` being its trace; what is said of each, by name."""
    trap = Trap(folder / "sprung")
    said = {"pickled": "no file named model.safetensors", "bare-pickle": "no file named", "own-code": "custom code"}
    for name in said:
        shutil.copytree(good, folder / name)
    for name in ("pickled", "bare-pickle"):
        (folder / name / "model.safetensors").unlink()
    torch.save(trap, folder / "pickled" / "pytorch_model.bin")
    (folder / "bare-pickle" / "pytorch_model.bin").write_bytes(pickle.dumps(trap))
    config = json.loads((folder / "own-code" / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    (folder / "own-code" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "own-code" / "own.py").write_text(f"import os\nos.mkdir({str(trap.path)!r})\nConfig = Model = object\n")
    return said
