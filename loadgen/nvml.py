"""The one door to NVML, NVIDIA's management library, whose Python package may be missing.

Everybody who asks it something opens it here, closes it when done, and has one exception to catch: `Unavailable`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

REASONS: Mapping[int, str] = MappingProxyType(
    {
        0x08: "the hardware slows it down",
        0x20: "it is too hot (by its driver)",
        0x40: "it is too hot (by its hardware)",
        0x80: "the power supply brakes it",
    }
)
"""Bits of the mask of what holds clocks down that mean harm. Idle, clocks set by an operator, and the power cap under
load are everyday."""


class Unavailable(Exception):
    """NVML cannot be asked, or has refused. The message says why, without a full stop."""


@contextmanager
def opened() -> Iterator[Any]:
    """The module ``pynvml``, started; what it refuses inside the block leaves it as `Unavailable`, too."""
    try:
        import pynvml
    except ImportError:
        raise Unavailable("NVML's Python package is not installed") from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise Unavailable(f"NVML: {error}") from None
    try:
        yield pynvml
    except pynvml.NVMLError as error:
        raise Unavailable(f"NVML: {error}") from None
    finally:
        pynvml.nvmlShutdown()


def handles(nvml: Any, devices: Sequence[int | str] = ()) -> list[tuple[int, Any]]:
    """Index and handle of each GPU; ``devices`` are indices or UUIDs, empty for all."""
    found = []
    for device in devices or range(nvml.nvmlDeviceGetCount()):
        if isinstance(device, str):
            handle = nvml.nvmlDeviceGetHandleByUUID(device)
            found.append((int(nvml.nvmlDeviceGetIndex(handle)), handle))
        else:
            found.append((device, nvml.nvmlDeviceGetHandleByIndex(device)))
    return found


def text(value: Any) -> str:
    """A string of NVML's; older packages give bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def reasons_of(mask: int) -> tuple[str, ...]:
    """The harmful bits of a mask in words."""
    return tuple(words for bit, words in REASONS.items() if mask & bit)
