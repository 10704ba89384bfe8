"""The GPUs of this machine and who uses them, by NVML's Python package, else by nvidia-smi. Out: findings."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil

from loadgen.ask import ask
from loadgen.doctor.finding import Finding, State, size
from loadgen.nvml import Unavailable, handles, opened, text

SMI_S = 8.0
UNSEEN_BYTES = 10**9
"""What a driver keeps for itself is less; more without a process belongs to one that cannot be seen from here."""

GPU_QUERY = "index,uuid,name,memory.total,memory.used,driver_version"
APP_QUERY = "gpu_uuid,pid,used_memory"


class GpuProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A process on a GPU. ``user`` and ``name`` are None where it cannot be seen from here, ``memory`` (bytes) where
    the driver does not tell."""

    pid: int
    user: str | None
    name: str | None
    memory: int | None


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU; memory in bytes. ``cuda`` is the newest CUDA that its driver knows, None where unknown."""

    index: int
    uuid: str
    name: str
    memory_total: int
    memory_used: int
    driver: str
    cuda: str | None
    processes: tuple[GpuProcess, ...]


def examine() -> list[Finding]:
    """A finding for each GPU, or one that says why there is none."""
    gpus, why = by_nvml()
    if gpus is not None:
        return [judged(gpu) for gpu in gpus] or [_unread("NVML knows of none")]
    if shutil.which("nvidia-smi") is None:
        return [_unread(why)]
    gpus, wrong = by_smi()
    if gpus is None:
        advice = "look into the driver: `nvidia-smi`, `dmesg`; after an update of the driver the machine must restart."
        return [Finding(name="GPUs", state="problem", text=f"nvidia-smi fails: {wrong}", advice=advice)]
    text = f"{why}: loadgen chooses no profile that asks for GPUs, and cannot prove that their memory is back"
    blind = Finding(name="GPUs", state="warning", text=text, advice="pip install 'loadgen[gpu]'.")
    return [blind, *map(judged, gpus)]


def judged(gpu: Gpu) -> Finding:
    """A GPU as a finding: is it free?"""
    cuda = f", CUDA {gpu.cuda}" if gpu.cuda else ""
    text = f"{gpu.name}, {size(gpu.memory_used)} of {size(gpu.memory_total)} in use, driver {gpu.driver}{cuda}"
    advice = ""
    if gpu.processes:
        text += "; on it " + ", ".join(map(_process, gpu.processes))
        advice = "what else runs there slows a measurement down: end it, or take other `devices`."
    elif gpu.memory_used > UNSEEN_BYTES:
        text += " by nobody that can be seen from here"
        advice = "look from outside of this container, or as root: a process may live there, or hang in the driver."
    state: State = "warning" if advice else "ok"
    return Finding(name=f"GPU {gpu.index}", state=state, text=text, advice=advice, facts=msgspec.to_builtins(gpu))


def by_nvml() -> tuple[list[Gpu] | None, str]:
    """The GPUs, and why there is no list of them where that is None."""
    try:
        with opened() as nvml:
            return list(_nvml_gpus(nvml)), ""
    except Unavailable as error:
        return None, str(error)


def _nvml_gpus(nvml: Any) -> Iterator[Gpu]:
    version = int(nvml.nvmlSystemGetCudaDriverVersion())
    for index, handle in handles(nvml):
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        yield Gpu(
            index=index,
            uuid=text(nvml.nvmlDeviceGetUUID(handle)),
            name=text(nvml.nvmlDeviceGetName(handle)),
            memory_total=int(memory.total),
            memory_used=int(memory.used),
            driver=text(nvml.nvmlSystemGetDriverVersion()),
            cuda=f"{version // 1000}.{version % 1000 // 10}",
            processes=tuple(
                described(int(found.pid), None if found.usedGpuMemory is None else int(found.usedGpuMemory))
                for found in nvml.nvmlDeviceGetComputeRunningProcesses(handle)
            ),
        )


def by_smi() -> tuple[list[Gpu] | None, str]:
    """The same by nvidia-smi."""
    gpus = ask(["nvidia-smi", f"--query-gpu={GPU_QUERY}", "--format=csv,noheader,nounits"], SMI_S)
    apps = ask(["nvidia-smi", f"--query-compute-apps={APP_QUERY}", "--format=csv,noheader,nounits"], SMI_S)
    page = ask(["nvidia-smi"], SMI_S)
    if wrong := gpus.problem or apps.problem:
        return None, wrong
    cuda = re.search(r"CUDA Version\s*:\s*([\d.]+)", page.out)
    return smi_gpus(gpus.out, apps.out, cuda[1] if cuda else None), ""


def smi_gpus(gpus: str, apps: str, cuda: str | None) -> list[Gpu]:
    """The GPUs in two tables of nvidia-smi, whose memory is in MiB."""
    running = [[cell.strip() for cell in line.split(",")] for line in apps.splitlines() if line.count(",") == 2]
    found = []
    for line in gpus.splitlines():
        if line.count(",") != 5:
            continue
        index, uuid, name, total, used, driver = (cell.strip() for cell in line.split(","))
        on_it = [(int(pid), _mib(memory)) for owner, pid, memory in running if owner == uuid]
        found.append(
            Gpu(
                index=int(index),
                uuid=uuid,
                name=name,
                memory_total=_mib(total) or 0,
                memory_used=_mib(used) or 0,
                driver=driver,
                cuda=cuda,
                processes=tuple(described(pid, memory) for pid, memory in on_it),
            )
        )
    return found


def described(pid: int, memory: int | None) -> GpuProcess:
    """A process by its pid, as far as it can be seen from here."""
    try:
        process = psutil.Process(pid)
        return GpuProcess(pid=pid, user=process.username(), name=process.name(), memory=memory)
    except (psutil.Error, OSError, KeyError):
        return GpuProcess(pid=pid, user=None, name=None, memory=memory)


def _process(process: GpuProcess) -> str:
    parts: Sequence[str] = [part for part in (process.user, process.name) if part]
    held = [size(process.memory)] if process.memory else []
    return f"pid {process.pid} ({', '.join([*(parts or ['not to be seen from here']), *held])})"


def _mib(text: str) -> int | None:
    return int(float(text) * 2**20) if re.fullmatch(r"[\d.]+", text) else None


def _unread(why: str) -> Finding:
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return Finding(name="GPUs", state="ok", text=f"none ({why}); engines run on the CPU here")
    text = f"there are some (/dev/nvidia0), but {why}, and there is no nvidia-smi"
    return Finding(name="GPUs", state="warning", text=text, advice="pip install 'loadgen[gpu]'.")
