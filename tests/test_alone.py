"""What a run must have alone on a machine, and that no two runs have it at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from cli_runner import command, environment, loadgen, write_scenario
from fake_nvml import FakeNvml
from fake_nvml import Gpu as Card
from nights_made import SCENARIO, Place

from loadgen.alone import alone, gpus_here, places_of, seen_by
from loadgen.doctor.gpus import Gpu
from loadgen.errors import BusyError, LaunchError, UsageError
from loadgen.launch import LaunchSpec, kill_leftover, leftovers
from loadgen.locks import held, machine_locks
from loadgen.scenario import Cell, expand, load

WORKLOAD = "workload: {prompts: natural, output: {exact: 4}}\nload: {concurrency: 1, warmup_s: 0, window_s: 1}\n"


def gpu(index: int, name: str = "H200") -> Gpu:
    words = {"name": name, "memory_total": 140 * 10**9, "memory_used": 0, "driver": "570", "cuda": "12.8"}
    return Gpu(index=index, uuid=f"GPU-{index}a", processes=(), **words)


def cells(folder: Path, targets: str, more: str = "") -> list[Cell]:
    return expand(load(write_scenario(folder, f"targets: {{{targets}}}\n{WORKLOAD}{more}")).scenario)


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "locks"
    folder.mkdir()
    monkeypatch.setenv("LOADGEN_LOCKS", str(folder))
    return folder


@pytest.fixture
def place(tmp_path: Path, locks: Path) -> Place:
    return Place(tmp_path)


# Which GPUs -----------------------------------------------------------------------------------------------------------


def test_a_launched_target_needs_its_gpus_and_one_that_names_none_all(tmp_path: Path) -> None:
    here = [gpu(0), gpu(1), gpu(2)]
    two = "a: {engine: vllm, model: m, devices: [1]}, b: {engine: vllm, model: m, devices: [GPU-2a]}"
    assert places_of(cells(tmp_path, two), here) == ["GPU-1a", "GPU-2a"]
    for part in ("MIG-7", "GPU-1, MIG-7"):  # of which GPU that is a part cannot be told
        one = cells(tmp_path, f"a: {{engine: vllm, model: m, devices: [{part}]}}")
        assert places_of(one, here) == ["GPU-0a", "GPU-1a", "GPU-2a"]
    short = cells(tmp_path, "a: {engine: vllm, model: m, devices: [GPU-1]}")  # as much as tells it apart
    assert places_of(short, here) == ["GPU-1a"]
    for none in ("", ", devices: []"):
        one = cells(tmp_path, f"a: {{engine: vllm, model: m{none}}}")
        assert places_of(one, here) == ["GPU-0a", "GPU-1a", "GPU-2a"]
        assert places_of(one, []) == ["cores"]


def test_an_endpoint_needs_nothing_of_this_machine(tmp_path: Path) -> None:
    assert places_of(cells(tmp_path, "a: {endpoint: 'http://127.0.0.1:1', model: m}"), [gpu(0)]) == []


def test_a_target_whose_devices_differ_by_cell_needs_them_all(tmp_path: Path) -> None:
    matrix = "matrix: {include: [{targets.a.devices: [0]}, {targets.a.devices: [1]}]}\n"
    found = cells(tmp_path, "a: {engine: vllm, model: m, devices: [2]}", matrix)
    assert places_of(found, [gpu(0), gpu(1), gpu(2)]) == ["GPU-0a", "GPU-1a"]


def test_a_server_kept_off_the_gpus_needs_the_cores_beside_those_of_the_others(tmp_path: Path) -> None:
    two = "a: {engine: hf, model: m, options: {device: cpu}}, b: {engine: hf, model: m, devices: [0]}"
    assert places_of(cells(tmp_path, two), [gpu(0), gpu(1)]) == ["GPU-0a", "cores"]


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ("1", [1]),
        ("2,0", [0, 2]),
        ("GPU-1", [1]),  # as much of a UUID as tells it apart
        ("GPU-1a, GPU-2a", [1, 2]),
        ("0,-1,2", [0]),  # what follows a word that is none is not seen
        ("", []),
        ("MIG-7", [0, 1, 2]),  # a part of some GPU: of which cannot be told
    ],
)
def test_a_server_sees_the_gpus_that_its_environment_leaves_it(
    monkeypatch: pytest.MonkeyPatch, said: str, seen: list[int]
) -> None:
    here = [gpu(0), gpu(1), gpu(2)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    spec = LaunchSpec(name="a", engine="vllm", model="m")
    assert [one.index for one in seen_by(spec, here)] == seen
    named = LaunchSpec(name="a", engine="vllm", model="m", devices=(2,))
    assert seen_by(named, here) == [here[2]]
    contained = LaunchSpec(name="a", engine="vllm", model="m", image="vllm/vllm-openai")
    assert seen_by(contained, here) == here  # our variables do not reach into a container
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert seen_by(spec, here) == here
    own = LaunchSpec(name="a", engine="vllm", model="m", env={"CUDA_VISIBLE_DEVICES": said})
    assert [one.index for one in seen_by(own, here)] == seen


def test_an_index_among_gpus_of_several_kinds_counts_only_in_the_order_that_is_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = [gpu(0, "L4"), gpu(1)]
    spec = LaunchSpec(name="a", engine="vllm", model="m")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    assert seen_by(spec, here) == here  # CUDA's own order begins with the fastest
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert seen_by(spec, here) == here[:1]


def test_a_driver_that_does_not_answer_is_not_waited_for_all_night(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml, awake = FakeNvml(Card("GPU-0a")), threading.Event()
    monkeypatch.setattr(nvml, "nvmlInit", awake.wait)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr("loadgen.alone.ANSWER_S", 0.05)
    with pytest.raises(LaunchError, match=r"^the driver of the GPUs does not answer within 0 s; `dmesg`"):
        gpus_here()
    awake.set()


# Standing beside each other -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "comparison", "shared"),
    [
        ("", "", "scope: instance", "0, 1"),  # neither names any, and both see them all
        ("devices: [0]", "devices: [GPU-0a]", "scope: instance", "0"),  # one GPU by two names
        ("devices: [0]", "devices: [1]", "scope: instance", None),
        ("", "options: {device: cpu}", "scope: instance", None),
        ("", "", "{scope: instance, share_devices: true}", None),
        ("", "", "scope: restart", None),
    ],
)
def test_servers_that_name_no_gpus_are_not_stood_on_the_same_ones(
    tmp_path: Path, locks: Path, monkeypatch: pytest.MonkeyPatch, a: str, b: str, comparison: str, shared: str | None
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(Card("GPU-0a"), Card("GPU-1a")))
    words = comparison if comparison.startswith("{") else f"{{{comparison}}}"
    two = f"a: {{engine: hf, model: m, {a}}}, b: {{engine: hf, model: m, {b}}}"
    found = cells(tmp_path, two, f"comparison: {words}\n")
    if shared is None:
        with alone(found, "run", 0, print):
            pass
        return
    with (
        pytest.raises(UsageError, match=rf"'b' would stand beside 'a' on GPU {shared} of this machine; name other"),
        alone(found, "run", 0, print),
    ):
        pass


SMI = """#!/bin/sh
case "$1" in
--query-gpu=*) echo "0, GPU-a, NVIDIA H200, 143771, 1, 570.86.15" ;;
--query-compute-apps=*) ;;
*) echo '| NVIDIA-SMI 570.86.15   CUDA Version: 12.8 |' ;;
esac
"""


def test_a_plan_says_it_too(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = place.folder / "nvidia-smi"
    smi.write_text(SMI)
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place.folder}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    two = SCENARIO.replace("model: m}}", "model: m}, b: {engine: ./paced.yaml, model: m}}")
    place.scenario(text=f"{two}comparison: {{scope: instance}}\n")
    done = loadgen(place.folder, "plan", "s.yaml")
    assert done.code == 0
    assert "`loadgen run` would refuse this here: targets.b.devices: 'b' would stand beside 'a' on GPU 0" in done.err


# Runs -----------------------------------------------------------------------------------------------------------------


def test_a_run_whose_place_is_held_begins_nothing_and_says_by_whom(place: Place) -> None:
    with held(machine_locks(["cores"]), "run 20260101T000000Z-other-abcdef", 0, print):
        done = subprocess.run(
            command("run", str(place.scenario()), "--quiet"),
            env=environment(place.store),
            capture_output=True,
            text=True,
        )
    assert done.returncode == 75
    assert done.stderr.startswith(
        f"loadgen: the lock of this machine's cores is held by run 20260101T000000Z-other-abcdef (pid {os.getpid()} on "
    )
    assert done.stderr.endswith("; wait for it with --wait 2h, or try later.\n")
    assert place.runs() == []


def test_a_run_says_its_name_to_who_is_kept_waiting_and_kill_9_gives_its_place_back(place: Place, locks: Path) -> None:
    scenario = place.scenario()
    words = ("run", str(scenario), "--quiet", "--set", "load.window_s=60")
    one = subprocess.Popen(command(*words), env=environment(place.store), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(place.store.rglob("requests-*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.02)
    (run,) = place.runs()
    with pytest.raises(
        BusyError, match=rf"^the lock of this machine's cores is held by run {run.name} \(pid {one.pid} "
    ):
        take()
    os.kill(one.pid, signal.SIGKILL)
    one.wait()
    take(wait_s=120)  # its workers outlive it by moments
    for left in leftovers(place.store):
        assert kill_leftover(left).ok


def take(wait_s: float = 0) -> None:
    with held(machine_locks(["cores"]), "this test", wait_s, lambda _: None):
        pass


def test_a_run_that_waits_says_for_whom_and_goes_on(place: Place) -> None:
    with held(machine_locks(["cores"]), "nightly other", 0, print):
        waiting = subprocess.Popen(
            command("run", str(place.scenario()), "--wait", "10min"), env=environment(place.store),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert waiting.stderr is not None
        said = next(line for line in waiting.stderr if line.startswith("waiting for "))
    assert said.startswith("waiting for the lock of this machine's cores, which is held by nightly other (pid ")
    waiting.communicate(timeout=120)
    assert waiting.returncode in (0, 5)
    assert len(place.runs()) == 1


def test_a_run_that_cannot_be_gone_on_with_waits_for_nobody(place: Place) -> None:
    scenario = str(place.scenario())
    loadgen(place.folder, "run", scenario)
    with held(machine_locks(["cores"]), "another", 0, print):
        done = loadgen(place.folder, "run", scenario, "--resume", "last", "--set", "load.concurrency=2")
    assert done.code == 2, done.err
    assert "began with another scenario (load.concurrency was 4 and is 2)" in done.err


def test_a_load_on_an_endpoint_waits_for_nobody(place: Place) -> None:
    with held(machine_locks(["cores"]), "another", 0, print):
        done = subprocess.run(
            command("run", str(place.scenario()), "--quiet", "--endpoint", "http://127.0.0.1:1", "--model", "m"),
            env=environment(place.store), capture_output=True, text=True,
        )  # fmt: skip
    assert done.returncode == 6, done.stderr  # nobody serves there, which is all that is wrong


@pytest.mark.parametrize("words", [("calibrate", "s.yaml"), ("launch", "--target", "s.yaml:a")])
def test_what_else_starts_servers_begins_nothing_beside_a_run(place: Place, words: tuple[str, ...]) -> None:
    place.scenario()
    with held(machine_locks(["cores"]), "run x", 0, print):
        done = subprocess.run(
            command(*words), env=environment(place.store), cwd=place.folder, capture_output=True, text=True
        )
    assert done.returncode == 75, done.stderr
    assert "is held by run x (pid " in done.stderr
    assert not list(place.store.rglob("server.json"))
