"""What this machine is: for the profile of a scenario, and for the fingerprint that every run keeps."""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from loadgen import __version__
from loadgen.nvml import Unavailable, handles, opened, text
from loadgen.scenario import Machine

_PACKAGES = (
    "httpx",
    "msgspec",
    "numpy",
    "scipy",
    "hdrhistogram",
    "pydantic",
    "torch",
    "transformers",
    "vllm",
    "openai",
)


def machine() -> Machine:
    """The GPUs of this machine, by NVML; none where NVML or its Python package is missing."""
    gpus = nvml_gpus()
    if not gpus:
        return Machine(gpus=0, gpu_memory_gb=0.0, gpu_name=None)
    return Machine(gpus=len(gpus), gpu_memory_gb=min(gpu["memory_gb"] for gpu in gpus), gpu_name=gpus[0]["name"])


def nvml_gpus() -> list[dict[str, Any]]:
    """Name, UUID, memory (GB, 10**9 bytes), driver and limits of each GPU; empty where there is nothing to ask."""
    try:
        with opened() as nvml:
            driver = text(nvml.nvmlSystemGetDriverVersion())
            return [
                {
                    "name": text(nvml.nvmlDeviceGetName(handle)),
                    "uuid": text(nvml.nvmlDeviceGetUUID(handle)),
                    "memory_gb": nvml.nvmlDeviceGetMemoryInfo(handle).total / 1e9,
                    "driver": driver,
                    **_limits(nvml, handle),
                }
                for _, handle in handles(nvml)
            ]
    except Unavailable:
        return []


def _limits(nvml: Any, handle: Any) -> dict[str, float]:
    """What a GPU is held to, as far as it says: the clock of its SMs (MHz), the highest one and the one that is set for
    applications, and its power (W). A night that is slower after one of them changed needs no other explanation."""
    asked: dict[str, Callable[[], float]] = {
        "sm_clock_most_mhz": lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM),
        "sm_clock_set_mhz": lambda: nvml.nvmlDeviceGetApplicationsClock(handle, nvml.NVML_CLOCK_SM),
        "power_limit_w": lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000,
    }
    found = {}
    for name, ask in asked.items():
        try:
            found[name] = ask()
        except nvml.NVMLError:
            continue
    return found


def fingerprint() -> dict[str, Any]:
    """Host, processor, memory, kernel, GPUs and the versions of what measures."""
    return {
        "host": socket.gethostname(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "kernel": platform.release(),
        "os": platform.system(),
        "gpus": nvml_gpus(),
    }


def machine_words(fingerprint: Mapping[str, Any]) -> str:
    """A machine in words, by its `fingerprint`: processor, cores, GPUs."""
    gpus = [str(gpu.get("name")) for gpu in fingerprint.get("gpus") or ()]
    counted = ", ".join(
        f"{gpus.count(name)} x {name}" if gpus.count(name) > 1 else name for name in dict.fromkeys(gpus)
    )
    cores = f"{fingerprint['cores']} cores" if fingerprint.get("cores") else None
    return ", ".join(str(part) for part in (fingerprint.get("cpu"), cores, counted or "no GPU") if part)


def versions() -> dict[str, str]:
    """Versions of loadgen, Python and the packages that are installed beside it."""
    found = {"loadgen": __version__, "python": sys.version.split()[0]}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
