"""The demo page as people have it: a server on 127.0.0.1 in a process of its own, and a browser that looks at it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[2]
WITHOUT_OUR_PACKAGES = """
import runpy, sys
for ours in ("modeling_sentence_ordering", "dataset_builder", "training", "model_card"):
    sys.modules[ours] = None
sys.path.insert(0, "")
runpy.run_path("app.py", run_name="__main__")
"""
PATIENCE = 120.0  # seconds, on a machine that is busy with other things


@dataclass
class Server:
    """A process that shows a page."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def wait_for(self, pattern: str) -> str:
        """The first group of a line that it prints; AssertionError if it ends before."""
        watchdog = threading.Timer(PATIENCE, self.process.kill)
        watchdog.start()
        try:
            for line in self.process.stdout:
                self.lines.append(line)
                if found := re.search(pattern, line):
                    return found[1] if found.groups() else found[0]
        finally:
            watchdog.cancel()
        raise AssertionError(f"no {pattern!r} in\n{''.join(self.lines)}\n{self.process.stderr.read()}")

    def address(self) -> str:
        return self.wait_for(r"serving at (http://127\.0\.0\.1:\d+/)")

    def interrupt(self) -> tuple[int, str]:
        """Ctrl-C: its exit code, and what it has said on standard error."""
        self.process.send_signal(signal.SIGINT)
        _, error = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, error


@contextmanager
def served(folder: Path, *command: str, python_path: Sequence[Path] = ()) -> Iterator[Server]:
    """Python in a folder with a command line of its own."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*map(str, python_path), os.environ["PYTHONPATH"]]),
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "HF_MODULES_CACHE": str(folder.parent / "modules"),
    }
    environment.pop("GRADIO_ANALYTICS_ENABLED", None)
    process = subprocess.Popen(
        [sys.executable, *command], cwd=folder, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Server(process)
    finally:
        process.kill()
        process.communicate()


def demo_of(model: Path) -> AbstractContextManager[Server]:
    """`sentence-ordering demo`."""
    return served(
        model.parent, "-m", "training.commands.command_line", "demo", "--model", model.name, python_path=[ROOT]
    )


def is_local(url: str) -> bool:
    return urlsplit(url).scheme in ("data", "blob") or urlsplit(url).hostname == "127.0.0.1"
