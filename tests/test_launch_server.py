"""Servers as processes: small programs that load, die, hang, fork away and refuse to die, as real engines do."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loadgen.errors import LaunchError, UsageError
from loadgen.launch import (
    Command,
    LaunchCancelled,
    LaunchSpec,
    PortLost,
    Server,
    free_port,
    load_recipe,
    render,
    start,
    start_ready,
)
from loadgen.launch.processes import ProcessId, Tree, end, row_of

ENGINE = """
import argparse, http.server, json, os, signal, socket, subprocess, sys, time

flags = argparse.ArgumentParser()
flags.add_argument("--port", type=int)
flags.add_argument("--name")
flags.add_argument("--mode", default="good")
flags.add_argument("--delay", type=float, default=0.0)
flags.add_argument("--say", action="append", default=[])
flags = flags.parse_args()
for line in flags.say:
    print(line, flush=True)
if flags.mode == "orphan":
    # a child in a session of its own that ignores SIGTERM, and whose parent ends: only the cookie is left of it
    away = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    middle = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {away!r}], start_new_session=True)"
    subprocess.run([sys.executable, "-c", middle], check=True)
if flags.mode == "child":
    away = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", away])
if flags.mode == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(flags.delay)
if flags.mode == "dies":
    for number in range(30):
        print("line", number)
    sys.exit("no memory for this model")
if flags.mode == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if flags.mode == "never":
    time.sleep(600)

