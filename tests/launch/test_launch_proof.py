"""What is said when something of a server is left, and what an engine says of itself."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from loadgen.launch import MemoryProof, StopProof
from loadgen.launch.command import Container
from loadgen.launch.containers import image_of, living, remove
from loadgen.launch.facts import installed_version
from loadgen.launch.models import model_revision
from loadgen.launch.processes import Tree, end, identify, send

GONE = StopProof(
    exit_code=0,
    took_s=1.0,
    killed=(),
    left=(),
    containers_left=(),
    port=8000,
    port_free=True,
    memory=MemoryProof({}, (), 0.5),
)


def test_a_server_of_which_nothing_is_left_has_no_problems() -> None:
    assert GONE.ok
    assert msgspec.structs.replace(GONE, killed=(5,), memory=None, port_free=None).ok


@pytest.mark.parametrize(
    ("left", "sentence"),
    [
        ({"left": (7, 8)}, "processes 7, 8 live in spite of SIGKILL"),
        ({"containers_left": ("c1",)}, "containers c1 could not be removed"),
        ({"containers_left": None}, "whether its container is gone is not known"),
        ({"port_free": False}, "port 8000 is still in use"),
        (
            {"memory": MemoryProof({1: 3 * 10**9}, (4711,), 60.0)},
            "memory is still held after 60 s: GPU 1 3.0 GB by processes 4711",
        ),
    ],
)
def test_what_is_left_of_a_server_is_a_sentence(left: dict[str, object], sentence: str) -> None:
    proof = msgspec.structs.replace(GONE, **left)  # type: ignore[arg-type]
    assert not proof.ok
    (problem,) = proof.problems()
    assert problem.startswith(sentence)


@pytest.mark.parametrize("program", ["false", "/no/such/docker"])
def test_a_container_engine_that_does_not_answer_leaves_it_open_what_lives(program: str) -> None:
    container = Container(program, "c", "loadgen.server=c")
    assert living(container) is None
    assert remove(container, 0.0) is None
    assert image_of(container) == {}


def test_the_revision_of_a_hubs_model_is_the_one_that_its_cache_holds(tmp_path: Path) -> None:
    main = tmp_path / "models--org--m" / "refs" / "main"
    main.parent.mkdir(parents=True)
    main.write_text("0123abcd\n")
    environ = {"HF_HUB_CACHE": str(tmp_path)}
    assert model_revision("org/m", environ) == "0123abcd"
    assert model_revision("org/other", environ) is None
    assert model_revision("./m", environ) is None


def test_a_version_is_the_last_line_of_its_command_and_none_without_the_engine() -> None:
    show = [sys.executable, "-c", "print('warning: slow'); print('engine 1.10')"]
    assert installed_version(show, os.environ) == "engine 1.10"
    assert installed_version([sys.executable, "-c", "raise SystemExit(1)"], os.environ) is None
    assert installed_version(["/no/such/engine", "--version"], os.environ) is None


def test_a_signal_reaches_the_process_that_was_meant_and_no_other_of_its_number() -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        meant = identify(sleeper.pid)
        assert meant is not None
        later = msgspec.structs.replace(
            meant, ticks=None if meant.ticks is None else meant.ticks + 1, created=meant.created + 9
        )
        assert not send(later, signal.SIGKILL)
        time.sleep(0.05)
        assert sleeper.poll() is None
        assert send(meant, signal.SIGKILL)
        assert sleeper.wait(60) == -signal.SIGKILL
        assert not send(meant, signal.SIGKILL)
        assert identify(sleeper.pid) is None
    finally:
        sleeper.kill()
        sleeper.wait()


EXIT_OF_ONE_THREAD = {"x86_64": 60, "aarch64": 93}  # Linux's exit, without _group


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in EXIT_OF_ONE_THREAD,
    reason="the number of exit is not known here",
)
def test_a_process_whose_first_thread_has_ended_lives_as_long_as_the_others() -> None:
    program = (
        "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(600,)).start();"
        f"ctypes.CDLL(None).syscall({EXIT_OF_ONE_THREAD[platform.machine()]}, 0)"
    )
    lasting = subprocess.Popen([sys.executable, "-c", program])
    try:
        meant = identify(lasting.pid)
        assert meant is not None
        until = time.monotonic() + 60
        while b") Z " not in Path(f"/proc/{lasting.pid}/stat").read_bytes() and time.monotonic() < until:
            time.sleep(0.02)
        assert meant.alive()
        assert lasting.poll() is None
        lasting.kill()
        lasting.wait(60)
        assert not meant.alive()
    finally:
        lasting.kill()
        lasting.wait()


def test_a_tree_without_a_leader_and_a_cookie_that_nobody_has_is_empty() -> None:
    tree = Tree(None, "nobody-has-this")
    assert end(tree, 0.0).left == ()
    assert tree.alive() == []
