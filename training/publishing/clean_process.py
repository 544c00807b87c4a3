"""Loads a model's folder as other users will: in a new process in which our packages cannot be imported."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import tempfile
from pathlib import Path

from dataset_builder import UserError

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
# Environment variables of the process. Tokens and passwords are not among them, nor is the home folder, where programs
# keep more of these.
_PASSED_ON = (
    "PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONUTF8", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "SYSTEMDRIVE",
    "WINDIR", "COMSPEC", "PATHEXT", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
)  # fmt: skip


def clean_environment(home: str) -> dict[str, str]:
    """The environment for a process that may run foreign code, with the empty folder `home` as home folder."""
    return {
        **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        **dict.fromkeys(("HOME", "USERPROFILE", "HF_HOME", "HF_MODULES_CACHE"), home),
        "PYTHONUSERBASE": site.getuserbase(),  # packages installed with pip --user
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }


def check_in_clean_process(folder: Path, name: Path) -> None:
    """Loads config, model, tokenizer and pipeline from a folder and orders two sentences. Runs the code in the folder.

    Args:
        folder: the model's folder, or a copy of it.
        name: what to call it in an error message.

    Raises:
        UserError: with the last line of the error.
    """
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _CHECK, str(folder.resolve())],
            cwd=elsewhere,
            env=clean_environment(elsewhere),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no error message"]
        why = lines[-1].strip().replace(str(folder.resolve()), str(name))
        raise UserError(f"{name} does not load without this package and was not pushed: {why}")
