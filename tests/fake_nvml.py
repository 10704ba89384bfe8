"""A machine with GPUs as the module ``pynvml`` shows it: the calls that we make, with the shapes that the package
(nvidia-ml-py 12.560 and later) gives. Put it in the real one's place: ``monkeypatch.setitem(sys.modules, ...)``."""

from __future__ import annotations

import types
from dataclasses import dataclass, field
from typing import Any


class NVMLError(Exception):
    """What every call of the package raises."""


@dataclass
class Gpu:
    """One GPU; what is None is refused as the package refuses what a GPU does not support. Units are NVML's own: MiB
    are bytes, power is mW, energy mJ. ``processes`` are bytes by pid; None is what a driver without the right gives."""

    uuid: str = "GPU-a"
    name: str | bytes = "NVIDIA H200"
    used: int | None = 20 * 10**9
    total: int = 150 * 10**9
    busy: int | None = 90
    sm: int | None = 1980
    memory_clock: int | None = 3201
    celsius: int | None = 55
    milliwatts: int | None = 400_000
    millijoules: int | None = 0
    reasons: int | None = 0
    processes: dict[int, int | None] | None = field(default_factory=dict)


class FakeNvml(types.ModuleType):
    """The module. ``open`` counts what was not shut down."""

    NVMLError = NVMLError
    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, *gpus: Gpu) -> None:
        super().__init__("pynvml")
        self.gpus = list(gpus)
        self.open = 0

    def nvmlInit(self) -> None:
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return "570.86.15"

    def nvmlSystemGetCudaDriverVersion(self) -> int:
        return 12080

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Gpu:
        if index >= len(self.gpus):
            raise NVMLError("Invalid Argument")
        return self.gpus[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Gpu:
        for gpu in self.gpus:
            if gpu.uuid == uuid:
                return gpu
        raise NVMLError("Not Found")

    def nvmlDeviceGetIndex(self, gpu: Gpu) -> int:
        return self.gpus.index(gpu)

    def nvmlDeviceGetUUID(self, gpu: Gpu) -> str:
        return gpu.uuid

    def nvmlDeviceGetName(self, gpu: Gpu) -> str | bytes:
        return gpu.name

    def nvmlDeviceGetMemoryInfo(self, gpu: Gpu) -> Any:
        return types.SimpleNamespace(total=gpu.total, used=_told(gpu.used), free=gpu.total - _told(gpu.used))

    def nvmlDeviceGetUtilizationRates(self, gpu: Gpu) -> Any:
        return types.SimpleNamespace(gpu=_told(gpu.busy), memory=0)

    def nvmlDeviceGetClockInfo(self, gpu: Gpu, kind: int) -> int:
        return _told({self.NVML_CLOCK_SM: gpu.sm, self.NVML_CLOCK_MEM: gpu.memory_clock}[kind])

    def nvmlDeviceGetTemperature(self, gpu: Gpu, sensor: int) -> int:
        return _told(gpu.celsius)

    def nvmlDeviceGetPowerUsage(self, gpu: Gpu) -> int:
        return _told(gpu.milliwatts)

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: Gpu) -> int:
        return _told(gpu.millijoules)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, gpu: Gpu) -> int:
        return _told(gpu.reasons)

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: Gpu) -> list[Any]:
        if gpu.processes is None:
            raise NVMLError("Insufficient Permissions")
        return [
            types.SimpleNamespace(pid=pid, usedGpuMemory=held, gpuInstanceId=None, computeInstanceId=None)
            for pid, held in gpu.processes.items()
        ]


def _told(value: int | None) -> int:
    if value is None:
        raise NVMLError("Not Supported")
    return value
