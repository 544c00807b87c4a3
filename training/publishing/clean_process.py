"""Loads a model's folder as a stranger will: in a fresh process, in which none of our packages can be imported."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

_CHECK = """
import sys
for name in ("modeling_sentence_ordering", "dataset_builder", "training", "model_card"):
    sys.modules[name] = None
from transformers import AutoConfig, AutoModel, AutoTokenizer, pipeline
folder = sys.argv[1]
AutoConfig.from_pretrained(folder, trust_remote_code=True)
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
answer = pipeline("sentence-ordering", model=folder, trust_remote_code=True)(["The end.", "It began."])
assert sorted(answer["order"]) == [0, 1]
"""


def foreign_code(folder: Path) -> list[str]:
    """Code in a model's folder that is not, byte for byte, what this version of the package puts there.

    Args:
        folder: the model's.

    Returns:
        Paths inside of the folder: of another version, changed by someone, or of another's making altogether.
    """
    package = find_spec("modeling_sentence_ordering")  # not imported: data sets are pushed without torch
    assert package is not None and package.origin is not None
    own = Path(package.origin).parent
    known = {path.name: path.read_bytes() for path in own.glob("*.py")}
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*.py") if known.get(path.name) != path.read_bytes()
    )


def check_in_clean_process(folder: Path, name: Path | str | None = None) -> None:
    """Loads config, model, tokenizer and pipeline from a folder, and orders two sentences: runs the code in it.

    Args:
        folder: where the model is.
        name: what to call it in an error, if it is a copy.

    Raises:
        ValueError: with the last line of what went wrong.
    """
    with tempfile.TemporaryDirectory() as elsewhere:
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "HF_MODULES_CACHE": elsewhere,
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        done = subprocess.run(
            [sys.executable, "-c", _CHECK, str(folder.resolve())],
            cwd=elsewhere,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        why = lines[-1].strip().replace(str(folder.resolve()), str(name or folder))
        raise ValueError(f"{name or folder} does not load by itself and was not pushed: {why}")
