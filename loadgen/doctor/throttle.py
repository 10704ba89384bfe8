"""GPUs whose clocks are held down by heat or power, and measure the machine room. By NVML, else nvidia-smi."""

from __future__ import annotations

import re
import shutil

from loadgen.ask import ask
from loadgen.doctor.gpus import SMI_S
from loadgen.nvml import Unavailable, handles, opened, reasons_of, text

QUERY = "uuid,clocks_throttle_reasons.active"


def throttled() -> dict[str, tuple[str, ...]]:
    """By UUID: why a GPU's clocks are held down now, empty where they are not. No entry where nobody tells."""
    found = by_nvml()
    if found is None and shutil.which("nvidia-smi") is not None:
        answer = ask(["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"], SMI_S)
        found = smi_masks(answer.out) if answer.problem is None else None
    return {uuid: reasons_of(mask) for uuid, mask in (found or {}).items()}


def smi_masks(table: str) -> dict[str, int]:
    """Masks by UUID in nvidia-smi's table: ``GPU-5f1c, 0x0000000000000001``."""
    return {uuid: int(mask, 16) for uuid, mask in re.findall(r"^\s*(\S+)\s*,\s*(0x[0-9a-fA-F]+)\s*$", table, re.M)}


def by_nvml() -> dict[str, int] | None:
    """Masks by UUID as NVML has them, None where it cannot be asked."""
    try:
        with opened() as nvml:
            return {
                text(nvml.nvmlDeviceGetUUID(one)): int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(one))
                for _, one in handles(nvml)
            }
    except Unavailable:
        return None
