"""Shell completion: the scripts that the command prints for a shell, and what they are told when a key is pressed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of two runs."""
    folder = tmp_path_factory.mktemp("completion")
    for name in ("20261120T041656Z-nightly-aaa111", "20261121T041656Z-nightly-bbb222"):
        (folder / "store/runs/2026-11-21" / name).mkdir(parents=True)
    return folder


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "LOADGEN_HOME": str(folder / "store"), **more}


def script(folder: Path, shell: str) -> str:
    env = environment(folder, _LOADGEN_COMPLETE=f"source_{shell}")
    return subprocess.run(["loadgen"], env=env, capture_output=True, text=True, check=True).stdout


def in_bash(folder: Path, line: str) -> list[str]:
    """What bash offers behind a line that is typed so far."""
    words = line.split(" ")
    presses = (
        f"{script(folder, 'bash')}\nCOMP_WORDS=({' '.join(map(repr, words))}); COMP_CWORD={len(words) - 1}\n"
        '_loadgen_completion loadgen; printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", presses], env=environment(folder), cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("loadgen rei", ["reindex"]),
        ("loadgen report --form", ["--format"]),
        ("loadgen report last --format j", ["json", "junit"]),
        ("loadgen report bbb", ["bbb222"]),
        ("loadgen report --open ", ["last", "20261121T041656Z-nightly-bbb222", "20261120T041656Z-nightly-aaa111"]),
        ("loadgen compare last 2026", ["20261121T041656Z-nightly-bbb222", "20261120T041656Z-nightly-aaa111"]),
    ],
)
def test_bash_completes_commands_flags_formats_and_runs(folder: Path, line: str, offered: list[str]) -> None:
    assert in_bash(folder, line) == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_one_that_it_can_read(folder: Path, shell: str) -> None:
    text = script(folder, shell)
    assert f"complete_{shell}" in text
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed: its script was printed, and nobody read it")
    done = subprocess.run([shell, "-n"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_offered_the_same(folder: Path, shell: str) -> None:
    env = environment(
        folder,
        _LOADGEN_COMPLETE=f"complete_{shell}",
        _TYPER_COMPLETE_ARGS="loadgen report last --format j",
        _TYPER_COMPLETE_FISH_ACTION="get-args",
    )
    done = subprocess.run(["loadgen"], env=env, cwd=folder, capture_output=True, text=True, check=True)
    assert "json" in done.stdout
    assert "junit" in done.stdout
    assert "markdown" not in done.stdout
