"""``loadgen launch``: one server by itself, its address, its end by a signal, and what a kill -9 leaves."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from cli_runner import Done, command, environment, hear_signals, loadgen, write_scenario
from fake_engine import ENGINE, RECIPE, eventually, kept

from loadgen.launch.processes import ProcessId, Tree, end


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """A folder with the fake engine and its recipe; a test that fails leaves no server on the machine."""
    (tmp_path / "engine.py").write_text(ENGINE)
    (tmp_path / "mine.yaml").write_text(RECIPE.replace("ENGINE,", f"'{tmp_path}/engine.py',"))
    yield tmp_path
    for path in tmp_path.glob("store/runs/*/*/servers/*/server.json"):
        end(Tree(None, json.loads(path.read_text())["cookie"]), 0.0)


class Standing:
    """A ``loadgen launch`` that runs; ``said`` holds what it printed once it was ready."""

    def __init__(self, here: Path, words: tuple[str, ...]) -> None:
        self.process = subprocess.Popen(
            command("launch", *words),
            cwd=here,
            env=environment(here / "store"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=hear_signals,
        )
        assert self.process.stdout is not None
        lines = [self.process.stdout.readline() for _ in range(7)]
        self.said = dict(line.rstrip("\n").split(": ", 1) for line in lines if line)
        self.store = here / "store"

    @property
    def folder(self) -> Path:
        (path,) = self.store.glob("runs/*/*/servers/*")
        return path

    def ended(self) -> Done:
        out, err = self.process.communicate(timeout=60)
        return Done(self.process.returncode, out, err, self.store)

    def end(self, number: signal.Signals) -> Done:
        self.process.send_signal(number)
        return self.ended()


@pytest.fixture
def stand(here: Path) -> Iterator[Callable[..., Standing]]:
    """Launches the fake engine; what still runs at the end of the test is killed."""
    started: list[Standing] = []

    def launch(*words: str) -> Standing:
        started.append(Standing(here, ("./mine.yaml", "--model", "m/x", *words)))
        return started[-1]

    yield launch
    for one in started:
        one.process.kill()
        one.ended()


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)],
    ids=lambda value: str(value),
)
def test_it_stands_until_a_signal_comes_and_then_nothing_of_it_is_left(
    stand: Callable[..., Standing], number: signal.Signals, code: int
) -> None:
    one = stand("-o", "mode=child")
    url = one.said["endpoint"]
    assert httpx.get(f"{url}/health", trust_env=False, timeout=60).status_code == 200
    assert one.said["stop"] == f"Ctrl-C, or kill {one.process.pid}"
    done = one.end(number)
    assert done.code == code, done.err
    assert "mine is stopped, and nothing of it is left" in done.err
    record = kept(one.folder)
    assert record["state"] == "stopped"
    assert record["proof"]["ok"] is True
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health", trust_env=False)


def test_what_it_prints_can_be_used_as_it_is(stand: Callable[..., Standing], here: Path) -> None:
    one = stand("--served-name", "tiny")
    assert one.said["model"] == "tiny"
    words = shlex.split(one.said["try"])
    url, body = words[2], words[words.index("-d") + 1]
    reply = httpx.post(url, content=body, headers={"content-type": "application/json"}, trust_env=False, timeout=60)
    assert reply.json()["usage"]["completion_tokens"] == 1
    scenario = write_scenario(
        here,
        f"targets: {{a: {one.said['target']}}}\nworkload: {{prompts: natural, output: {{exact: 4}}}}\n"
        "load: {concurrency: 1, window_s: 1}\n",
    )
    assert loadgen(here, "plan", str(scenario)).code == 0
    words = shlex.split(one.said["load"].replace("SCENARIO", str(scenario)))
    assert loadgen(here, "plan", *words[2:]).code == 0
    assert Path(one.said["log"]).read_text().startswith("listening")


def test_no_report_takes_it_for_a_run(stand: Callable[..., Standing], here: Path) -> None:
    one = stand()
    assert "-launch-" in one.folder.parents[1].name
    assert "no run 'last'" in loadgen(here, "report", "last").err


def test_a_server_that_dies_while_it_stands_is_exit_6_with_the_end_of_its_log(stand: Callable[..., Standing]) -> None:
    one = stand("-o", "say=[one line]")
    os.kill(kept(one.folder)["pid"], signal.SIGKILL)
    done = one.ended()
    assert done.code == 6
    assert "died while it stood, ended by SIGKILL" in done.err
    assert "  one line" in done.err
    assert kept(one.folder)["proof"]["ok"] is True


def test_a_server_that_does_not_get_ready_is_exit_6_with_the_end_of_its_log(here: Path) -> None:
    done = loadgen(here, "launch", "./mine.yaml", "--model", "m/x", "-o", "mode=dies")
    assert done.code == 6
    assert done.out == ""
    assert "no memory for this model" in done.err
    assert "Traceback" not in done.err


def test_a_signal_while_it_loads_ends_it(here: Path) -> None:
    process = subprocess.Popen(
        command("launch", "./mine.yaml", "--model", "m/x", "-o", "mode=never"),
        cwd=here, env=environment(here / "store"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=hear_signals,
    )  # fmt: skip

    def loads() -> bool:
        return any(json.loads(path.read_text())["pid"] for path in here.glob("store/runs/*/*/servers/*/server.json"))

    try:
        assert eventually(loads)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130, err
    (folder,) = here.glob("store/runs/*/*/servers/*")
    assert kept(folder)["state"] == "stopped"


def test_a_launch_that_was_killed_leaves_what_doctor_names_and_ends(stand: Callable[..., Standing], here: Path) -> None:
    one = stand("-o", "mode=child")
    engine = ProcessId.from_json(kept(one.folder))
    one.process.kill()
    one.ended()
    named = loadgen(here, "doctor")
    assert named.code == 5
    port = one.said["endpoint"].rpartition(":")[2]
    assert f"was killed and left mine (target mine) on port {port}" in " ".join(named.out.split())
    assert str(engine.pid) in named.out
    ended = loadgen(here, "doctor", "--stop", "--json")
    servers = [finding for finding in json.loads(ended.out) if finding["name"] == "server"]
    assert [(finding["state"], finding["facts"]["stopped"]) for finding in servers] == [("ok", True)]
    assert ended.code in (0, 5)  # 5 where this machine has a problem of its own
    assert not engine.alive()
    assert "server:" not in loadgen(here, "doctor").out


def test_the_line_of_a_dry_run_starts_the_same_server(here: Path) -> None:
    words = (
        "./mine.yaml",
        "--model",
        "m/x",
        "--served-name",
        "tiny",
        "--env",
        "A_TOKEN=very-secret",
        "--args",
        "--say 'a b'",
    )
    done = loadgen(here, "launch", *words, "--dry-run")
    assert done.code == 0, done.err
    (line,) = done.out.splitlines()
    assert "very-secret" not in line
    assert 'A_TOKEN="$A_TOKEN"' in line
    assert not (here / "store").exists()
    port = int(shlex.split(line)[shlex.split(line).index("--port") + 1])
    shell = subprocess.Popen(["sh", "-c", f"exec {line}"], cwd=here, stdout=subprocess.PIPE, text=True)
    try:
        assert shell.stdout is not None
        assert shell.stdout.readline() == "a b\n"
        assert shell.stdout.readline() == "listening\n"
        listed = httpx.get(f"http://127.0.0.1:{port}/v1/models", trust_env=False, timeout=60).text
        assert "tiny" in listed
    finally:
        shell.kill()
        shell.communicate()


def test_a_port_can_be_chosen_and_one_that_is_taken_is_a_sentence(here: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = loadgen(here, "launch", "./mine.yaml", "--model", "m/x", "--port", str(port))
    assert done.code == 2
    assert f"--port {port}: another program listens there" in done.err
    done = loadgen(here, "launch", "./mine.yaml", "--model", "m/x", "--port", str(port), "--dry-run")
    assert f"--port {port} " in done.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "launch what? Name an engine"),
        (["./mine.yaml"], "--model is missing"),
        (["./mine.yaml", "--model", "./nowhere"], "does not exist"),
        (["./mine.yaml", "--model", "nowhere.json"], "there is no such file"),
        (["./mine.yaml", "--model", "m", "-o", "mood=good"], "-o mood: mine has no 'mood'; did you mean 'mode'?"),
        (["./mine.yaml", "--model", "m", "-o", "mode"], "write -o word=value"),
        (["./mine.yaml", "--model", "m", "-o", "served_name=x"], "write --served-name x"),
        (["./mine.yaml", "--model", "m", "-o", "mode=[1"], "is not YAML"),
        (["./mine.yaml", "--model", "m", "--env", "A"], "write --env NAME=VALUE"),
        (["./mine.yaml", "--model", "m", "--image", "x"], "--image: "),
        (["./mine.yaml", "--model", "m", "--devices", "0"], "--devices: "),
        (["./mine.yaml", "--model", "m", "--args", "'open"], "--args"),
        (["./mine.yaml", "--model", "m", "--profile", "gpu"], "profiles belong to a scenario"),
        (["--target", "s.yaml"], "write FILE.yaml:NAME"),
        (["--target", "s.yaml:c"], "there is no target 'c'; there are a, b"),
        (["--target", "s.yaml:b"], "this target is an endpoint"),
        (["hf", "--target", "s.yaml:a"], "the target names its engine itself"),
        (["--target", "s.yaml:a", "-o", "mood=good"], "s.yaml:a: targets.a.options.mood: mine has no 'mood'"),
    ],
)
def test_flags_that_cannot_be_used_are_a_sentence_before_anything_starts(
    here: Path, words: list[str], said: str
) -> None:
    write_scenario(here, TARGETS)
    done = loadgen(here, "launch", *words)
    assert done.code == 2, done.err
    assert said in done.err
    assert "Traceback" not in done.err
    assert not (here / "store").exists()


TARGETS = (
    "targets:\n  a: {engine: ./mine.yaml, model: m/x, options: {mode: slow, delay: 1}, args: [--say, x]}\n"
    "  b: {endpoint: 'http://127.0.0.1:9', model: m}\n"
    "workload: {prompts: natural, output: {exact: 4}}\nload: {concurrency: 1, window_s: 1}\nrepeats: 1\n"
)


def test_a_scenarios_target_is_launched_with_the_changes_of_the_flags(here: Path) -> None:
    write_scenario(here, TARGETS)
    words = ["--target", "s.yaml:a", "-o", "mode=good", "-o", "delay=null", "--args", "--say y", "--served-name", "z"]
    line = loadgen(here, "launch", *words, "--dry-run").out
    argv = shlex.split(line)[shlex.split(line).index(f"{here}/engine.py") + 1 :]
    assert argv[2:] == ["--name", "z", "--mode", "good", "--say", "x", "--say", "y"]


def test_a_config_becomes_a_model_only_at_a_launch(here: Path) -> None:
    (here / "tiny.json").write_text("{}")
    done = loadgen(here, "launch", "./mine.yaml", "--model", "tiny.json", "--dry-run")
    assert done.code == 0
    assert "does not exist yet: it is made from" in done.err
    assert done.out.endswith("--name tiny\n")


def test_the_plan_prints_a_command_for_every_configuration_that_is_launched(here: Path) -> None:
    write_scenario(here, TARGETS + "matrix: {targets.a.options.delay: [1, 2], load.concurrency: [1, 2]}\n")
    done = loadgen(here, "plan", "s.yaml", "--commands")
    assert done.code == 0, done.err
    heads, lines = done.out.splitlines()[::2], done.out.splitlines()[1::2]
    assert heads == ["# a", "# a"]
    assert [shlex.split(line)[-3] for line in lines] == ["1", "2"]


def test_the_default_python_is_our_own(here: Path) -> None:
    line = loadgen(here, "launch", "./mine.yaml", "--model", "m/x", "--dry-run").out
    assert sys.executable in shlex.split(line)
