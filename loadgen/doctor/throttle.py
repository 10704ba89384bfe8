"""GPUs whose clocks are held down by heat or power, and measure the machine room. By NVML, else nvidia-smi."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from loadgen.ask import ask
from loadgen.doctor.gpus import SMI_S

QUERY = "uuid,clocks_throttle_reasons.active"

REASONS: Mapping[int, str] = MappingProxyType(
    {
        0x08: "the hardware slows it down",
        0x20: "it is too hot (by its driver)",
        0x40: "it is too hot (by its hardware)",
        0x80: "the power supply brakes it",
    }
)
"""Bits of NVML's mask that mean harm. Idle, clocks set by an operator, and the power cap under load are everyday."""


def throttled() -> dict[str, tuple[str, ...]]:
    """By UUID: why a GPU's clocks are held down now, empty where they are not. No entry where nobody tells."""
    found = by_nvml()
    if found is None and shutil.which("nvidia-smi") is not None:
        answer = ask(["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"], SMI_S)
        found = smi_masks(answer.out) if answer.problem is None else None
    return {uuid: reasons_of(mask) for uuid, mask in (found or {}).items()}


def reasons_of(mask: int) -> tuple[str, ...]:
    """The harmful bits of a mask in words."""
    return tuple(text for bit, text in REASONS.items() if mask & bit)


def smi_masks(table: str) -> dict[str, int]:
    """Masks by UUID in nvidia-smi's table: ``GPU-5f1c, 0x0000000000000001``."""
    return {uuid: int(mask, 16) for uuid, mask in re.findall(r"^\s*(\S+)\s*,\s*(0x[0-9a-fA-F]+)\s*$", table, re.M)}


def by_nvml() -> dict[str, int] | None:
    """Masks by UUID as NVML has them, None where it cannot be asked."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return {_uuid(pynvml, one): int(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(one)) for one in handles}
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _uuid(nvml: Any, handle: Any) -> str:
    value = nvml.nvmlDeviceGetUUID(handle)
    return value.decode() if isinstance(value, bytes) else str(value)
