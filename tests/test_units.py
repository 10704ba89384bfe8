"""The shipped cron line and systemd units: absolute paths, a bare environment, and what systemd itself says of them."""

from __future__ import annotations

import configparser
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from loadgen.locks import SHARED

SCRIPTS = Path(__file__).parents[1] / "scripts"
CRON = SCRIPTS / "nightly.cron"
SERVICE = SCRIPTS / "loadgen-nightly.service"
TIMER = SCRIPTS / "loadgen-nightly.timer"
LOCKS = SCRIPTS / "loadgen-locks.conf"


def unit(path: Path) -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read(path)
    return parsed


def cron_line() -> str:
    lines = [line for line in CRON.read_text().splitlines() if line and not line.startswith("#")]
    (line,) = [line for line in lines if "=" not in line.split(" ")[0]]
    return line


def loadgen_words(command: str) -> list[str]:
    """From the program to the end of its arguments."""
    words = command.split()
    return words[next(i for i, word in enumerate(words) if word.endswith("/loadgen")) :]


def test_the_line_has_five_fields_a_user_and_a_command_that_a_shell_can_read() -> None:
    *fields, user, command = cron_line().split(" ", 6)
    assert fields == ["30", "3", "*", "*", "*"]
    assert user == "loadgen"
    assert "%" not in command  # cron makes a newline of it
    assert subprocess.run(["sh", "-n", "-c", command], check=False).returncode == 0
    assert CRON.read_text().endswith("\n")  # cron passes over a last line without one


def test_the_log_that_cron_appends_to_is_the_one_that_is_rotated() -> None:
    text = (SCRIPTS / "loadgen-nightly.logrotate").read_text()
    (log,) = [line.split()[0] for line in text.splitlines() if line.endswith(" {")]
    assert f">>{log} 2>&1" in cron_line()


@pytest.mark.skipif(shutil.which("logrotate") is None, reason="there is no logrotate here")
def test_logrotate_finds_nothing_to_complain_of(tmp_path: Path) -> None:
    log = tmp_path / "nightly.log"
    log.write_text("a night\n")
    text = (SCRIPTS / "loadgen-nightly.logrotate").read_text()
    text = text.replace("/srv/loadgen/nightly.log", str(log)).replace("su loadgen loadgen", "")
    (tmp_path / "rules").write_text(text)
    (tmp_path / "rules").chmod(0o644)
    words = ["logrotate", "--force", "--state", str(tmp_path / "state"), str(tmp_path / "rules")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in tmp_path.glob("nightly.log*")] == ["nightly.log.1"]


def test_both_do_the_same_by_absolute_paths_and_with_a_bare_path() -> None:
    by_cron = loadgen_words(cron_line().partition(" >>")[0])
    by_systemd = loadgen_words(unit(SERVICE)["Service"]["ExecStart"])
    assert by_cron == by_systemd
    assert [word for word in by_cron if "/" in word and not word.startswith("/")] == []
    assert "PATH=/usr/bin:/bin" in CRON.read_text().splitlines()
    assert unit(SERVICE)["Service"]["Environment"] == "PATH=/usr/bin:/bin"


def test_the_command_is_one_that_loadgen_takes() -> None:
    words = loadgen_words(unit(SERVICE)["Service"]["ExecStart"])
    done = subprocess.run(
        [sys.executable, "-m", "loadgen", *words[1:], "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    given = {word for word in words if word.startswith("--")}
    assert {word for word in given if word not in done.stdout} == set()


def test_the_service_ends_all_of_a_night_that_hangs_and_the_timer_makes_up_for_one_that_was_missed() -> None:
    service, timer = unit(SERVICE)["Service"], unit(TIMER)["Timer"]
    assert service["Type"] == "oneshot"
    assert (
        service["KillMode"] == "mixed"
    )  # SIGTERM for loadgen, which ends the rest in order; SIGKILL for all that is left
    assert service["TimeoutStartSec"] == "8h"
    assert timer["OnCalendar"].endswith("03:30:00")
    assert timer["Persistent"] == "true"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
def test_systemd_finds_nothing_to_complain_of(tmp_path: Path) -> None:
    """With places that exist; it wants the program to be there."""
    program = Path(sys.executable).with_name("loadgen")
    text = SERVICE.read_text().replace("/opt/loadgen/.venv/bin/loadgen", str(program))
    (tmp_path / SERVICE.name).write_text(text)
    shutil.copy(TIMER, tmp_path)
    paths = [str(tmp_path / name) for name in (SERVICE.name, TIMER.name)]
    done = subprocess.run(["systemd-analyze", "verify", *paths], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
def test_systemd_would_complain_of_a_unit_that_is_wrong(tmp_path: Path) -> None:
    """So that the test above can fail."""
    (tmp_path / SERVICE.name).write_text(SERVICE.read_text().replace("/opt/loadgen", "/no/such"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / SERVICE.name)], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0


def test_the_folder_of_locks_that_all_users_share_is_the_one_that_is_looked_for() -> None:
    (line,) = [line for line in LOCKS.read_text().splitlines() if line and not line.startswith("#")]
    assert line == f"d {SHARED} 1777 root root -"
    assert f"#LOADGEN_LOCKS={SHARED}" in CRON.read_text().splitlines()
    assert f"#Environment=LOADGEN_LOCKS={SHARED}" in SERVICE.read_text().splitlines()


@pytest.mark.skipif(
    shutil.which("systemd-tmpfiles") is None or os.getuid() != 0, reason="there is no systemd-tmpfiles here, or no root"
)
def test_systemd_makes_the_folder_of_locks_for_everybody(tmp_path: Path) -> None:
    shutil.copy(LOCKS, tmp_path / "loadgen.conf")
    words = ["systemd-tmpfiles", "--create", f"--root={tmp_path}", str(tmp_path / "loadgen.conf")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert stat.S_IMODE((tmp_path / SHARED.lstrip("/")).stat().st_mode) == 0o1777
