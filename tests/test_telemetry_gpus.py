"""GPUs by NVML and by a DCGM exporter: what is read, whose the processes are, what it comes to over a window."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from fake_nvml import FakeNvml, Gpu

from loadgen.errors import UsageError
from loadgen.launch.processes import this_process
from loadgen.scenario import expand, load
from loadgen.telemetry import dcgm
from loadgen.telemetry.measured import Telemetry, interpolated, machine_doubts, measured, throttled
from loadgen.telemetry.nvml import Owners, idle_watts, watched
from loadgen.telemetry.reading import GpuReading, Reading, Usage
from loadgen.telemetry.required import Required, check_required
from loadgen.telemetry.required import required as requirements
from loadgen.telemetry.sampler import Machine, Sampler, words_of

S = 10**9
GB = 10**9
HOT = 0x40

PAGE = """# HELP DCGM_FI_DEV_SM_CLOCK SM clock frequency (in MHz).
# TYPE DCGM_FI_DEV_SM_CLOCK gauge
DCGM_FI_DEV_SM_CLOCK{gpu="0",UUID="GPU-a",device="nvidia0",modelName="NVIDIA H200",Hostname="h",note="{} \\"x\\""} 1980
DCGM_FI_DEV_SM_CLOCK{gpu="1",UUID="GPU-b",device="nvidia1",modelName="NVIDIA H200",Hostname="h"} 345
DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-a",device="nvidia0",modelName="NVIDIA H200",Hostname="h"} 97
DCGM_FI_DEV_FB_USED{gpu="0",UUID="GPU-a",device="nvidia0",modelName="NVIDIA H200",Hostname="h"} 1024
DCGM_FI_DEV_POWER_USAGE{gpu="0",UUID="GPU-a",device="nvidia0",modelName="NVIDIA H200",Hostname="h"} 512.5
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{gpu="0",UUID="GPU-a",device="nvidia0",modelName="NVIDIA H200"} 3500000
DCGM_FI_DEV_CLOCK_THROTTLE_REASONS{gpu="0",UUID="GPU-a",device="nvidia0",modelName="NVIDIA H200"} 64
DCGM_FI_DEV_GPU_TEMP{gpu="0",UUID="GPU-a",device="nvidia0",modelName="NVIDIA H200"} 9.223372036854775794e+18
DCGM_FI_DEV_FB_USED{gpu="0",UUID="GPU-a",GPU_I_ID="3",modelName="NVIDIA H200"} 7
"""


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeNvml]:
    """Puts GPUs into this machine."""

    def into(*gpus: Gpu) -> FakeNvml:
        module = FakeNvml(*gpus)
        monkeypatch.setitem(sys.modules, "pynvml", module)
        return module

    return into


def look(devices: tuple[int | str, ...] = (), owners: Owners | None = None) -> tuple[GpuReading, ...]:
    with watched(devices) as read:
        return read(owners or Owners())


def reading(at_s: float, *gpus: GpuReading, **fields: Any) -> Reading:
    return Reading(at_ns=int(at_s * S), gpus=gpus, **fields)


def gpu(joules: float | None = None, uuid: str = "GPU-a", **fields: Any) -> GpuReading:
    return GpuReading(uuid=uuid, index=0, joules=joules, **fields)


def over(readings: list[Reading], start: float = 0, end: float = 40, named: bool = True) -> Telemetry:
    return measured(readings, (int(start * S), int(end * S)), "nvml", named)


# One look -------------------------------------------------------------------------------------------------------------


def test_a_look_has_the_units_of_its_names(put: Callable[..., FakeNvml]) -> None:
    nvml = put(Gpu(millijoules=5_000, name=b"NVIDIA H200", reasons=HOT))
    assert look() == (
        GpuReading(
            uuid="GPU-a", index=0, name="NVIDIA H200", memory_bytes=20.0 * GB, total_bytes=150.0 * GB, utilisation=0.9,
            sm_mhz=1980, memory_mhz=3201, celsius=55, watts=400, joules=5, held_down=HOT,
        ),
    )  # fmt: skip
    assert nvml.open == 0, "what was opened is closed"


def test_what_a_gpu_does_not_tell_is_none_and_the_rest_is_there(put: Callable[..., FakeNvml]) -> None:
    silent = Gpu(used=None, busy=None, sm=None, celsius=None, milliwatts=None, millijoules=None, reasons=None)
    put(silent)
    (one,) = look()
    assert (one.memory_bytes, one.total_bytes, one.utilisation, one.watts, one.joules, one.held_down) == (None,) * 6
    assert one.memory_mhz == 3201


def test_gpus_are_taken_by_index_and_by_uuid(put: Callable[..., FakeNvml]) -> None:
    put(Gpu("GPU-a"), Gpu("GPU-b"), Gpu("GPU-c"))
    assert [(one.index, one.uuid) for one in look((1, "GPU-c"))] == [(1, "GPU-b"), (2, "GPU-c")]
    assert look((7,)) == ()


def test_without_nvml_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert look() == ()
    assert idle_watts() == {}


def test_processes_on_a_gpu_are_the_servers_another_servers_or_foreign(put: Callable[..., FakeNvml]) -> None:
    put(Gpu("GPU-a", processes={10: 3 * GB, 11: 4 * GB, 12: GB, 13: GB}), Gpu("GPU-b", processes={13: GB}))
    first, second = look(owners=Owners(server={10, 11}, ours={10, 11, 12}))
    assert (first.server_bytes, first.foreign) == (7 * GB, (13,))
    assert (second.server_bytes, second.foreign) == (None, (13,))


def test_numbers_of_another_namespace_accuse_nobody(put: Callable[..., FakeNvml]) -> None:
    put(Gpu(processes={2**22 + 5: GB}))  # above every pid that the kernel gives
    (one,) = look(owners=Owners(server={os.getpid()}, ours={os.getpid()}))
    assert (one.server_bytes, one.foreign) == (None, ())
    (one,) = look(owners=Owners())
    assert one.foreign is None, "of a container nobody knows the numbers"


def test_memory_of_processes_that_the_driver_hides_is_none(put: Callable[..., FakeNvml]) -> None:
    module = put(Gpu(processes={10: None}))
    assert look(owners=Owners(server={10}, ours={10}))[0].server_bytes is None
    module.gpus[0].processes = None
    assert look(owners=Owners(server={10}, ours={10}))[0].foreign is None


def test_the_power_of_idle_gpus_is_that_of_gpus_on_which_nothing_runs(put: Callable[..., FakeNvml]) -> None:
    put(
        Gpu("GPU-a", busy=0, milliwatts=75_000),
        Gpu("GPU-b", busy=0, processes={os.getpid(): GB}),
        Gpu("GPU-c", busy=40),
        Gpu("GPU-d", busy=0, milliwatts=None),
    )
    assert idle_watts() == {"GPU-a": 75.0}


# A page of DCGM -------------------------------------------------------------------------------------------------------


def test_a_page_of_dcgm_gives_the_same_in_our_units() -> None:
    a, b = dcgm.read(PAGE)
    assert a == GpuReading(
        uuid="GPU-a", index=0, name="NVIDIA H200", memory_bytes=2.0**30, utilisation=0.97, sm_mhz=1980, watts=512.5,
        joules=3500, held_down=HOT,
    )  # fmt: skip
    assert (b.uuid, b.index, b.sm_mhz, b.watts) == ("GPU-b", 1, 345, None)


def test_the_gpus_of_a_page_are_taken_by_index_and_by_uuid() -> None:
    assert [one.uuid for one in dcgm.read(PAGE, [1])] == ["GPU-b"]
    assert [one.uuid for one in dcgm.read(PAGE, ["GPU-a"])] == ["GPU-a"]
    assert dcgm.read("<html>not found</html>") == ()


# A window -------------------------------------------------------------------------------------------------------------


def test_energy_is_the_difference_of_the_counters_at_the_edges_of_the_window() -> None:
    readings = [reading(t + 0.5, gpu(joules=1000 + 300.0 * (t + 0.5)), gpu(50.0 * t, "GPU-b")) for t in range(-2, 45)]
    found = over(readings, 0, 40)
    assert [one.energy_j for one in found.gpus] == [pytest.approx(300 * 40), pytest.approx(50 * 40)]
    assert found.energy_j == pytest.approx(350 * 40)


@pytest.mark.parametrize(
    ("readings", "end", "why"),
    [
        ([reading(t, gpu(300.0 * t)) for t in range(-2, 35)], 29.9, "the window is too short"),
        ([reading(t, gpu(300.0 * t)) for t in range(3, 45)], 40, "nobody looked before it began"),
        ([reading(t, gpu(300.0 * (t // 30))) for t in range(-2, 75)], 40, "the counter moves every 30 s"),
        ([reading(t, gpu(None)) for t in range(-2, 45)], 40, "there is no counter"),
        ([reading(t, gpu(300.0 * (t if t < 20 else 0))) for t in range(-2, 45)], 40, "the driver was loaded anew"),
    ],
)
def test_energy_that_is_not_known_is_none(readings: list[Reading], end: float, why: str) -> None:
    assert over(readings, 0, end).energy_j is None, why


def test_a_counter_between_two_looks_is_on_the_line_between_them() -> None:
    points = [(0, 10.0), (2 * S, 30.0), (3 * S, 30.0), (4 * S, 50.0)]
    assert interpolated(points, S) == 20.0
    assert interpolated(points, 3 * S) == 40.0, "a look at an old value says nothing"
    assert interpolated(points, 5 * S) is None


def test_peaks_are_of_the_whole_repeat_and_the_rest_of_the_window() -> None:
    held = [5.0, 9.0, 7.0, 6.0, 7.0, 50.0]
    readings = [reading(t, gpu(memory_bytes=one, watts=one)) for t, one in enumerate(held)]
    found = over(readings, 1.5, 4.5)
    (one,) = found.gpus
    assert (one.memory_peak_bytes, one.memory_steady_bytes, one.watts, found.looks) == (9, 7, 20 / 3, 3)
    assert (found.gpu_peak_bytes, found.gpu_steady_bytes, found.gpu_memory) == (9, 7, "gpu")


def test_memory_of_the_servers_processes_is_summed_over_gpus_at_one_moment() -> None:
    sizes = [(4.0, 1.0), (5.0, 2.0), (1.0, 5.0)]
    readings = [
        reading(t, gpu(server_bytes=a, memory_bytes=90), gpu(uuid="GPU-b", server_bytes=b), gpu(uuid="GPU-c"))
        for t, (a, b) in enumerate(sizes)
    ]
    found = over(readings, named=False)
    assert [one.ours for one in found.gpus] == [True, True, False]
    assert (found.gpu_peak_bytes, found.gpu_memory) == (7, "process"), "and not 5 + 5"


def test_gpus_that_may_be_anybodys_are_not_taken_for_the_targets() -> None:
    two = [reading(t, gpu(memory_bytes=9e9, watts=9), gpu(uuid="GPU-b", memory_bytes=0.0)) for t in range(3)]
    assert over(two, named=False).watts is None
    assert [one.ours for one in over(two, named=False).gpus] == [False, False]
    one = [reading(t, gpu(memory_bytes=9e9, watts=9)) for t in range(3)]
    assert over(one, named=False).watts == 9, "the only one, and something is on it"
    idle = [reading(t, gpu(memory_bytes=4e8, watts=9)) for t in range(3)]
    assert over(idle, named=False).watts is None, "nothing is on it: a server on the CPU"


def test_nothing_seen_is_nothing_known() -> None:
    found = over([])
    assert found == Telemetry()
    assert list(machine_doubts(found)) == []


def test_cores_are_cpu_seconds_by_time() -> None:
    readings = [reading(t, server=Usage(2.5 * t, 100.0 + t), client=Usage(0.1 * t, 7.0)) for t in range(50)]
    found = over(readings, 10, 20)
    assert (found.server_cores, found.server_rss_peak_bytes) == (pytest.approx(2.5), 120)
    assert (found.client_cores, found.client_rss_peak_bytes) == (pytest.approx(0.1), 7)


# Doubts ---------------------------------------------------------------------------------------------------------------


def test_clocks_that_were_held_down_are_a_doubt_that_names_the_reason() -> None:
    masks = [0, 0x4, HOT, HOT | 0x8]
    found = over([reading(t, gpu(held_down=mask)) for t, mask in enumerate(masks)])
    (doubt,) = machine_doubts(found)
    assert doubt.code == "throttled"
    assert (
        "GPU 0 were held down: it is too hot (by its hardware) (in 50 % of looks), the hardware slows it" in doubt.text
    )
    assert found.gpus[0].power_cap == 0.25
    assert throttled([found]) == "it is too hot (by its hardware), the hardware slows it down"


def test_the_power_limit_alone_is_no_doubt_and_no_slowing_down() -> None:
    found = over([reading(t, gpu(held_down=0x4)) for t in range(5)])
    assert list(machine_doubts(found)) == []
    assert throttled([found]) == "no"
    assert throttled([over([reading(t, gpu()) for t in range(5)])]) is None, "nobody says"


def test_a_foreign_process_and_clocks_that_moved_are_doubts() -> None:
    clocks = [1980.0] * 6 + [1400.0] * 6 + [345.0] * 6
    busy = [0.9] * 12 + [0.0] * 6
    readings = [
        reading(t, gpu(sm_mhz=mhz, utilisation=use, foreign=(77,) if t == 3 else ()))
        for t, (mhz, use) in enumerate(zip(clocks, busy, strict=True))
    ]
    foreign, moved = machine_doubts(over(readings))
    assert (foreign.code, moved.code) == ("foreign_process", "clocks_moved")
    assert "pid 77" in foreign.text
    assert "between 1400 and 1980 MHz" in moved.text, "the clock of an idle GPU does not count"
    steady = [reading(t, gpu(sm_mhz=1980.0 - t, utilisation=0.9, foreign=())) for t in range(12)]
    assert list(machine_doubts(over(steady))) == []


def test_what_happens_on_gpus_of_others_is_no_doubt() -> None:
    readings = [reading(t, gpu(server_bytes=5.0), gpu(uuid="GPU-b", held_down=HOT, foreign=(9,))) for t in range(5)]
    assert list(machine_doubts(over(readings, named=False))) == []


# The sampler ----------------------------------------------------------------------------------------------------------


def test_the_sampler_follows_the_gpus_of_a_server_from_start_to_end(put: Callable[..., FakeNvml]) -> None:
    own = this_process()
    nvml = put(Gpu(processes={own.pid: 7 * GB, 2**22 + 1: GB}))
    start = time.monotonic_ns()
    with Sampler([], {}, machine=Machine(gpus=(), processes=(own,))) as sampler:
        pass
    found = sampler.telemetry(start, time.monotonic_ns())
    assert (found.source, found.gpu_peak_bytes, found.gpu_memory) == ("nvml", 7 * GB, "process")
    assert found.gpus[0].foreign == (2**22 + 1,)
    assert found.energy_j is None
    assert sampler.now["gpu_watts"] == 400
    assert nvml.open == 0


def test_the_words_of_a_moment_are_over_the_targets_gpus() -> None:
    one = reading(
        0, gpu(watts=300, sm_mhz=1500, utilisation=0.5), gpu(uuid="GPU-b", watts=100, sm_mhz=1400), host_bytes=5
    )
    assert words_of(one, named=True) == {"gpu_watts": 400, "gpu_mhz": 1400, "host_bytes": 5}
    assert words_of(one, named=False) == {"host_bytes": 5}


@contextmanager
def serving(page: str) -> Any:
    """A page at every path of a local server."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_the_sampler_reads_the_gpus_of_another_machine_from_its_exporter() -> None:
    start = time.monotonic_ns()
    with serving(PAGE) as url, Sampler([], {}, machine=Machine(dcgm=f"{url}/metrics")) as sampler:
        pass
    found = sampler.telemetry(start, time.monotonic_ns())
    assert found.source == "dcgm"
    assert [(one.uuid, one.ours, one.watts) for one in found.gpus] == [("GPU-a", True, 512.5), ("GPU-b", True, None)]
    assert [doubt.code for doubt in machine_doubts(found)] == ["throttled"]