class Engine(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked = 0

    def answer(self, status, value):
        body = json.dumps(value).encode() if not isinstance(value, bytes) else value
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/health":
            Engine.asked += 1
            self.answer(503 if flags.mode == "warming" and Engine.asked < 3 else 200, {})
        elif self.path == "/v1/models":
            self.answer(200, {"data": [{"id": "another" if flags.mode == "misnamed" else flags.name}]})
        elif self.path == "/version":
            self.answer(200, {"version": "1.10"})
        elif self.path == "/metrics":
            self.answer(200, b'kv{a="1"} 100\\nkv{a="2"} 28\\nkv_more 5\\n')
        else:
            self.answer(404, {})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        print("asked", json.dumps(body, sort_keys=True), self.headers.get("authorization"), flush=True)
        if self.path == "/load":
            return self.answer(200, {})
        if flags.mode == "sick":
            os._exit(3)
        if flags.mode == "failing":
            return self.answer(500, {"error": {"message": "out of pages"}})
        if flags.mode == "strict":
            return self.answer(400, {"error": {"message": "unknown field ignore_eos"}})
        if flags.mode == "html":
            return self.answer(200, b"<html>hello</html>")
        if flags.mode == "mute":
            return self.answer(200, {"choices": [{"message": {"content": ""}}], "usage": {"completion_tokens": 0}})
        self.answer(200, {"choices": [{"message": {"content": "a"}, "finish_reason": "length"}],
                          "usage": {"prompt_tokens": 1, "completion_tokens": 1}})

    def log_message(self, *words):
        pass

try:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", flags.port), Engine)
except OSError as error:
    sys.exit(f"cannot bind: {error}")
print("listening", flush=True)
server.serve_forever()
"""

RECIPE = """
command: ["{python}", ENGINE, --port, "{port}", --name, "{served_name}"]
options:
  mode: [--mode, "{value}"]
  delay: [--delay, "{value}"]
  say: {args: [--say, "{value}"], each: true}
  load: {preload: [{path: /load, body: {model: "{model}"}}]}
exact: {ignore_eos: true, min_tokens: "{n}"}
ready: {path: /health, models: /v1/models, timeout_s: 30}
metrics: /metrics
api_key: ENGINE_KEY
facts:
  version: {get: /version, field: version}
  kv_tokens: {metric: kv}
  pages: {log: 'has ([0-9,]+) pages', number: true}
  silent: {log: '(never said)'}
stop: {grace_s: 1}
"""

Make = Callable[..., Callable[[int], Command]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    (tmp_path / "engine.py").write_text(ENGINE)
    (tmp_path / "mine.yaml").write_text(RECIPE.replace("ENGINE,", f"'{tmp_path}/engine.py',"))

    def made(mode: str = "good", *, python: str | None = sys.executable, **more: Any) -> Callable[[int], Command]:
        options = {"mode": mode, **more.pop("options", {})}
        spec = LaunchSpec(name="t", engine="./mine.yaml", model="m/x", python=python, options=options, **more)
        recipe = load_recipe("./mine.yaml", tmp_path)
        return lambda port: render(recipe, spec, port=port, run_id="run-1", launchers=tmp_path)

    return made


@pytest.fixture(autouse=True)
def nothing_outlives_a_failed_test(tmp_path: Path) -> Iterator[None]:
    """A test that fails before its stop must not leave servers on the machine."""
    yield
    for path in tmp_path.rglob("server.json"):
        end(Tree(None, json.loads(path.read_text())["cookie"]), 0.0)
    for path in tmp_path.glob("containers/*"):
        os.kill(int(path.read_text()), signal.SIGKILL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "servers" / "t-1"


@pytest.fixture
def launched(make: Make, folder: Path) -> Iterator[Callable[..., Server]]:
    running: list[Server] = []

    def launch(mode: str = "good", **more: Any) -> Server:
        server = start(make(mode, **more)(free_port()), folder)
        running.append(server)
        return server

    yield launch
    for server in running:
        server.stop()


def kept(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "server.json").read_text())
    return value


def eventually(what: Callable[[], bool], seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if what():
            return True
        time.sleep(0.02)
    return what()


def test_a_server_becomes_ready_serves_and_is_gone_after_the_stop(make: Make, folder: Path) -> None:
    server = start_ready(make("warming", options={"delay": 0.2, "say": ["it has 2,048 pages"]}), folder)
    assert server.alive()
    assert server.exit_code is None
    state = kept(folder)
    assert state["state"] == "ready"
    assert state["startup_s"] >= 0.2
    assert state["facts"] == {"version": "1.10", "kv_tokens": 128, "pages": 2048, "silent": None}
    pid = server.describe()["pid"]
    proof = server.stop()
    assert proof.ok
    assert proof.exit_code == -signal.SIGTERM
    assert proof.killed == ()
    assert proof.port_free
    assert not server.alive()
    assert server.stop() is proof
    assert kept(folder)["state"] == "stopped"
    assert kept(folder)["proof"]["ok"] is True
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_readiness_asks_one_exact_token_by_the_backend(make: Make, folder: Path) -> None:
    with start_ready(make(options={"load": True}), folder) as server:
        loaded, asked = [line for line in server.log_tail() if line.startswith("asked")]
    assert loaded == 'asked {"model": "m/x"} None'
    assert json.loads(asked.removeprefix("asked ").removesuffix(" None")) == {
        "model": "m/x",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 1,
        "temperature": 0,
        "ignore_eos": True,
        "min_tokens": 1,
    }


def test_a_server_is_written_down_before_it_is_ready(launched: Callable[..., Server], folder: Path) -> None:
    server = launched("never")
    state = kept(folder)
    assert state["state"] == "starting"
    assert state["pid"] == server.describe()["pid"]
    assert ProcessId.from_json(state).alive()
    assert ProcessId.from_json(state["owner"]).pid == os.getpid()
    assert state["argv"][0] == sys.executable
    assert state["run"] == "run-1"
    assert (folder / "server.json").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_server_has_a_session_of_its_own(launched: Callable[..., Server]) -> None:
    pid = launched("never").describe()["pid"]
    assert os.getsid(pid) == os.getpgid(pid) == pid != os.getsid(0)


def test_a_server_that_dies_while_loading_is_noticed_at_once_with_its_last_lines(
    launched: Callable[..., Server],
) -> None:
    server = launched("dies", options={"delay": 0.3})
    with pytest.raises(LaunchError) as caught:
        server.wait_ready()
    noticed = time.time()
    sentence = str(caught.value)
    assert "mine (target t) died while loading, exit code 1" in sentence
    assert str(server.log_path) in sentence
    assert sentence.count("\n  line ") == 19  # twenty lines with the last one
    assert sentence.endswith("no memory for this model")
    assert noticed - server.log_path.stat().st_mtime < 0.3


def test_a_server_that_was_killed_is_said_to_be(launched: Callable[..., Server]) -> None:
    with pytest.raises(LaunchError, match="died while loading, ended by SIGKILL"):
        launched("killed").wait_ready()


def test_a_healthy_server_that_dies_at_the_first_request_is_not_ready(launched: Callable[..., Server]) -> None:
    with pytest.raises(LaunchError, match="died while loading, exit code 3"):
        launched("sick").wait_ready()


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("misnamed", "serves 'another' and not 'm/x'"),
        ("failing", "answered POST /v1/chat/completions with HTTP 500: .*out of pages"),
        ("strict", "answered POST /v1/chat/completions with HTTP 400: .*unknown field ignore_eos"),
        ("html", "something that is not openai_chat: <html>hello"),
        ("mute", "without a token"),
    ],
)
def test_a_healthy_server_that_cannot_serve_is_not_ready(
    launched: Callable[..., Server], mode: str, reason: str
) -> None:
    server = launched(mode)
    with pytest.raises(LaunchError, match=reason) as caught:
        server.wait_ready()
    assert str(server.log_path) in str(caught.value)


def test_a_server_that_is_never_ready_is_given_up_with_what_it_still_waits_for(
    launched: Callable[..., Server],
) -> None:
    with pytest.raises(LaunchError, match=r"not ready after 1 s; it still waits for GET /health \(.*connect"):
        launched("never").wait_ready(timeout_s=0.6)


def test_an_interrupt_ends_the_wait_at_once(launched: Callable[..., Server]) -> None:
    begun = time.monotonic()
    with pytest.raises(LaunchCancelled):
        launched("never").wait_ready(cancelled=lambda: time.monotonic() - begun > 0.2)
    assert time.monotonic() - begun < 5


def test_a_server_that_ignores_sigterm_is_killed_after_the_grace(make: Make, folder: Path) -> None:
    server = start_ready(make("deaf"), folder)
    begun = time.monotonic()
    proof = server.stop()
    assert proof.ok
    assert proof.exit_code == -signal.SIGKILL
    assert proof.killed == (server.describe()["pid"],)
    assert time.monotonic() - begun >= 1.0


@pytest.mark.parametrize("mode", ["child", "orphan"])
def test_children_that_left_or_ignore_sigterm_do_not_outlive_the_server(make: Make, folder: Path, mode: str) -> None:
    server = start_ready(make(mode), folder)
    leader = server.describe()["pid"]
    proof = server.stop()
    assert proof.ok
    (child,) = proof.killed
    assert child != leader
    assert not any(ProcessId.from_json(entry).alive() for entry in server.describe()["processes"])
    assert proof.exit_code == -signal.SIGTERM


def test_nothing_is_left_of_a_server_whose_leader_was_killed(make: Make, folder: Path) -> None:
    server = start_ready(make("child"), folder)
    assert eventually(lambda: len(server.describe()["processes"]) == 2)
    os.kill(server.describe()["pid"], signal.SIGKILL)
    assert eventually(lambda: not server.alive())
    assert "died in the middle, ended by SIGKILL" in str(server.death("in the middle"))
    proof = server.stop()
    assert proof.ok
    assert len(proof.killed) == 1


def test_a_failed_start_leaves_nothing(make: Make, folder: Path) -> None:
    with pytest.raises(LaunchError, match="HTTP 500"):
        start_ready(make("failing"), folder)
    state = kept(folder)
    assert state["state"] == "stopped"
    assert not ProcessId.from_json(state).alive()


def test_a_lost_port_is_tried_again_on_another(make: Make, folder: Path) -> None:
    ports: list[int] = []
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]

        def command(port: int) -> Command:
            ports.append(port)
            return make()(taken if len(ports) < 3 else port)

        with start_ready(command, folder) as server:
            assert len(ports) == 3
            assert server.command.port == ports[2]
            assert server.log_path.read_text().count("Address already in use") == 2
            assert not any("Address already in use" in line for line in server.log_tail(50))  # those were other tries


def test_a_port_that_stays_taken_is_a_sentence(make: Make, folder: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(PortLost, match="Address already in use"):
            start_ready(lambda _: make()(taken), folder)
    assert kept(folder)["state"] == "stopped"
    assert kept(folder)["proof"]["port_free"] is None  # it never was ours


def test_an_answer_from_another_server_on_our_port_is_not_ours(make: Make, folder: Path) -> None:
    with start_ready(make(), folder) as other:
        server = start(make("never")(other.command.port), folder.with_name("t-2"))
        try:
            with pytest.raises(PortLost, match="is answered by another process"):
                server.wait_ready()
        finally:
            server.stop()
        assert other.alive()


def test_a_program_that_does_not_exist_is_a_sentence(make: Make, folder: Path) -> None:
    with pytest.raises(LaunchError, match=r"there is no program '/no/such/python' here: install it"):
        start(make(python="/no/such/python")(free_port()), folder)
    assert kept(folder)["state"] == "failed"


def test_secrets_reach_the_engine_but_neither_its_log_nor_server_json(
    make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUR_KEY", "sk-1234567890")
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    command = make(
        api_key_env="OUR_KEY",
        env={"MY_PASSWORD": "swordfish"},
        options={"say": ["\x1b[31mhf_abcdefgh", "pw swordfish"]},
    )
    with start_ready(command, folder) as server:
        log = server.log_path.read_text()
        written = (folder / "server.json").read_text()
    assert "Bearer [secret]" in log  # the engine saw the key in the request, and printed it
    for secret in ("sk-1234567890", "hf_abcdefgh", "swordfish"):
        assert secret not in log
        assert secret not in written
    assert log.startswith("[secret]\npw [secret]\n")
    assert json.loads(written)["env_by_name"] == {"ENGINE_KEY": "OUR_KEY"}
    assert json.loads(written)["env"]["MY_PASSWORD"] == "[secret]"


def test_a_key_that_is_not_set_is_a_sentence(make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OUR_KEY", raising=False)
    with pytest.raises(UsageError, match=r"targets\.t\.api_key_env: the variable OUR_KEY is not set"):
        start(make(api_key_env="OUR_KEY")(free_port()), folder)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin processes")
def test_every_thread_of_a_pinned_server_is_on_its_cores_and_we_stay_where_we_were(
    launched: Callable[..., Server],
) -> None:
    before = os.sched_getaffinity(0)
    core = max(before)
    pid = launched("never", cpus=(core,)).describe()["pid"]
    assert os.sched_getaffinity(pid) == {core}
    assert os.sched_getaffinity(0) == before


def test_a_core_that_does_not_exist_is_a_sentence(make: Make, folder: Path) -> None:
    with pytest.raises(UsageError, match=r"targets\.t\.cpus: core 4096 is not among"):
        start(make(cpus=(4096,))(free_port()), folder)


def test_a_server_works_in_its_own_folder_and_sees_only_allowed_variables(
    make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOMETHING_OF_MINE", "x")
    with start_ready(make(env={"GIVEN": "y"}), folder) as server:
        process = Path(f"/proc/{server.describe()['pid']}")
        if not process.exists():
            pytest.skip("no /proc here")
        environment = (process / "environ").read_bytes().split(b"\0")
        assert b"GIVEN=y" in environment
        assert not any(entry.startswith(b"SOMETHING_OF_MINE") for entry in environment)
        assert (process / "cwd").resolve() == folder.resolve()


def test_two_servers_run_at_once_and_only_the_stopped_one_ends(make: Make, folder: Path) -> None:
    with start_ready(make(), folder) as first, start_ready(make(), folder.with_name("t-2")) as second:
        assert first.stop().ok
        assert second.alive()


def test_a_container_is_stopped_and_removed_by_its_label(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a stand-in for docker's command line: `run` starts the engine outside of our tree and waits."""
    (tmp_path / "engine.py").write_text(ENGINE)
    (tmp_path / "docker").write_text(STAND_IN.replace("PYTHON", sys.executable).replace("FOLDER", str(tmp_path)))
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "mine.yaml").write_text(
        """
docker:
  image: stand-in
  run: [docker, run, --rm, "{labels}", "{env}", "{image}"]
  command: [--port, "{port}", --name, "{served_name}", --mode, deaf]
ready: {models: /v1/models, timeout_s: 30}
stop: {grace_s: 0.5}
"""
    )
    recipe = load_recipe("./mine.yaml", tmp_path)
    spec = LaunchSpec(name="t", engine="./mine.yaml", model="m/x")
    server = start_ready(lambda port: render(recipe, spec, port=port, run_id="r", launchers=tmp_path), folder)
    (inside,) = (tmp_path / "containers").iterdir()
    contained = int(inside.read_text())
    os.kill(contained, 0)
    assert kept(folder)["container"]["label"] in inside.name
    proof = server.stop()
    assert proof.ok
    assert proof.containers_left == ()
    assert not list((tmp_path / "containers").iterdir())
    row = row_of(contained)
    assert row is None or row.dead


