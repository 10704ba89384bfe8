"""What is looked at before a night: problems are found, and what is in order is not said."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
from cli_runner import write_scenario
from ports import quiet_port

from loadgen import alone
from loadgen.doctor import throttle
from loadgen.doctor.gpus import Gpu, GpuProcess
from loadgen.nightly import preflight
from loadgen.scenario import Loaded, expand, load


def gpu(index: int, processes: tuple[GpuProcess, ...] = (), used: int = 10**8) -> Gpu:
    return Gpu(
        index=index, uuid=f"GPU-{index}", name="H200", memory_total=140 * 10**9, memory_used=used, driver="570",
        cuda="12.8", processes=processes,
    )  # fmt: skip


def loaded(folder: Path, targets: str, more: str = "") -> Loaded:
    text = f"targets: {{{targets}}}\nworkload: {{prompts: natural, output: {{exact: 4}}}}\n"
    return load(write_scenario(folder, text + "load: {concurrency: 1, warmup_s: 0, window_s: 1}\n" + more))


def test_a_gpu_that_somebody_uses_is_a_problem_and_a_free_one_is_not_said() -> None:
    busy = gpu(1, (GpuProcess(pid=77, user="x", name="train.py", memory=None),))
    (found,) = preflight.gpu_findings([gpu(0), busy])
    assert found.state == "problem"
    assert found.text == "H200 (GPU-1) is not free: pid 77 (train.py)"
    (found,) = preflight.gpu_findings([gpu(0), gpu(2, used=30 * 10**9)])
    assert found.text == "H200 (GPU-2) has 30.0 GB in use by nobody that can be seen from here"


def test_heat_and_power_brakes_are_harm_and_idling_is_not() -> None:
    table = "GPU-a, 0x0000000000000001\nGPU-b, 0x0000000000000048\nGPU-c, [N/A]\n"
    masks = throttle.smi_masks(table)
    assert masks == {"GPU-a": 1, "GPU-b": 0x48}
    assert throttle.reasons_of(masks["GPU-a"]) == ()
    assert throttle.reasons_of(masks["GPU-b"]) == ("the hardware slows it down", "it is too hot (by its hardware)")
    assert throttle.reasons_of(0x4 | 0x2 | 0x100) == ()


def test_a_gpu_whose_clocks_are_held_down_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "throttled", lambda: {"GPU-0": (), "GPU-1": ("it is too hot (by its driver)",)})
    (found,) = preflight.throttle_findings([gpu(0), gpu(1), gpu(2)])
    assert found.text == "H200 (GPU-1) runs with clocks held down: it is too hot (by its driver)"


def test_an_endpoint_that_nobody_serves_is_a_problem(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        up, down = listener.getsockname()[1], quiet_port()
        targets = f"a: {{endpoint: 'http://127.0.0.1:{up}', model: m}}, b: {{endpoint: 'http://127.0.0.1:{down}', "
        cells = expand(loaded(tmp_path, targets + "model: m}").scenario)
        (found,) = preflight.endpoint_findings(cells)
    assert found.text == f"target b: http://127.0.0.1:{down} cannot be reached: Connection refused"


def test_a_unix_socket_that_nobody_serves_is_a_problem(tmp_path: Path) -> None:
    cells = expand(loaded(tmp_path, f"a: {{endpoint: 'unix://{tmp_path}/none.sock', model: m}}").scenario)
    (found,) = preflight.endpoint_findings(cells)
    assert "No such file" in found.text


SMI = """#!/bin/sh
case $1 in
--query-gpu=uuid,*) printf 'GPU-a, 0x0000000000000001\\nGPU-b, 0x0000000000000040\\n' ;;
--query-gpu=*) for i in 0,GPU-a 1,GPU-b; do echo "$i, NVIDIA H200, 143771, 1, 570.86.15"; done ;;
--query-compute-apps=*) echo "GPU-a, 4194305, 9000" ;;
*) echo '| NVIDIA-SMI 570.86.15   CUDA Version: 12.8 |' ;;
esac
"""


def test_a_machines_gpus_are_looked_at_through_nvidia_smi_and_only_those_that_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    (tmp_path / "nvidia-smi").write_text(SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    here = alone.gpus_here()
    assert [one.uuid for one in here] == ["GPU-a", "GPU-b"]
    for devices, wanted in (
        ("[0]", ["GPU 0: NVIDIA H200 (GPU-a) is not free: pid 4194305 (not to be seen from here)"]),
        ("[GPU-b]", ["GPU 1: NVIDIA H200 (GPU-b) runs with clocks held down: it is too hot (by its hardware)"]),
    ):
        one = loaded(tmp_path, f"a: {{engine: hf, model: {{config: c.json}}, devices: {devices}}}")
        cells = expand(one.scenario)
        found = preflight.examine(one, cells, tmp_path)
        assert [f"{f.name}: {f.text}" for f in found if f.name.startswith("GPU")] == wanted
        assert alone.places_of(cells, here) == [wanted[0].partition("(")[2].partition(")")[0]]


def test_a_model_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    one = loaded(tmp_path, "a: {engine: hf, model: ./none}")
    found = preflight.examine(one, expand(one.scenario), tmp_path)
    assert any(f.state == "problem" and f.name == "target" and "./none" in f.text for f in found), found
    assert all(f.state != "ok" for f in found)
