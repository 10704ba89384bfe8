"""The log of a server that is to outlive its run (``--keep``), copied by a process of its own.

A pipe into a run that has ended would break under the server's next line, and a plain file would hold its secrets. So
``log.py`` runs as a program here: it does what it does inside a run, secrets struck out, and ends when the last
process that holds the other end of the pipe has ended.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from loadgen.launch import log


class LogProcess:
    """Does for a kept server what `log.LogCopy` does for another. ``every_s`` is the time between two calls of
    ``look``."""

    def __init__(
        self, pipe: IO[bytes], path: Path, secrets: Iterable[str], look: Callable[[], None], every_s: float = 2.0
    ) -> None:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))  # it is there from now on
        self._process = subprocess.Popen(
            [sys.executable, "-I", log.__file__, str(path)],
            stdin=pipe,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={log.SECRETS: json.dumps(list(secrets))},  # not in its argv, which anybody may read
            start_new_session=True,
        )
        self._look = look
        self._every_s = every_s
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"look at {path.parent.name}", daemon=True)
        self._thread.start()

    def finish(self, seconds: float) -> None:
        """Let it copy what is in the pipe, then end it; waits at most ``seconds`` for each."""
        self.release()
        self.wait_for_end(seconds)
        if self._process.poll() is None:  # a child holds the pipe open
            self._process.terminate()
            self.wait_for_end(seconds)

    def wait_for_end(self, seconds: float) -> None:
        """Wait until the pipe has ended and all is copied, at most ``seconds``."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return

    def release(self) -> None:
        """Look no more; the copying goes on."""
        self._enough.set()

    def _watch(self) -> None:
        while not self._enough.wait(self._every_s):
            self._look()