STAND_IN = """#!PYTHON
import os, pathlib, signal, subprocess, sys, time
held = pathlib.Path("FOLDER/containers"); held.mkdir(exist_ok=True)
verb, rest = sys.argv[1], sys.argv[2:]
if verb == "run":
    label = [word for word in rest if word.startswith("loadgen.server=")][0]
    args = rest[rest.index("stand-in") + 1:]
    env = {name: value for name, value in os.environ.items() if name != "LOADGEN_SERVER"}
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    middle = (
        "import os, subprocess, sys; away = subprocess.Popen(sys.argv[1:], start_new_session=True, stdout=2);"
        "print(away.pid, flush=True); os._exit(0)"
    )
    words = [sys.executable, "-c", middle, sys.executable, "FOLDER/engine.py", *args]
    daemon = subprocess.Popen(
        words, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    (held / label).write_text(daemon.stdout.readline())
    while (held / label).exists():
        time.sleep(0.05)
elif verb == "ps":
    label = rest[rest.index("--filter") + 1].removeprefix("label=")
    print("".join(path.name for path in held.iterdir() if path.name == label))
elif verb == "rm":
    for name in rest:
        if name != "-f":
            os.kill(int((held / name).read_text()), signal.SIGKILL)
            (held / name).unlink()
elif verb == "stop":
    sys.exit(1)  # it would not stop
"""
