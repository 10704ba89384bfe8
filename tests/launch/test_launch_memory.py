"""The proof that GPU memory is back, against a driver that plays a script: no GPU is needed to be wrong about one."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_engine import Make, kept

from loadgen.launch import memory, memory_proof, start_ready

GB = 10**9


class Driver:
    """Stands for the module ``pynvml``: ``used`` is read from left to right, the last reading stays."""

    def __init__(self, used: dict[int, list[int]], pids: dict[int, list[int]] | None = None) -> None:
        self.used, self.pids = used, pids or {}
        self.open = 0
        module = types.ModuleType("pynvml")
        module.__dict__.update(
            NVMLError=type("NVMLError", (Exception,), {}),
            nvmlInit=self._init,
            nvmlShutdown=self._shutdown,
            nvmlDeviceGetCount=lambda: len(self.used),
            nvmlDeviceGetHandleByIndex=lambda index: index,
            nvmlDeviceGetHandleByUUID=lambda uuid: int(uuid.removeprefix("GPU-")),
            nvmlDeviceGetIndex=lambda handle: handle,
            nvmlDeviceGetMemoryInfo=self._memory,
            nvmlDeviceGetComputeRunningProcesses=lambda handle: [
                types.SimpleNamespace(pid=pid) for pid in self.pids.get(handle, [])
            ],
        )
        self.module = module

    def _init(self) -> None:
        self.open += 1

    def _shutdown(self) -> None:
        self.open -= 1

    def _memory(self, handle: int) -> Any:
        readings = self.used[handle]
        return types.SimpleNamespace(used=readings.pop(0) if len(readings) > 1 else readings[0])


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Driver]:
    """Puts a driver in the place of the real one: ``drive({0: [bytes, ...]})``."""

    def put(used: dict[int, list[int]], pids: dict[int, list[int]] | None = None) -> Driver:
        driver = Driver(used, pids)
        monkeypatch.setitem(sys.modules, "pynvml", driver.module)
        return driver

    return put


def test_memory_is_read_by_index_by_uuid_and_of_all_gpus(drive: Callable[..., Driver]) -> None:
    driver = drive({0: [1], 1: [2], 2: [3]})
    assert memory.used() == {0: 1, 1: 2, 2: 3}
    assert memory.used((2, "GPU-1")) == {2: 3, 1: 2}
    assert driver.open == 0  # every opening was closed


def test_memory_that_comes_back_late_is_back_and_the_rest_of_a_driver_does_not_count(
    drive: Callable[..., Driver],
) -> None:
    drive({0: [70 * GB, 30 * GB, 2 * GB + 400 * 10**6]})
    proof = memory_proof({0: 2 * GB}, timeout_s=5)
    assert proof is not None
    assert proof.ok
    assert 0.4 < proof.took_s < 5


def test_memory_that_stays_is_named_with_the_pids_that_hold_it(drive: Callable[..., Driver]) -> None:
    drive({0: [GB], 1: [4 * GB]}, {0: [1], 1: [4712, 4711]})
    proof = memory_proof({0: GB, 1: GB}, timeout_s=0.1)
    assert proof is not None
    assert not proof.ok
    assert proof.held == {1: 3 * GB}
    assert proof.pids == (4711, 4712)


def test_without_a_reading_from_before_nothing_is_claimed(drive: Callable[..., Driver]) -> None:
    drive({0: [GB]})
    assert memory_proof(None) is None
    assert memory_proof({}) is None


@pytest.mark.parametrize("absent", ["package", "driver"])
def test_without_a_driver_nothing_is_claimed(
    drive: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    driver = drive({0: [GB]})

    def refuse() -> None:
        raise driver.module.NVMLError

    if absent == "package":
        monkeypatch.setitem(sys.modules, "pynvml", None)
    else:
        driver.module.__dict__["nvmlInit"] = refuse
    assert memory.used() is None
    assert memory_proof({0: 1}) is None


def test_the_stop_of_a_server_waits_for_its_memory_and_writes_down_who_keeps_it(
    drive: Callable[..., Driver], make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive({0: [GB, 9 * GB]}, {0: [4711]})  # before the start, then ever after
    monkeypatch.setattr("loadgen.launch.proof.memory_proof", lambda before: memory_proof(before, timeout_s=0.1))
    proof = start_ready(make(), folder).stop()
    (problem,) = proof.problems()
    assert problem.startswith("memory is still held after 0 s: GPU 0 8.0 GB by processes 4711.")
    assert kept(folder)["state"] == "left"
    assert kept(folder)["proof"]["memory"]["pids"] == [4711]


@pytest.mark.parametrize(("after", "held"), [(GB, {}), (4 * GB, {0: 3 * GB})])
def test_of_two_servers_on_one_gpu_the_last_to_stop_proves_the_memory_of_both(
    drive: Callable[..., Driver], make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch, after: int, held: Any
) -> None:
    monkeypatch.setattr("loadgen.launch.proof.memory_proof", lambda before: memory_proof(before, timeout_s=0.1))
    drive({0: [GB, 5 * GB, after], 1: [GB, GB, GB]})  # before the first, before the second, after both
    first = start_ready(make(), folder)
    second = start_ready(make(), folder.with_name("t-2"))
    first.leave_memory_to(second)
    assert first.stop().ok
    proof = second.stop()
    assert proof.memory is not None
    assert proof.memory.held == held
