"""The examination of a machine: what is judged a warning or a problem, and that nothing that hangs holds it."""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from cli_runner import loadgen

from loadgen import doctor
from loadgen.doctor import Finding, clocks, disks, gpus, limits
from loadgen.doctor.finding import size
from loadgen.reports.doctor import render

GPUS = (
    "0, GPU-a, NVIDIA H200, 143771, 1, 570.86.15\n"
    "1, GPU-b, NVIDIA H200, 143771, 40960, 570.86.15\n"
    "2, GPU-c, NVIDIA H200, 143771, 9000, 570.86.15\n"
)


def test_a_gpu_is_free_used_by_a_process_or_held_by_nobody_to_be_seen() -> None:
    free, used, held = map(gpus.judged, gpus.smi_gpus(GPUS, f"GPU-b, {os.getpid()}, 40950\n", "12.8"))
    assert (free.name, free.state) == ("GPU 0", "ok")
    assert free.text == "NVIDIA H200, 1 MB of 150.8 GB in use, driver 570.86.15, CUDA 12.8"
    assert used.state == "warning"
    assert f"on it pid {os.getpid()} (" in used.text
    assert "42.9 GB)" in used.text
    assert used.facts["processes"][0]["pid"] == os.getpid()
    assert held.state == "warning"
    assert "by nobody that can be seen from here" in held.text


def test_a_process_of_another_container_is_named_by_its_pid_alone() -> None:
    (gpu,) = gpus.smi_gpus(GPUS.splitlines()[0], "GPU-a, 4194304, [N/A]\nGPU-x, 1, 5\n", None)
    assert gpu.processes == (gpus.GpuProcess(pid=4194304, user=None, name=None, memory=None),)
    assert "pid 4194304 (not to be seen from here)" in gpus.judged(gpu).text


def test_lines_of_nvidia_smi_that_are_no_gpus_are_passed_over() -> None:
    assert gpus.smi_gpus("No devices were found\n", "", None) == []


@pytest.mark.parametrize(
    ("soft", "hard", "state", "words"),
    [
        (1024, 1048576, "ok", "1048512 streams for each worker, which takes the hard limit; a server"),
        (65536, resource.RLIM_INFINITY, "ok", "hard unlimited"),
        (1024, 1024, "warning", "960 streams"),
    ],
)
def test_few_open_files_are_a_warning(soft: int, hard: int, state: str, words: str) -> None:
    finding = limits.files(soft, hard)
    assert finding.state == state
    assert words in finding.text
    assert bool(finding.advice) == (state == "warning")


def test_few_ports_are_a_warning() -> None:
    assert limits.port_range(32768, 60999).state == "ok"
    narrow = limits.port_range(50000, 52999)
    assert narrow.state == "warning"
    assert "3000 connections to one address at once, half of them quickly" in narrow.text
    assert "and 50 new ones a second" in narrow.text


@pytest.mark.parametrize(
    ("governors", "load", "state"),
    [(set(), 0.1, "ok"), ({"performance"}, 0.1, "ok"), ({"powersave"}, 0.1, "warning"), (set(), 3.0, "warning")],
)
def test_clocks_that_move_and_a_busy_machine_are_warnings(governors: set[str], load: float, state: str) -> None:
    assert limits.cores(4, None, governors, load).state == state


def test_the_control_groups_share_of_the_cores_is_said() -> None:
    assert limits.quota("200000 100000") == 2.0
    assert limits.quota("max 100000") is None
    assert limits.quota("") is None
    assert "4 cores, of which this control group gets 1.5" in limits.cores(4, 1.5, set(), 0.0).text
    assert "control group" not in limits.cores(4, 8.0, set(), 0.0).text


def test_a_client_in_python_is_told_how_to_be_one_in_c() -> None:
    assert limits.client(True).text.endswith("in C")
    assert "python3-dev" in limits.client(False).text
    assert {limits.client(True).state, limits.client(False).state} == {"ok"}


def test_a_clock_that_is_slow_to_read_is_a_warning() -> None:
    assert clocks.source("tsc").state == "ok"
    assert clocks.source("hpet").state == "warning"


@pytest.mark.parametrize(("delay_ms", "state"), [(0.02, "ok"), (None, "warning"), (20.1, "warning")])
def test_stamps_that_are_missing_or_made_at_the_read_are_a_warning(delay_ms: float | None, state: str) -> None:
    assert clocks.stamps(delay_ms).state == state


def test_the_kernel_stamps_here_or_says_that_it_does_not() -> None:
    finding = next(one for one in clocks.examine() if one.name == "receive stamps")
    delay = finding.facts["delay_ms"]
    assert delay is None or 0 <= delay < clocks.WAIT_S * 1000


