"""What a measurement must have alone on this machine, and that it has it.

In: cells. Out: the locks (``locks.py``) of the GPUs that their servers stand on, or of the machine's cores where there
are no GPUs; none for endpoints that exist, since nobody here knows who else loads them. Cores are one lock: servers on
other cores still share memory and its bandwidth, and the client needs some, too.

A server sees the GPUs that its target names, else those that its environment leaves it (CUDA_VISIBLE_DEVICES, which
batch systems set), else all. Where that cannot be told, it is taken to see them all.
"""

from __future__ import annotations

import itertools
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from loadgen.doctor.gpus import Gpu, by_nvml, by_smi
from loadgen.errors import LaunchError, UsageError
from loadgen.locks import CORES, held, machine_locks
from loadgen.scenario import Cell, Target

VISIBLE, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"

ANSWER_S = 60.0
"""A driver that is waking its GPUs takes seconds."""


class Launched(Protocol):
    """What says which GPUs a server will see: a scenario's target, or what is to be launched."""

    @property
    def devices(self) -> tuple[int | str, ...] | None:
        """GPUs by index or UUID."""

    @property
    def options(self) -> Mapping[str, Any]:
        """Words of its recipe."""

    @property
    def env(self) -> Mapping[str, str]:
        """Variables that it gets."""

    @property
    def image(self) -> str | None:
        """Its container image."""


@contextmanager
def alone(
    cells: Sequence[Cell], purpose: str, wait_s: float | None, say: Callable[[str], None]
) -> Iterator[Callable[[str], None]]:
    """Nobody else measures where these cells do. ``wait_s`` is how long it waits for others, None where whoever asks
    has seen to it already. Gives a function by which the holder says what for, as `locks.held` does.

    Raises UsageError for servers that would stand on one GPU at once, BusyError if another run has what is needed.
    """
    gpus = gpus_for(cells)
    stand_apart(cells, gpus)
    if wait_s is None:
        yield _unheard
        return
    with held(machine_locks(places_of(cells, gpus)), purpose, wait_s, say) as tell:
        yield tell


def wait_for_runs(launched: Launched, purpose: str, wait_s: float, say: Callable[[str], None]) -> None:
    """Comes back when no run has what this server will stand on. A server that somebody starts by hand takes nothing
    for itself: two of them may share a GPU, and measure nothing. Raises BusyError."""
    places = [gpu.uuid for gpu in seen_by(launched, gpus_here())] or [CORES]
    with held(machine_locks(places), purpose, wait_s, say):
        pass


def _unheard(_: str) -> None:
    """Whoever has the locks says what for."""


def gpus_for(cells: Sequence[Cell]) -> list[Gpu]:
    """The GPUs of this machine where these cells start servers; nobody is asked for them where they start none."""
    return gpus_here() if _launched(cells) else []


def gpus_here() -> list[Gpu]:
    """The GPUs of this machine as far as NVML or nvidia-smi tell. Raises LaunchError if the driver does not answer: it
    may hang for ever, and nobody stands by at night."""
    found: list[Gpu] = []
    asking = threading.Thread(target=lambda: found.extend(_gpus()), daemon=True)
    asking.start()
    asking.join(ANSWER_S)
    if asking.is_alive():
        raise LaunchError(f"the driver of the GPUs does not answer within {ANSWER_S:.0f} s; `dmesg` may say why.")
    return found


def _gpus() -> list[Gpu]:
    found, _ = by_nvml()
    if found is None and shutil.which("nvidia-smi") is not None:
        found, _ = by_smi()
    return found or []


def places_of(cells: Sequence[Cell], gpus: Sequence[Gpu]) -> list[str]:
    """What these cells must have alone: their GPUs by UUID, and for servers that see none the machine's cores. Cells
    that load endpoints alone need nothing."""
    standing = [seen_by(target, gpus) for target in _launched(cells)]
    return [*(gpu.uuid for gpu in gpus_of(cells, gpus)), *([CORES] if not all(standing) else [])]


def gpus_of(cells: Sequence[Cell], gpus: Sequence[Gpu]) -> list[Gpu]:
    """Those of these GPUs that servers of the cells will stand on."""
    seen = {gpu.uuid for target in _launched(cells) for gpu in seen_by(target, gpus)}
    return [gpu for gpu in gpus if gpu.uuid in seen]


def _launched(cells: Sequence[Cell]) -> list[Target]:
    """The targets whose engines loadgen starts, in every cell."""
    return [target for cell in cells for target in cell.scenario.targets.values() if target.launched]


def stand_apart(cells: Sequence[Cell], gpus: Sequence[Gpu]) -> None:
    """Servers that stand at the same time stand on GPUs of their own, unless it is said that they share. What the
    scenario itself tells of that is refused when it is read; which GPUs there are is known only here.

    Raises UsageError.
    """
    for cell in cells:
        comparison = cell.scenario.comparison
        if comparison is None or comparison.scope == "restart" or comparison.share_devices:
            continue
        standing = {name: seen_by(target, gpus) for name, target in cell.scenario.targets.items() if target.launched}
        for (one, mine), (other, theirs) in itertools.combinations(standing.items(), 2):
            if both := [str(gpu.index) for gpu in mine if gpu in theirs]:
                raise UsageError(
                    f"targets.{other}.devices: {other!r} would stand beside {one!r} on GPU {', '.join(both)} of this "
                    "machine; name other devices for each, take comparison.scope: restart, or set "
                    "comparison.share_devices: true."
                )


def seen_by(launched: Launched, gpus: Sequence[Gpu]) -> list[Gpu]:
    """Those of these GPUs that a server will see."""
    named = _meant(map(str, launched.devices), gpus) if launched.devices else _left(launched, gpus)
    return [gpu for gpu in gpus if named is None or gpu.index in named or gpu.uuid in named]


def _left(launched: Launched, gpus: Sequence[Gpu]) -> tuple[int | str, ...] | None:
    """The GPUs that options and environment leave a server that names none, by index or UUID; None for all."""
    if launched.options.get("device") == "cpu":
        return ()
    environ = launched.env if launched.image else {**os.environ, **launched.env}
    words = environ.get(VISIBLE)
    if words is None:
        return None
    alike = environ.get(ORDER) == "PCI_BUS_ID" or len({gpu.name for gpu in gpus}) == 1
    return _meant(map(str.strip, words.split(",")), gpus, alike)


def _meant(words: Iterable[str], gpus: Sequence[Gpu], by_index: bool = True) -> tuple[int | str, ...] | None:
    """The GPUs that words name, by index or UUID; None for all, where that cannot be told. An index counts only where
    it goes ``by_index`` of the bus."""
    found: list[int | str] = []
    for word in words:
        matches = [gpu.uuid for gpu in gpus if word.startswith("GPU-") and gpu.uuid.startswith(word)]
        if word.isdigit() and by_index:
            found.append(int(word))
        elif matches:
            found += matches
        elif word.isdigit() or word.startswith("MIG-"):
            return None  # which GPU that is cannot be told from here
        else:
            break  # as CUDA does: what follows a word that is none is not seen
    return tuple(found)
