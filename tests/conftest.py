"""The surroundings of every test: no network, no display, no trace in the user's own caches.

Nothing of Hugging Face may be imported above or by this file: its libraries read these variables once, when imported.
"""

from __future__ import annotations

import os
import runpy
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.hub_server import Hub

NETWORK_GUARD = Path(__file__).parent / "network_guard"
SCRATCH = Path(tempfile.mkdtemp(prefix="sentence-ordering-tests-"))
NETWORK_LOG = SCRATCH / "network.log"

# Whatever the user has set to point at a hub, a cache or an account of theirs.
for variable in ("HF_ENDPOINT", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_XET_CACHE"):
    os.environ.pop(variable, None)
for variable in ("HF_DATASETS_CACHE", "HF_MODULES_CACHE", "HF_ASSETS_CACHE", "TRANSFORMERS_CACHE"):
    os.environ.pop(variable, None)
os.environ.update(
    HF_HOME=str(SCRATCH / "huggingface"),
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_UPDATE_DOWNLOAD_COUNTS="0",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="agg",
    MPLCONFIGDIR=str(SCRATCH / "matplotlib"),
    SENTENCE_ORDERING_NETWORK_LOG=str(NETWORK_LOG),
    PYTHONPATH=os.pathsep.join(filter(None, [str(NETWORK_GUARD), os.environ.get("PYTHONPATH")])),
)
if "PYTEST_XDIST_WORKER" in os.environ:  # tests run side by side: more threads would be in each other's way
    os.environ["OMP_NUM_THREADS"] = "1"
runpy.run_path(str(NETWORK_GUARD / "sitecustomize.py"))


def pytest_unconfigure() -> None:
    shutil.rmtree(SCRATCH, ignore_errors=True)


@pytest.fixture(autouse=True)
def nothing_outside_is_reached() -> Iterator[None]:
    """Fails a test during which it, or a process that it started, tried to leave this machine."""
    yield
    # The commands set it for their own process, and tests call them in this one. Here and not before: fixtures of the
    # next module are made before those of its tests.
    os.environ.pop("TORCH_FORCE_WEIGHTS_ONLY_LOAD", None)
    if NETWORK_LOG.exists():
        attempts = NETWORK_LOG.read_text(encoding="utf-8")
        NETWORK_LOG.unlink()
        pytest.fail(f"tests reach nothing outside 127.0.0.1, but there was\n{attempts}", pytrace=False)


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A Hub of the test's own on 127.0.0.1, empty, which the real client of `hub.environment(folder)` talks to."""
    from tests.hub_server import Hub  # only here: this file is also copied to where there is no server

    with Hub() as hub:
        yield hub


@pytest.fixture(scope="session")
def old_transformers_python() -> str:
    """Path of the Python of an environment with transformers 4.46.3, the oldest on which pushed models must load."""
    return _other_python("SENTENCE_ORDERING_OLD_TRANSFORMERS_PYTHON", "transformers 4.46.3 and torch")


@pytest.fixture(scope="session")
def last4_transformers_python() -> str:
    """Path of the Python of an environment with the last transformers 4."""
    return _other_python("SENTENCE_ORDERING_LAST4_TRANSFORMERS_PYTHON", "the last transformers 4 and torch")


@pytest.fixture(scope="session")
def early5_transformers_python() -> str:
    """Path of the Python of an environment with a transformers 5 before 5.10, which copies fewer files of a folder."""
    return _other_python("SENTENCE_ORDERING_EARLY5_TRANSFORMERS_PYTHON", "transformers 5.9 or older 5.x, and torch")


@pytest.fixture(scope="session")
def datasets5_python() -> str:
    """Path of the Python of an environment with datasets 5, which has no loading scripts any more."""
    return _other_python("SENTENCE_ORDERING_DATASETS5_PYTHON", "datasets 5")


def _other_python(variable: str, what: str) -> str:
    python = os.environ.get(variable)
    if python and not os.access(python, os.X_OK):
        pytest.fail(f"{variable} is {python!r}, which cannot be run", pytrace=False)
    if not python:
        message = f"needs a second environment: set {variable} to the Python of one with {what}"
        if os.environ.get("CI", "").lower() in ("", "0", "false"):
            pytest.skip(message)
        pytest.fail(message, pytrace=False)
    return python
