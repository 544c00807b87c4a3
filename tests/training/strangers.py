"""Runs `clients/stranger.py`: another process, another folder, caches of its own, perhaps another transformers."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.hub_server import Hub

STORIES = [["He ate it.", "Tom baked a cake.", "It was good."], ["It rained.", "She took an umbrella."]]


def stranger(hub: Hub, folder: Path, *steps: dict[str, Any], python: str = sys.executable) -> list[Any]:
    """What came of each step; see `clients/stranger.py`."""
    own = Path(tempfile.mkdtemp(dir=folder))
    environment = hub.environment(own) | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, str(Path(__file__).parent / "clients" / "stranger.py")],
        input=json.dumps({"stories": STORIES, "do": steps}),
        env=environment,
        cwd=own,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    did: list[Any] = json.loads(done.stdout.splitlines()[-1])["did"]
    return did
