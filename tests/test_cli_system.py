"""What the system refuses (a closed or full standard output, a name that is too long, a home that nobody has) is a
sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from scenario_text import SMALLEST

LOADGEN = [sys.executable, "-m", "loadgen"]


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What a shell's line gives; ``$LOADGEN`` in it is our command."""
    environ = {**os.environ, "LOADGEN": " ".join(LOADGEN)}
    return subprocess.run(["sh", "-c", line], cwd=folder, env=environ, capture_output=True, text=True, check=False)


def test_a_closed_standard_output_is_thrown_away(tmp_path: Path) -> None:
    done = shell("$LOADGEN schema >&-", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_error_without_a_standard_error_is_still_its_exit_code(tmp_path: Path) -> None:
    done = shell("$LOADGEN report last --store . 2>&-", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["schema", "--help"])
def test_a_full_standard_output_is_a_sentence(command: str, tmp_path: Path) -> None:
    done = shell(f"$LOADGEN {command} > /dev/full", tmp_path)
    assert (done.returncode, done.stderr) == (1, "loadgen: cannot go on: No space left on device.\n")


def test_what_the_system_refuses_is_a_sentence_that_names_the_file(tmp_path: Path) -> None:
    name = "x" * 300
    done = shell(f"$LOADGEN report last --store {name}", tmp_path)
    assert (done.returncode, done.stderr) == (1, f"loadgen: cannot go on: {name}: File name too long.\n")


def test_a_folder_that_was_deleted_meanwhile_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(SMALLEST)
    done = shell("mkdir gone && cd gone && rmdir ../gone && $LOADGEN run ../x.yaml", tmp_path)
    assert done.returncode == 1
    assert done.stderr == "loadgen: cannot go on: the current folder was deleted; change into one that exists.\n"


@pytest.mark.parametrize(
    ("target", "prompts"),
    [
        ("endpoint: http://127.0.0.1:9, model: a", "jsonl, path: ~nobody.here/x"),
        ("engine: hf, model: ~nobody.here/x", "natural"),
    ],
)
def test_the_home_of_nobody_is_a_path_that_does_not_exist(target: str, prompts: str, tmp_path: Path) -> None:
    text = SMALLEST.replace("engine: hf, model: a", target).replace("prompts: natural", f"prompts: {prompts}")
    (tmp_path / "x.yaml").write_text(text)
    done = shell("$LOADGEN run x.yaml", tmp_path)
    assert done.returncode == 2
    assert "~nobody.here/x does not exist" in done.stderr
    assert "Traceback" not in done.stderr
