"""launchers/in_checkout.py: a program of a checkout runs there, in the process that was started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from loadgen.launch import launchers_folder

SHOW = "import json, os, sys; print(json.dumps([os.getcwd(), os.getpid(), sys.argv, __name__, sys.path[0]]))"


def ran(folder: Path, checkout: str | None, *words: str) -> tuple[int, int, str, str]:
    env = {**os.environ, **({"ENGINE_CHECKOUT": checkout} if checkout else {})}
    command = [sys.executable, str(launchers_folder() / "in_checkout.py"), *words]
    with subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        out, err = process.communicate(timeout=60)
    return process.pid, process.returncode, out, err


def test_a_program_runs_in_its_checkout_and_is_the_process_that_was_started(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "main.py").write_text(SHOW)
    pid, code, out, err = ran(tmp_path, str(checkout), "main.py", "--config", "/x/c.yml")
    assert (code, err) == (0, "")
    assert json.loads(out) == [str(checkout), pid, ["main.py", "--config", "/x/c.yml"], "__main__", str(checkout)]


def test_a_checkout_that_is_not_named_or_has_no_such_program_is_a_sentence(tmp_path: Path) -> None:
    _, code, _, err = ran(tmp_path, None, "main.py")
    assert code == 1
    assert "say where main.py is in the target, options: {checkout: FOLDER}" in err
    _, code, _, err = ran(tmp_path, str(tmp_path), "server.py")
    assert code == 1
    assert f"ENGINE_CHECKOUT is {tmp_path}, which has no server.py" in err
