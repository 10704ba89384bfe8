"""The end of a server: its processes, its container, its port, its GPU memory, and the proof that all are gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from loadgen.launch import containers
from loadgen.launch.command import Container
from loadgen.launch.memory import MemoryProof, memory_proof
from loadgen.launch.ports import is_free
from loadgen.launch.processes import ProcessId, Tree, end

PORT_WAIT_S = 2.0
"""How long a port may take to be free once nobody of ours lives."""


class StopProof(msgspec.Struct, frozen=True):
    """What is known after a stop. ``exit_code`` is the engine's (negative: the signal that ended it), None if unknown;
    ``killed`` are the pids that did not obey SIGTERM, ``left`` those that live in spite of SIGKILL; ``memory`` is None
    where there is no NVML, ``port_free`` where the port never was the server's, ``containers_left`` where there is a
    container and nobody can be asked about it."""

    exit_code: int | None
    took_s: float
    killed: tuple[int, ...]
    left: tuple[int, ...]
    containers_left: tuple[str, ...] | None
    port: int
    port_free: bool | None
    memory: MemoryProof | None

    @property
    def ok(self) -> bool:
        """True if nothing of the server is left."""
        return not self.problems()

    def problems(self) -> list[str]:
        """A sentence for everything that is left."""
        found = []
        if self.left:
            found.append(
                f"processes {_listed(self.left)} live in spite of SIGKILL; see them with ps, they may hang in a driver."
            )
        if self.containers_left:
            found.append(f"containers {_listed(self.containers_left)} could not be removed; remove them by hand.")
        if self.containers_left is None:
            found.append("whether its container is gone is not known: the container engine does not answer.")
        if self.port_free is False:
            found.append(f"port {self.port} is still in use by a process that is none of the server's.")
        if self.memory is not None and not self.memory.ok:
            held = ", ".join(f"GPU {index} {size / 1e9:.1f} GB" for index, size in self.memory.held.items())
            by = f" by processes {_listed(self.memory.pids)}" if self.memory.pids else ""
            found.append(
                f"memory is still held after {self.memory.took_s:.0f} s: {held}{by}. If these are not the "
                "server's GPUs, name its own in `devices` of the target."
            )
        return found


class Estate(msgspec.Struct, frozen=True):
    """Everything that a server may leave behind. ``memory_before`` is None where it was not measured; ``owned_port`` is
    false where another process had the port all the time."""

    tree: Tree
    container: Container | None
    stop: Sequence[Sequence[str]]
    port: int
    grace_s: float
    memory_before: Mapping[int, int] | None = None
    owned_port: bool = True


def stop_and_prove(
    estate: Estate, *, reap: Callable[[], object] = lambda: None, exit_code: Callable[[], int | None] = lambda: None
) -> StopProof:
    """SIGTERM, grace, SIGKILL, the container by its label, the recipe's own commands; then look what is left."""
    begun = time.monotonic()
    ended = end(estate.tree, estate.grace_s, reap=reap)
    heard = 0.0 if ended.killed else estate.grace_s  # docker's client handed SIGTERM on, and waited for as long
    remaining = containers.remove(estate.container, heard) if estate.container else []
    for words in estate.stop:
        containers.said(words, 60.0)
    left = [process.pid for process in ended.left if process.alive()]
    return StopProof(
        exit_code=exit_code(),
        took_s=time.monotonic() - begun,
        killed=_pids(ended.killed),
        left=tuple(left),
        containers_left=None if remaining is None else tuple(remaining),
        port=estate.port,
        port_free=_free_within(estate.port, PORT_WAIT_S) if estate.owned_port else None,
        memory=memory_proof(estate.memory_before),
    )


def _free_within(port: int, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not is_free(port):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def _pids(processes: Sequence[ProcessId]) -> tuple[int, ...]:
    return tuple(process.pid for process in processes)


def _listed(items: Sequence[object]) -> str:
    return ", ".join(str(item) for item in items)
