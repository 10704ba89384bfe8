"""Containers for real: docker's own command line, a recipe that is shipped, and every way in which it can end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from cli_runner import command, environment, loadgen, write_scenario
from container_engine import IMAGE, container_engine, docker, missing

from loadgen.errors import LaunchError
from loadgen.launch import (
    Command,
    LaunchSpec,
    Leftover,
    Server,
    kill_leftover,
    launchers_folder,
    leftovers,
    load_recipe,
    render,
    start_ready,
)

pytestmark = [pytest.mark.engines, pytest.mark.skipif(missing() is not None, reason=str(missing()))]

CANARY = "hf_canary4711"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where the container engine listens."""
    with (
        tempfile.TemporaryDirectory(prefix="lg-", ignore_cleanup_errors=True) as folder,
        container_engine(Path(folder)) as engine,
    ):
        yield engine.socket


@pytest.fixture(autouse=True)
def place(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with TGI's recipe, of which only the patience is another. No container outlives a test."""
    monkeypatch.setenv("DOCKER_HOST", address)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", CANARY)
    text = (launchers_folder() / "tgi.yaml").read_text()
    assert "stop: {grace_s: 95}" in text
    (tmp_path / "tgi.yaml").write_text(text.replace("stop: {grace_s: 95}", "stop: {grace_s: 2}"))
    yield tmp_path
    for left in docker("ps", "-aq").split():
        docker("rm", "-f", left)


@pytest.fixture
def make(place: Path) -> Callable[..., Callable[[int], Command]]:
    """Commands of TGI in a container: ``make("--deaf")(port)``."""

    def made(*args: str, image: str = IMAGE) -> Callable[[int], Command]:
        spec = LaunchSpec(name="t", engine="./tgi.yaml", model="m/x", image=image, args=args, folder=place)
        recipe = load_recipe("./tgi.yaml", place)
        return lambda port: render(recipe, spec, port=port, run_id="run-1", launchers=launchers_folder())

    return made


@pytest.fixture
def server(make: Callable[..., Callable[[int], Command]], place: Path) -> Iterator[Server]:
    """A ready one."""
    with start_ready(make(), place / "t-1") as ready:
        yield ready


def scenario(place: Path, window_s: float, more: str = "") -> Path:
    return write_scenario(
        place,
        f"targets: {{t: {{engine: ./tgi.yaml, model: m/x, image: '{IMAGE}'{more}}}}}\n"
        "workload: {prompts: natural, output: {max: 12}}\n"
        f"load: {{concurrency: 4, warmup_s: 0.2, window_s: {window_s}}}\nrepeats: 1\n",
    )


def container_of(server: Server) -> str:
    (found,) = docker("ps", "-q", "--filter", f"label={server.describe()['container']['label']}").split()
    return found


def eventually(what: Callable[[], bool], seconds: float = 15.0) -> bool:
    until = time.monotonic() + seconds
    while not what() and time.monotonic() < until:
        time.sleep(0.05)
    return what()


@pytest.mark.parametrize("backend", ["openai_chat", "tgi_generate"])
def test_a_scenario_runs_against_a_container_and_leaves_none(place: Path, backend: str) -> None:
    client = "template: client, " if backend == "tgi_generate" else ""
    path = scenario(place, 1.0, f", backend: {backend}")
    if client:
        config = Path(__file__).parents[2] / "scenarios/models/tiny_dense.json"
        text = path.read_text().replace("model: m/x", f"served_name: m/x, model: {{config: '{config}'}}")
        path.write_text(text.replace("prompts: natural", f"{client}prompts: natural"))
    done = loadgen(place, "run", str(path))
    assert done.good, done.err + done.out
    (result,) = done.results()
    assert result.summary.ok > 10
    assert result.summary.failed == 0
    assert {record.out_tok for record in done.records(done.attempts()[0])} == {12}
    (kept,) = done.description()["servers"].values()
    assert kept["state"] == "stopped"
    assert kept["proof"]["containers_left"] == []
    assert kept["startup_s"] > 0
    facts = kept["facts"]
    assert (facts["version"], facts["revision"], facts["kv_tokens"]) == ("3.3.7", "0123abcd", 65536)
    assert facts["image_id"].removeprefix("sha256:").startswith(docker("images", "-q", IMAGE))
    assert "@sha256:" in facts["image_digest"]
    assert docker("ps", "-aq") == ""
    log = next(done.run.glob("servers/*/server.log")).read_text()
    assert "token: [secret]" in log  # the container has it, and printed it
    for file in done.run.rglob("*"):
        assert not file.is_file() or CANARY.encode() not in file.read_bytes(), file


def test_a_container_is_labelled_bare_of_privileges_and_knows_the_token_by_name_only(server: Server) -> None:
    (kept,) = json.loads(docker("inspect", container_of(server)))
    assert kept["Config"]["Labels"]["loadgen.run"] == "run-1"
    assert kept["Config"]["Labels"]["loadgen.server"] == kept["Name"].removeprefix("/")
    assert kept["HostConfig"]["Privileged"] is False
    assert kept["HostConfig"]["AutoRemove"] is True
    assert kept["HostConfig"]["Init"] is True
    assert kept["HostConfig"]["ShmSize"] == 2**30
    argv = list(server.command.argv)
    assert argv[argv.index("HF_TOKEN") - 1] == "-e"
    for words in (argv, kept["Args"], [kept["Path"]], psutil.Process(server.describe()["pid"]).cmdline()):
        assert not any(CANARY in word for word in words)


def test_a_container_is_reached_on_loopback_and_nowhere_else(server: Server) -> None:
    port = server.command.port
    assert docker("port", container_of(server)) == f"80/tcp -> 127.0.0.1:{port}"
    ours = {
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == socket.AF_INET
    }
    reached = set()
    for one in ours:
        with socket.socket() as client:
            client.settimeout(2)
            if client.connect_ex((one, port)) == 0:
                reached.add(one)
    assert reached == {"127.0.0.1"}


def test_a_container_that_hears_sigterm_ends_by_itself(server: Server) -> None:
    proof = server.stop()
    assert proof.ok, proof.problems()
    assert proof.killed == ()
    assert proof.exit_code == 0
    assert docker("ps", "-aq") == ""


def test_a_container_that_ignores_sigterm_is_stopped_by_its_label(
    make: Callable[..., Callable[[int], Command]], place: Path
) -> None:
    with start_ready(make("--deaf"), place / "t-1") as server:
        client = server.describe()["pid"]
        proof = server.stop()
    assert proof.ok, proof.problems()
    assert proof.killed == (client,)  # docker's client; the container does not descend from it
    assert docker("ps", "-aq") == ""


@pytest.mark.parametrize(
    "how", [("kill",), ("kill", "--signal", "USR1"), ("rm", "-f")]
)  # USR1 reaches the engine alone
def test_a_container_that_crashes_or_is_removed_from_outside_is_noticed_and_leaves_nothing(
    server: Server, how: tuple[str, ...]
) -> None:
    docker(*how, container_of(server))
    assert eventually(lambda: not server.alive())
    assert "died in the middle" in str(server.death("in the middle"))
    assert server.stop().ok
    assert docker("ps", "-aq") == ""


def test_a_container_removed_in_the_middle_of_a_run_is_started_once_more(place: Path) -> None:
    text = scenario(place, 3.0).read_text().replace("repeats: 1", "repeats: 2")
    run = started(place, write_scenario(place, text.removeprefix("schema: loadgen/v1\n")))
    assert eventually(lambda: any(path.stat().st_size for path in place.rglob("requests-*.jsonl")), 60)
    (kept,) = place.glob("store/runs/*/*/servers/*/server.json")
    docker("rm", "-f", docker("ps", "-q", "--filter", f"label={json.loads(kept.read_text())['container']['label']}"))
    out, err = run.communicate(timeout=120)
    assert run.returncode == 6, out + err
    assert "died in the middle of the run" in err
    assert "t is started once more" in err
    assert len(list(place.glob("store/runs/*/*/cells/*/*/rep-*/attempt-*/summary.json"))) == 1
    assert docker("ps", "-aq") == ""


def test_a_container_that_dies_at_its_start_and_an_image_that_nobody_has_are_sentences(
    make: Callable[..., Callable[[int], Command]], place: Path
) -> None:
    with pytest.raises(
        LaunchError, match=r"died while loading, exit code \d(.|\n)*Shard 0 failed to start"
    ):  # podman: 0
        start_ready(make("--dies"), place / "t-1")
    with pytest.raises(LaunchError, match=r"The image could not be fetched"):
        start_ready(make(image="127.0.0.1:9/no/such:1"), place / "t-2")
    assert docker("ps", "-aq") == ""


def test_a_port_that_was_lost_before_the_container_had_it_is_tried_again(
    make: Callable[..., Callable[[int], Command]], place: Path
) -> None:
    ports: list[int] = []
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        def command_on(port: int) -> Command:
            ports.append(port)
            return make()(other.getsockname()[1] if len(ports) == 1 else port)

        with start_ready(command_on, place / "t-1") as server:
            assert server.command.port == ports[1]
            assert len(docker("ps", "-aq").split()) == 1


@pytest.mark.parametrize("client_too", [False, True])
def test_a_container_whose_run_was_killed_is_named_and_ended_when_asked(place: Path, client_too: bool) -> None:
    run = started(place, scenario(place, 60))
    assert eventually(lambda: any(path.stat().st_size for path in place.rglob("requests-*.jsonl")), 60)
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    if client_too:
        (kept,) = place.glob("store/runs/*/*/servers/*/server.json")
        os.kill(json.loads(kept.read_text())["pid"], signal.SIGKILL)
    (id_,) = docker("ps", "-q").split()
    found: list[Leftover] = []

    def named() -> bool:
        found[:] = leftovers(place / "store")
        return bool(found) and bool(found[0].processes) is not client_too

    assert eventually(named)
    assert found[0].containers == (id_,)
    assert f"docker rm -f {id_}" in found[0].sentence()
    planned = loadgen(place, "run", str(scenario(place, 0.3)))  # the next run says so, and leaves it alone
    assert f"was killed and left tgi (target t) on port {found[0].port}" in planned.err
    assert docker("ps", "-q") == id_
    assert kill_leftover(found[0]).ok
    assert docker("ps", "-aq") == ""
    assert leftovers(place / "store") == []


def test_a_container_that_is_kept_is_named_as_kept_and_ended_when_asked(place: Path) -> None:
    done = loadgen(place, "run", str(scenario(place, 0.5)), "--keep")
    assert done.good, done.err
    (left,) = leftovers(place / "store")
    assert left.kept
    assert left.containers == (docker("ps", "-q"),)
    with urllib.request.urlopen(f"http://127.0.0.1:{left.port}/health", timeout=10) as reply:
        assert reply.status == 200
    assert kill_leftover(left).ok
    assert docker("ps", "-aq") == ""


def started(place: Path, path: Path, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("run", str(path)), cwd=place, env=environment(place / "store"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more,
    )  # fmt: skip
