"""Runs `sentence-ordering` many times in one process, without waiting between tries: a line of JSON in, a line out."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time

from training.commands.command_line import main

time.sleep = lambda seconds: None  # the clients' pauses, which grow with every failure

for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(json.loads(line))
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
