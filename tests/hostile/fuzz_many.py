"""The fuzz tests with many inputs: `python -m tests.hostile.fuzz_many [INPUTS]` (50,000 in all by default)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = 6


def main() -> int:
    """Runs pytest on `test_fuzz.py`; its exit code."""
    inputs = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    environment = os.environ | {"SENTENCE_ORDERING_FUZZ_INPUTS": str(-(-inputs // TESTS))}
    path = Path(__file__).with_name("test_fuzz.py")
    print(
        f"{inputs:,} inputs, {environment['SENTENCE_ORDERING_FUZZ_INPUTS']} for each of {TESTS} properties", flush=True
    )
    command = [sys.executable, "-P", "-m", "pytest", "-q", "--hypothesis-show-statistics", str(path)]
    return subprocess.run(command, env=environment, cwd=Path(__file__).parents[2], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