def test_a_folder_is_counted_until_its_time_is_over(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs/model").write_bytes(b"x" * 100_000)
    (tmp_path / "snapshot").symlink_to(tmp_path / "blobs/model")
    total, whole = disks.folder_bytes(tmp_path, float("inf"))
    assert whole
    assert 100_000 <= total < 120_000  # the link is not counted as the file once more
    assert disks.folder_bytes(tmp_path, 0.0)[1] is False


def test_the_hubs_cache_is_where_the_environment_says(tmp_path: Path) -> None:
    finding = disks.hub({"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"})
    assert finding.text.startswith(f"{tmp_path}/hf/hub: not there yet, ")
    assert finding.text.endswith("offline (HF_HUB_OFFLINE)")


@pytest.mark.parametrize(("free", "state"), [(10**12, "ok"), (10**9, "warning"), (10**7, "problem")])
def test_a_store_with_little_room_is_a_warning_and_with_none_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: str
) -> None:
    monkeypatch.setattr(disks.shutil, "disk_usage", lambda _: type("Usage", (), {"free": free}))
    assert disks.store(tmp_path / "store").state == state


def test_sizes_are_written_as_people_read_them() -> None:
    assert [size(n) for n in (0, 999, 12_345, 10**6, 2.5e9, 3.2e12)] == [
        "0 B", "999 B", "12 kB", "1 MB", "2.5 GB", "3.20 TB",
    ]  # fmt: skip


def test_a_part_that_hangs_or_fails_hides_no_other() -> None:
    never = threading.Event()

    def hang() -> list[Finding]:
        never.wait()
        return []

    def fail() -> list[Finding]:
        raise ValueError("odd")

    good = Finding(name="c", state="ok", text="fine")
    found = doctor.in_time({"a": hang, "b": fail, "c": lambda: [good]}, 2.0)
    never.set()
    assert [one.state for one in found] == ["problem", "problem", "ok"]
    assert found[0].text == "no answer within 2 s"
    assert found[1].text == "could not be examined: ValueError: odd"


@pytest.mark.parametrize("width", [60, 80, 200])
def test_lines_keep_to_the_width_and_begin_with_the_state(width: int) -> None:
    findings = [
        Finding(name="a", state="ok", text="fine " * 40),
        Finding(name="b", state="problem", text="bad", advice="mend it " * 30),
    ]
    lines = render(findings, width).splitlines()
    assert all(len(line) <= width for line in lines)
    assert lines[0].startswith("ok       a: fine")
    assert any(line.startswith("problem  b: bad") for line in lines)
    assert lines[-1] == "problems: 1, warnings: 0"


def test_the_command_examines_every_part_and_exits_by_the_contract(tmp_path: Path) -> None:
    done = loadgen(tmp_path, "doctor", "--json")
    findings = json.loads(done.out)
    names = {one["name"] for one in findings}
    assert {"docker", "hub cache", "store", "open files", "CPU", "receive stamps"} <= names
    assert done.code == (5 if any(one["state"] == "problem" for one in findings) else 0)
    assert not list(tmp_path.iterdir())  # an examination leaves nothing


def test_without_an_nvml_package_nvidia_smi_is_asked_and_the_blindness_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    script = tmp_path / "nvidia-smi"
    script.write_text(
        "#!/bin/sh\ncase $1 in\n--query-gpu=*) echo '0, GPU-a, NVIDIA H200, 143771, 1, 570.86.15' ;;\n"
        "--query-compute-apps=*) ;;\n*) echo '| NVIDIA-SMI 570.86.15   CUDA Version: 12.8 |' ;;\nesac\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    blind, gpu = gpus.examine()
    assert (blind.state, blind.advice) == ("warning", "pip install 'loadgen[gpu]'.")
    assert gpu.text == "NVIDIA H200, 1 MB of 150.8 GB in use, driver 570.86.15, CUDA 12.8"
    script.write_text("#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'; exit 18\n")
    (broken,) = gpus.examine()
    assert broken.state == "problem"
    assert "Driver/library version mismatch" in broken.text


def test_nvml_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    running = SimpleNamespace(pid=os.getpid(), usedGpuMemory=None)
    nvml = SimpleNamespace(
        NVMLError=OSError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlSystemGetCudaDriverVersion=lambda: 12080,
        nvmlSystemGetDriverVersion=lambda: b"570.86.15",
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=150 * 10**9, used=10**8),
        nvmlDeviceGetUUID=lambda handle: "GPU-a",
        nvmlDeviceGetName=lambda handle: "NVIDIA H200",
        nvmlDeviceGetComputeRunningProcesses=lambda handle: [running],
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    (gpu,) = gpus.examine()
    assert gpu.state == "warning"
    assert gpu.text.startswith("NVIDIA H200, 100 MB of 150.0 GB in use, driver 570.86.15, CUDA 12.8; on it pid ")


@pytest.mark.parametrize(
    ("script", "state", "text"),
    [
        ("echo 28.2.2 27.0.1", "ok", "client 28.2.2, server 27.0.1"),
        ("echo 'Cannot connect to the Docker daemon' >&2; exit 1", "warning", "Cannot connect to the Docker daemon"),
        (None, "ok", "not installed; engines that run by `image` need it"),
    ],
)
def test_docker_is_here_mute_or_not_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, state: str, text: str
) -> None:
    if script is not None:
        (tmp_path / "docker").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = doctor.docker()
    assert (finding.state, finding.text) == (state, text)
