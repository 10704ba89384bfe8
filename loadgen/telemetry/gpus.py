"""What GPUs of this machine do at this moment, by NVML's Python package; nothing where there is nothing to ask.

Out: ``gpu_watts``, ``gpu_bytes`` (in use) and ``gpu_bytes_total``, summed over the GPUs that were asked for. A GPU that
does not say one of them (a slice of one knows no power) leaves that word out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any


class Gpus:
    """GPUs by index or UUID; none named: all of them. Use it as a context manager, in one thread."""

    def __init__(self, devices: Sequence[int | str] = ()) -> None:
        self._devices = devices
        self._nvml: Any = None
        self._handles: list[Any] = []

    def __enter__(self) -> Gpus:
        try:
            import pynvml
        except ImportError:
            return self
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlInit()
            self._nvml = pynvml
            named = self._devices or range(pynvml.nvmlDeviceGetCount())
            self._handles = [self._handle(device) for device in named]
        return self

    def __exit__(self, *_: object) -> None:
        if self._nvml is not None:
            with contextlib.suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()

    def now(self) -> dict[str, float]:
        """The words that every GPU has a value for."""
        if not self._handles:
            return {}
        nvml = self._nvml
        found = {
            "gpu_watts": self._sum(lambda one: nvml.nvmlDeviceGetPowerUsage(one) / 1e3),
            "gpu_bytes": self._sum(lambda one: nvml.nvmlDeviceGetMemoryInfo(one).used),
            "gpu_bytes_total": self._sum(lambda one: nvml.nvmlDeviceGetMemoryInfo(one).total),
        }
        return {word: value for word, value in found.items() if value is not None}

    def _handle(self, device: int | str) -> Any:
        if isinstance(device, int):
            return self._nvml.nvmlDeviceGetHandleByIndex(device)
        return self._nvml.nvmlDeviceGetHandleByUUID(device)

    def _sum(self, value: Callable[[Any], float]) -> float | None:
        try:
            return float(sum(value(one) for one in self._handles))
        except self._nvml.NVMLError:
            return None
