"""What people see: the report in terminals of several widths, in a pipe, without colours and without Unicode."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from cli_runner import command
from terminal import in_terminal
from test_reports import GOLDEN, made_known

from loadgen.assemble import assemble
from loadgen.reports import FORMATS
from loadgen.reports.formats import render
from loadgen.store import find_run

LOCALES = ("LC_ALL", "LC_CTYPE", "LANG", "PYTHONIOENCODING", "PYTHONUTF8", "COLUMNS", "NO_COLOR")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one run of two models that are known."""
    folder = tmp_path_factory.mktemp("seen")
    made_known(folder)
    return folder / "store"


def environment(store: Path, more: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in LOCALES}
    return {**kept, "LOADGEN_HOME": str(store), "TERM": "xterm", **more}


def settled(shown: str) -> str:
    """The same without what is different in each test: the run's folder."""
    return re.sub(r"(?m)^run: .*", "run: RUN", shown)


def held_against(name: str, shown: str, folder: Path) -> None:
    golden, found = GOLDEN / name, folder / name
    found.write_text(shown)
    assert found.read_text() == golden.read_text(), f"if {found} is better, copy it over {golden}"


def in_pipe(store: Path, more: Mapping[str, str], *words: str) -> bytes:
    done = subprocess.run(command("report", "last", *words), env=environment(store, more), capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_terminal_shows_the_report_as_it_was_and_nothing_is_wider(store: Path, columns: int, tmp_path: Path) -> None:
    code, shown = in_terminal(command("report", "last"), tmp_path, environment(store, {"LANG": "C.UTF-8"}), columns)
    assert code == 0
    assert max(map(len, settled(shown).splitlines())) <= columns
    held_against(f"report-{columns}.txt", settled(shown), tmp_path)


def test_an_ascii_locale_gets_ascii_and_the_same_lines(store: Path, tmp_path: Path) -> None:
    code, shown = in_terminal(command("report", "last"), tmp_path, environment(store, {"LC_ALL": "C"}), 80)
    assert code == 0
    assert shown.isascii()
    assert "?" not in shown  # nothing that had to be replaced
    held_against("report-80-ascii.txt", settled(shown), tmp_path)


def test_a_pipe_has_room_for_every_column_and_no_escapes(store: Path, tmp_path: Path) -> None:
    shown = in_pipe(store, {"LANG": "C.UTF-8"}).decode()
    assert "\u001b" not in shown
    assert "left out" not in shown.partition("Against")[0]
    held_against("report-160.txt", settled(shown), tmp_path)


def test_no_color_changes_nothing_because_nothing_is_said_by_colour_alone(store: Path, tmp_path: Path) -> None:
    words = command("report", "last")
    with_colour, without = (
        in_terminal(words, tmp_path, environment(store, {"LANG": "C.UTF-8", **more}), 80)[1]
        for more in ({}, {"NO_COLOR": "1"})
    )
    assert with_colour == without
    assert "\u001b" not in without


def test_watch_says_by_columns_how_wide_its_pipe_is(store: Path) -> None:
    shown = settled(in_pipe(store, {"LANG": "C.UTF-8", "COLUMNS": "60"}).decode())
    assert 50 < max(map(len, shown.splitlines())) <= 60
    wide = settled(in_pipe(store, {"LANG": "C.UTF-8", "COLUMNS": "0"}).decode())
    assert max(map(len, wide.splitlines())) > 100


@pytest.mark.parametrize("form", FORMATS[1:])
def test_what_programs_read_is_utf8_in_every_locale(store: Path, form: str) -> None:
    shown = in_pipe(store, {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, "--format", form).decode()
    report = assemble(find_run(store, "last"))
    assert shown == render(form, [report])