# What is required -----------------------------------------------------------------------------------------------------


def required(tmp_path: Path, words: str, target: str, window: int = 60) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        f"schema: loadgen/v1\ntargets: {{a: {{{target}, model: m}}}}\n"
        "workload: {prompts: natural, output: {exact: 4}}\n"
        f"load: {{concurrency: 1, window_s: {window}}}\nrepeats: 1\ntelemetry: {{{words}}}\n"
    )
    check_required(expand(load(path).scenario), tmp_path)


def test_energy_that_a_gpu_can_tell_is_enough(tmp_path: Path, put: Callable[..., FakeNvml]) -> None:
    put(Gpu())
    required(tmp_path, "require: [energy, gpus, engine]", "engine: hf")
    with serving(PAGE) as url:
        required(tmp_path, f"require: [gpus], dcgm: '{url}'", "endpoint: 'http://127.0.0.1:9'")


@pytest.mark.parametrize(
    ("words", "target", "window", "sentence"),
    [
        ("require: [energy]", "engine: hf", 60, "energy of target a will not be known: GPU-a has no energy counter"),
        ("require: [energy]", "engine: hf", 20, "energy needs windows of 30 s, and load.window_s is 20"),
        ("require: [gpus]", "engine: hf, devices: [3]", 60, "will not be known: NVML: Invalid Argument"),
        ("require: [gpus]", "endpoint: 'http://127.0.0.1:9'", 60, "telemetry.dcgm names no exporter beside it"),
        ("require: [engine]", "engine: ollama", 60, "launchers/ollama.yaml names no page of metrics"),
        ("require: [engine]", "endpoint: 'http://127.0.0.1:9'", 60, "only where its `engine` is named"),
        ("require: [engine]", "engine: vllm, endpoint: 'http://127.0.0.1:9'", 60, "http://127.0.0.1:9/metrics cannot"),
    ],
)
def test_what_is_required_and_will_not_be_known_is_refused(
    tmp_path: Path, put: Callable[..., FakeNvml], words: str, target: str, window: int, sentence: str
) -> None:
    put(Gpu(millijoules=None))
    with pytest.raises(UsageError) as refused:
        required(tmp_path, words, target, window)
    assert sentence in str(refused.value)


