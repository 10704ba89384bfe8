"""Questions to other programs: the answer, or why there is none, and never longer than was granted."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from loadgen.ask import ask


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_an_answer_is_what_was_printed_and_its_last_line() -> None:
    answer = ask(python("print('loading'); print('1.2.3')"), 20)
    assert (answer.problem, answer.line) == (None, "1.2.3")
    assert answer.out == "loading\n1.2.3\n"


def test_a_program_that_prints_to_its_standard_error_alone_is_heard() -> None:
    answer = ask(python("import sys; print('version: 7', 'built', sep='\\n', file=sys.stderr)"), 20)
    assert answer.line == "version: 7"


def test_a_program_that_fails_says_why() -> None:
    answer = ask(python("print('half'); raise SystemExit('no such model')"), 20)
    assert answer.problem == "exit code 1: no such model"
    assert answer.line is None


def test_a_program_that_is_not_there_is_named() -> None:
    assert ask(["no-such-program", "--version"], 20).problem == "there is no program 'no-such-program'"


def test_a_file_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "engine").write_text("text")
    problem = ask([str(tmp_path / "engine")], 20).problem
    assert problem == f"'{tmp_path}/engine' cannot be run: Permission denied"


def test_a_program_that_hangs_is_ended_with_the_children_that_hold_its_output(tmp_path: Path) -> None:
    began = time.monotonic()
    answer = ask(["sh", "-c", f"sleep 600 & echo $! > '{tmp_path}/pid'; wait"], 3)
    assert answer.problem == "no answer within 3 s"
    assert time.monotonic() - began < 60
    pid = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 60
    while is_running(pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIG_DFL)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_the_program_is_looked_for_in_the_given_path(tmp_path: Path) -> None:
    (tmp_path / "engine").write_text("#!/bin/sh\necho 4.5\n")
    (tmp_path / "engine").chmod(0o755)
    assert ask(["engine"], 20, {"PATH": f"{tmp_path}:/bin:/usr/bin"}).line == "4.5"
