"""Another program asked a question: its answer, or why there is none, within a time that is kept.

In: a command line and a limit. Out: an `Answer`, never an exception. The program writes into files and not into pipes:
a grandchild that keeps a pipe open would hold us as long as it lives.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence

import msgspec


class Answer(msgspec.Struct, frozen=True):
    """What a program printed to its standard output and its standard error. ``problem`` is a clause that says why the
    answer does not count ("there is no program 'x'", "exit code 1: ..."), None if it does."""

    out: str
    err: str
    problem: str | None

    @property
    def reason(self) -> str | None:
        """The problem without the exit code, where the program itself said what is wrong."""
        return None if self.problem is None else re.sub(r"^exit code -?\d+: ", "", self.problem)

    @property
    def line(self) -> str | None:
        """The last line of its output, else the first of its errors (where some print their version); None without."""
        said = self.out.strip().splitlines()[-1:] or self.err.strip().splitlines()[:1]
        return said[0].strip() if said and self.problem is None else None


def ask(words: Sequence[str], timeout_s: float, environ: Mapping[str, str] | None = None) -> Answer:
    """Runs a command with nothing to read. ``environ`` None is our own; its PATH is where the program is looked for."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                words, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )
        except FileNotFoundError:
            return Answer("", "", f"there is no program {words[0]!r}")
        except OSError as error:
            return Answer("", "", f"{words[0]!r} cannot be run: {error.strerror}")
        problem = _waited(process, timeout_s)
        out.seek(0)
        err.seek(0)
        said, erred = (file.read(1 << 20).decode(errors="replace") for file in (out, err))
    if problem is None and process.returncode:
        last = (erred.strip() or said.strip()).splitlines()[-1:]
        problem = f"exit code {process.returncode}" + (f": {last[0].strip()[:200]}" if last else "")
    return Answer(said, erred, problem)


def _waited(process: subprocess.Popen[bytes], timeout_s: float) -> str | None:
    try:
        process.wait(timeout_s)
        return None
    except subprocess.TimeoutExpired:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that hangs in a driver does not even end then
            process.wait(1.0)
        return f"no answer within {timeout_s:.0f} s"