def test_what_is_required_is_told_before_a_run_and_no_page_is_asked_for(
    tmp_path: Path, put: Callable[..., FakeNvml]
) -> None:
    put(Gpu(millijoules=None))
    path = tmp_path / "s.yaml"
    path.write_text(
        "schema: loadgen/v1\ntargets:\n  a: {engine: vllm, model: m}\n"
        "  b: {engine: vllm, endpoint: 'http://127.0.0.1:9', model: m}\n"
        "workload: {prompts: natural, output: {exact: 8}}\nload: {concurrency: 1, window_s: 60}\n"
        "telemetry: {require: [energy, engine], dcgm: {b: 'http://127.0.0.1:9/dcgm'}}\n"
    )
    cells = expand(load(path).scenario)
    assert requirements(cells, tmp_path) == [
        Required("energy", "a", "the GPUs of this machine say it", "GPU-a has no energy counter"),
        Required("engine", "a", "its server says it at /metrics"),
        Required("energy", "b", "http://127.0.0.1:9/dcgm is asked when a run begins"),
        Required("engine", "b", "http://127.0.0.1:9/metrics is asked when a run begins"),
    ]
    with pytest.raises(UsageError, match="energy of target a will not be known"):
        check_required(cells, tmp_path, ask=False)
    put(Gpu())
    assert [one.missing for one in requirements(cells, tmp_path)] == [None] * 4
    check_required(cells, tmp_path, ask=False)


def test_an_exporter_without_energy_does_not_do_where_energy_is_required(tmp_path: Path) -> None:
    words = "require: [energy], dcgm: {{a: '{}/metrics'}}"
    with serving(PAGE) as url, pytest.raises(UsageError, match="GPU-b has no energy counter"):
        required(tmp_path, words.format(url), "endpoint: 'http://127.0.0.1:9'")


def test_an_exporter_of_a_target_that_does_not_exist_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"telemetry\.dcgm\.aa: there is no target 'aa'; did you mean 'a'\?"):
        required(tmp_path, "dcgm: {aa: 'http://h:9400'}", "endpoint: 'http://127.0.0.1:9'")
