"""What the GPUs' memory was used for, by torch's own count: the peak of live tensors, and what its allocator holds.

Both are since the start or the last reset, summed over the devices that hold the model. Memory that is taken past torch
(CUDA's context, NCCL's buffers) is not in them; nvidia-smi shows that too, and therefore more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Memory(NamedTuple):
    """Bytes: ``peak`` of live tensors (``torch.cuda.max_memory_allocated``) and ``reserved``, the most that the
    allocator has held (``torch.cuda.max_memory_reserved``)."""

    peak: int
    reserved: int


def read(devices: Sequence[int]) -> Memory | None:
    """The memory of this process on its GPUs; None where it has none."""
    if not devices:
        return None
    import torch

    return total(Memory(torch.cuda.max_memory_allocated(i), torch.cuda.max_memory_reserved(i)) for i in devices)


def total(parts: Iterable[Memory | None]) -> Memory | None:
    """The sum over devices or processes; None where no part is known."""
    known = [part for part in parts if part is not None]
    return Memory(sum(part.peak for part in known), sum(part.reserved for part in known)) if known else None


def reset(devices: Sequence[int]) -> None:
    """Starts both peaks anew from what is held now."""
    import torch

    for index in devices:
        torch.cuda.synchronize(index)
        torch.cuda.reset_peak_memory_stats(index)
