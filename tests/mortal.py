"""Runs ``loadgen`` again and again in processes that die at a moment of the test's choosing, by SIGKILL.

    python tests/mortal.py < ORDERS        one line of JSON an order, one line of JSON an answer

An order is ``{"argv": [...], "moment": KIND, "nth": N}``. The kinds: ``after`` (nth seconds, wherever that is),
``rename`` (before the nth file gets its name), ``renamed`` (right after it), ``remove`` (before the nth file goes),
``tick`` (in the middle of the nth line of ticks), ``line`` (in the middle of the nth write of request lines, worker and
run together), ``insert`` and ``commit`` (of the index), ``never``. The answer is the process's status, negative for a
signal. What is imported is imported once, so that a round costs what is measured and not the start of Python. The
product knows nothing of this: it dies by audit hooks, and by what is put in the place of ``os.write`` and of
``sqlite3.connect``.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import loadgen.cli
import loadgen.nights.history
import loadgen.reports.html
import loadgen.retention
import loadgen.run

WORKERS = "DYING_WORKER"


def die() -> None:
    """As kill -9 does it: now, and without a word."""
    os.kill(os.getpid(), signal.SIGKILL)


def arm(kind: str, nth: float) -> None:
    """Makes this process die at a moment."""
    if kind == "after":
        threading.Timer(nth, die).start()
    elif kind == "tick":
        half_written("ticks.jsonl", nth)
    elif kind == "line":
        os.environ[WORKERS] = str(int(nth))
    elif kind in ("insert", "commit"):
        traced(kind, nth)
    elif kind != "never":
        sys.addaudithook(Watch(kind, nth))


class Watch:
    """An audit hook that counts down to the end."""

    def __init__(self, kind: str, nth: float) -> None:
        self.kind, self.left, self.next = kind, nth, False

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "os.kill":  # that is us
            return
        if self.next:
            die()
        if event == f"os.{self.kind.removesuffix('d')}":
            self.left -= 1
            self.next = self.left < 1
        if self.next and self.kind != "renamed":
            die()


def traced(kind: str, nth: float) -> None:
    """The nth statement of a kind is the last that SQLite begins."""
    connect, left = sqlite3.connect, [nth]

    def count(sql: str) -> None:
        left[0] -= sql.lower().startswith(kind)
        if left[0] < 1:
            die()

    def connected(*args: Any, **more: Any) -> sqlite3.Connection:
        connection = connect(*args, **more)
        connection.set_trace_callback(count)
        return connection

    sqlite3.connect = connected


def half_written(name: str, nth: float) -> None:
    """The nth write to a file of this name breaks off in the middle."""
    write, left = os.write, [nth]

    def torn(fd: int, data: bytes) -> int:
        if os.path.basename(os.readlink(f"/proc/self/fd/{fd}")) == name:
            left[0] -= 1
            if left[0] < 1:
                write(fd, data[: len(data) // 2])
                die()
        return write(fd, data)

    os.write = torn


def one(order: dict[str, Any]) -> int:
    """A child that is loadgen; how it ended."""
    child = os.fork()
    if child == 0:
        out = os.open("out.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.argv = ["loadgen", *order["argv"]]
        arm(order["moment"], order["nth"])
        code = 70
        try:
            loadgen.cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:  # noqa: BLE001 - whatever it is, this process is a child that must end here
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = str(Path(__file__).with_name("dying"))
    for line in sys.stdin:
        print(json.dumps(one(json.loads(line))), flush=True)
