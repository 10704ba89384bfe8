"""GPUs of another machine, by the page of NVIDIA's DCGM exporter there.

In: the text of a page. Out: `GpuReading`s. The exporter looks at its GPUs every 30 s unless it is started otherwise
(``dcgm-exporter -c 1000``): energy needs it every second. Whose the processes on a GPU are it does not say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from loadgen.telemetry.prometheus import samples
from loadgen.telemetry.reading import GpuReading

_MIB = 2.0**20

FIELDS: Mapping[str, tuple[str, float]] = MappingProxyType(
    {
        "DCGM_FI_DEV_FB_USED": ("memory_bytes", _MIB),
        "DCGM_FI_DEV_GPU_UTIL": ("utilisation", 0.01),
        "DCGM_FI_DEV_SM_CLOCK": ("sm_mhz", 1.0),
        "DCGM_FI_DEV_MEM_CLOCK": ("memory_mhz", 1.0),
        "DCGM_FI_DEV_GPU_TEMP": ("celsius", 1.0),
        "DCGM_FI_DEV_POWER_USAGE": ("watts", 1.0),
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": ("joules", 1e-3),
        "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS": ("held_down", 1.0),
        "DCGM_FI_DEV_CLOCKS_EVENT_REASONS": ("held_down", 1.0),
    }
)
"""The exporter's name of a field -> ours, and what to multiply it by."""

BLANK = 2.0**31 - 16
"""DCGM writes a value that it does not have as a number from here on, where it writes it at all."""


def read(page: str, devices: Iterable[int | str] = ()) -> tuple[GpuReading, ...]:
    """The GPUs of a page, in its order; ``devices`` are indices or UUIDs, empty for all."""
    wanted = {str(device) for device in devices}
    found: dict[str, dict[str, float]] = {}
    names: dict[str, tuple[int | None, str | None]] = {}
    for name, labels, value in samples(page, FIELDS):
        uuid = labels.get("UUID")
        if uuid is None or labels.get("GPU_I_ID"):  # slices have labels of their own
            continue
        if wanted and not {uuid, labels.get("gpu")} & wanted:
            continue
        field, scale = FIELDS[name]
        index = labels.get("gpu", "")
        names[uuid] = (int(index) if index.isdecimal() else None, labels.get("modelName"))
        known = found.setdefault(uuid, {})
        if 0 <= value < (2.0**62 if field == "joules" else BLANK):
            known[field] = value * scale
    return tuple(_reading(uuid, *names[uuid], values) for uuid, values in found.items())


def _reading(uuid: str, index: int | None, name: str | None, values: Mapping[str, float]) -> GpuReading:
    mask = values.get("held_down")
    return GpuReading(
        uuid=uuid,
        index=index,
        name=name,
        held_down=None if mask is None else int(mask),
        **{field: value for field, value in values.items() if field != "held_down"},  # type: ignore[arg-type]
    )
