"""The start: session, folder, ports, cores, environment and secrets."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_engine import Make, kept

from loadgen.errors import LaunchError, UsageError
from loadgen.launch import (
    Command,
    PortLost,
    Server,
    free_port,
    start,
    start_ready,
)
from loadgen.launch.processes import ProcessId


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


def test_a_port_is_seen_to_be_lost_where_the_engine_does_not_say_so(make: Make, folder: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(PortLost, match="no endpoint"):
            start_ready(lambda _: make("terse")(other.getsockname()[1]), folder)


def test_a_port_that_stays_taken_is_a_sentence(make: Make, folder: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(PortLost, match="Address already in use"):
            start_ready(lambda _: make()(taken), folder)
    assert kept(folder)["state"] == "stopped"
    assert kept(folder)["proof"]["port_free"] is None  # it never was ours


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


def test_a_disk_that_is_full_is_a_sentence_and_nothing_is_started(make: Make, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "server.json.part").symlink_to("/dev/full")
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(
        LaunchError, match=r"mine \(target t\) is not started: cannot write .*: No space left on device"
    ):
        start(make()(free_port()), folder)
    assert not (folder / "server.log").exists()


def test_a_disk_that_becomes_full_does_not_keep_a_server_from_its_stop(make: Make, folder: Path) -> None:
    server = start_ready(make(), folder)
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    (folder / "server.json.part").symlink_to("/dev/full")
    assert server.stop().ok
    assert kept(folder)["state"] == "ready"  # what was written before is whole
    assert not ProcessId.from_json(kept(folder)).alive()


def test_a_program_that_may_not_be_run_is_a_sentence(make: Make, folder: Path, tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text("")
    with pytest.raises(LaunchError, match="could not be started: Permission denied"):
        start(make(python=str(program))(free_port()), folder)
