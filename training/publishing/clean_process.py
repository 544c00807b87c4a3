"""Loads a model's folder as a stranger will: in a fresh process, in which none of our packages can be imported."""

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


# All that the process gets of the environment: where programs are, and how they compute. Tokens, passwords and the
# person's folder, where others keep theirs, are not among it.
_PASSED_ON = (
    "PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONUTF8", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "SYSTEMDRIVE",
    "WINDIR", "COMSPEC", "PATHEXT", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
)  # fmt: skip


def clean_environment(home: str) -> dict[str, str]:
    """The environment of a process that may run code of others.

    Args:
        home: an empty folder, in the place of the person's.
    """
    return {
        **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        **dict.fromkeys(("HOME", "USERPROFILE", "HF_HOME", "HF_MODULES_CACHE"), home),
        "PYTHONUSERBASE": site.getuserbase(),  # packages that were installed for this person alone
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }


def check_in_clean_process(folder: Path, name: Path | str | None = None) -> None:
    """Loads config, model, tokenizer and pipeline from a folder, and orders two sentences: runs the code in it.

    Args:
        folder: where the model is.
        name: what to call it in an error, if it is a copy.

    Raises:
        UserError: with the last line of what went wrong.
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
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        why = lines[-1].strip().replace(str(folder.resolve()), str(name or folder))
        raise UserError(f"{name or folder} does not load by itself and was not pushed: {why}")
