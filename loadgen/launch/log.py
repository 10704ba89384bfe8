"""The server's log: what it prints comes in through a pipe, goes out to ``server.log`` without secrets and escapes.

A thread copies line by line, because a secret can only be struck out of a line that is whole. The same thread calls
``look`` from time to time: between two lines is where a server's new children are noticed (`Tree.refresh`). As a
program this file copies its input, for a server that outlives its run (`log_process`); so it imports nothing of ours.
"""

from __future__ import annotations

import json
import os
import re
import select
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

ESCAPES = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]"  # colours and cursor movements
    rb"|\][^\x07\x1b]*(?:\x07|\x1b\\)"  # titles and links
    rb"|[ -/]*[0-~])"  # the short ones
    rb"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"  # what is left of the control characters, tab and newline apart
)

SECRETS = "LOADGEN_LOG_SECRETS"
"""The variable that holds the secrets of the program, as a JSON list."""

LONGEST_LINE = 64 * 1024
"""A line that is longer is written in pieces of this length."""

PARTIAL_S = 0.5
"""A line without an end is written after this time of silence: an engine may print no newline before it hangs."""


def clean(line: bytes, secrets: Iterable[bytes]) -> bytes:
    """One line as it may be kept: no terminal escapes, no secrets."""
    line = ESCAPES.sub(b"", line)
    for secret in secrets:
        line = line.replace(secret, b"[secret]")
    return line


class LogCopy:
    """Copies a pipe into a file until the pipe ends. ``every_s`` is the time between two calls of ``look``."""

    def __init__(
        self, pipe: int, path: Path, secrets: Iterable[str], look: Callable[[], None], every_s: float = 2.0
    ) -> None:
        self._pipe = pipe
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._secrets = [secret.encode() for secret in secrets]
        self._look = look
        self._every_s = every_s
        self._rest = b""
        self._enough = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"log of {path.parent.name}", daemon=True)
        self._thread.start()

    def finish(self, seconds: float) -> None:
        """Copy what is in the pipe and stop; waits at most ``seconds``. A child may hold the pipe open for ever."""
        self._enough.set()
        self._thread.join(seconds)

    def wait_for_end(self, seconds: float | None) -> None:
        """Wait until the pipe has ended, at most ``seconds``: before the tail of a dead server's log is read."""
        self._ended.wait(seconds)

    def _run(self) -> None:
        try:
            self._copy()
        finally:
            self._flush(whole=True)
            os.close(self._file)
            os.close(self._pipe)
            self._ended.set()
        while not self._enough.wait(self._every_s):  # it closed its output and runs on
            self._look()

    def _copy(self) -> None:
        ready = select.poll()
        ready.register(self._pipe, select.POLLIN | select.POLLHUP)
        looked = came = 0.0
        while True:
            something = ready.poll(200)
            now = time.monotonic()
            if something:
                piece = os.read(self._pipe, LONGEST_LINE)
                if not piece:
                    return
                self._take(piece)
                came = now
            elif self._enough.is_set():
                return
            elif self._rest and now - came > PARTIAL_S:
                self._flush(whole=False)
            if now - looked > self._every_s and not self._enough.is_set():
                self._look()
                looked = now

    def _take(self, piece: bytes) -> None:
        *lines, self._rest = re.split(rb"\r\n|\r|\n", self._rest + piece)  # a progress bar ends its lines with \r
        for line in lines:
            self._write(clean(line, self._secrets) + b"\n")
        if len(self._rest) > LONGEST_LINE:
            self._flush(whole=False)

    def _flush(self, *, whole: bool) -> None:
        """Write an unfinished line; unless it is ``whole``, without the end in which half a secret may stand."""
        rest = clean(self._rest, self._secrets)
        longest = 0 if whole else max((len(secret) for secret in self._secrets), default=0)
        cut = max(0, len(rest) - max(0, longest - 1))
        self._rest = rest[cut:]
        if cut:
            self._write(rest[:cut])

    def _write(self, data: bytes) -> None:
        try:
            os.write(self._file, data)
        except OSError:  # a full disk must not fill the pipe and so stop the server in the middle of a measurement
            return


def tail(path: Path, lines: int, start: int = 0) -> list[str]:
    """The last ``lines`` lines of a log from byte ``start`` on; empty if there are none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(start, file.tell() - 256 * 1024))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return text.rstrip("\n").split("\n")[-lines:] if text.strip() else []


def main() -> None:
    """Copy the input, without the secrets that the environment names, to the end of the file that is the argument."""
    secrets = json.loads(os.environ[SECRETS])
    LogCopy(os.dup(0), Path(sys.argv[1]), secrets, lambda: None).wait_for_end(None)


if __name__ == "__main__":
    main()
