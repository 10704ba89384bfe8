"""One worker process and the lines between it and whoever started it (see ``loadgen/drive/worker.py``)."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import time
from typing import Any

import msgspec

from loadgen import errors
from loadgen.fleet import LOOK_S


class Process:
    """The worker's process, started at once. ``gone`` is True from the end of its output on."""

    def __init__(self, index: int) -> None:
        self.index = index
        self._start()

    def _start(self) -> None:
        self._data = b""
        self.gone = False
        self._popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "loadgen.drive.worker"],  # -P: files in the current folder are no modules
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the parent, which tells the workers how to stop
        )
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._stdin = self._popen.stdin
        self.stdout = self._popen.stdout

    @property
    def pid(self) -> int:
        return self._popen.pid

    def revive(self) -> None:
        """Starts the process anew if the one before died or was ended."""
        if self.gone or self._popen.poll() is not None:
            self.end()
            self._start()

    def say(self, kind: str, value: Any) -> None:
        """Sends a message; a process that is gone is noticed when it is read from."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(msgspec.json.encode({kind: value}) + b"\n")
            self._stdin.flush()

    def messages(self) -> list[dict[str, Any]]:
        """What has come; call it when stdout can be read. Sets ``gone`` at the end of the output."""
        data = os.read(self.stdout.fileno(), 1 << 20)
        self.gone = not data
        *lines, self._data = (self._data + data).split(b"\n")
        return [msgspec.json.decode(line) for line in lines]

    def wait(self, kind: str, seconds: float) -> dict[str, Any]:
        """The next message of a kind. Raises the worker's error, or LoadgenError if it died or said nothing."""
        limit = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self.stdout, selectors.EVENT_READ)
            while time.monotonic() < limit:
                if not selector.select(LOOK_S):
                    continue
                for message in self.messages():
                    if "failed" in message:
                        failed = message["failed"]
                        raise getattr(errors, failed["kind"], errors.LoadgenError)(failed["text"])
                    if kind in message:
                        value: dict[str, Any] = message[kind]
                        return value
                if self.gone:
                    raise errors.LoadgenError(f"{self.epitaph()} before it was ready")
        raise errors.LoadgenError(f"worker {self.index} was not ready after {seconds:g} s")

    def epitaph(self) -> str:
        """How the process ended, for people."""
        code = self._popen.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return f"worker {self.index} (pid {self._popen.pid}) {how}"

    def end(self) -> None:
        """Ends the process: its input closes, and it goes by itself; if not, it is killed."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        try:
            self._popen.wait(5)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self.stdout.close()
        self.gone = True
