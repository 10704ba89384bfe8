"""An examination of this machine: what may stand in the way of a launch or of an exact number, with what to do.

In: the store. Out: `Finding`s, and the servers that outlived their runs. All parts are looked at at once, each within a
time: a driver or a network disk that hangs becomes a finding and does not hang us.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from loadgen.ask import ask
from loadgen.doctor import clocks, disks, gpus, limits
from loadgen.doctor.finding import Finding, State
from loadgen.launch import Leftover, kill_leftover, leftovers

LONGEST_S = 30.0
"""More than the parts take by themselves, which have limits of their own where they can."""
DOCKER_S = 8.0

__all__ = ["Finding", "examine", "is_left", "left_in", "stop"]


def examine(store: Path, limit_s: float = LONGEST_S) -> list[Finding]:
    """Everything about this machine; servers are `left_in`."""
    parts: dict[str, Callable[[], list[Finding]]] = {
        "GPUs": gpus.examine,
        "docker": lambda: [docker()],
        "hub cache": lambda: [disks.hub(os.environ)],
        "store": lambda: [disks.store(store)],
        "limits": limits.examine,
        "clocks": clocks.examine,
    }
    return in_time(parts, limit_s)


def in_time(parts: dict[str, Callable[[], list[Finding]]], limit_s: float) -> list[Finding]:
    """What the parts find, in their order; a part that hangs or fails is a problem by its name."""
    found: dict[str, list[Finding]] = {}

    def look(name: str, part: Callable[[], list[Finding]]) -> None:
        try:
            found[name] = part()
        except Exception as error:  # noqa: BLE001 - one part that fails must not hide what the others found
            text = f"could not be examined: {type(error).__name__}: {error}"
            found[name] = [Finding(name=name, state="problem", text=text, advice="this is worth an issue.")]

    threads = [threading.Thread(target=look, args=part, daemon=True) for part in parts.items()]
    until = time.monotonic() + limit_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    hangs = f"no answer within {limit_s:.0f} s"
    advice = "something below it hangs: a driver, or a disk in the network; `dmesg` may say which."
    return [
        finding
        for name in parts
        for finding in found.get(name, [Finding(name=name, state="problem", text=hangs, advice=advice)])
    ]


def docker() -> Finding:
    """The container engine: is it there, and does it answer?"""
    answer = ask(["docker", "version", "--format", "{{.Client.Version}} {{.Server.Version}}"], DOCKER_S)
    if answer.problem is None:
        client, _, server = answer.out.strip().partition(" ")
        facts = {"client": client, "server": server}
        return Finding(name="docker", state="ok", text=f"client {client}, server {server}", facts=facts)
    if answer.problem.startswith("there is no program"):
        return Finding(name="docker", state="ok", text="not installed; engines that run by `image` need it")
    advice = "start its daemon, or join the group docker; until then no target with an `image` can be launched."
    return Finding(name="docker", state="warning", text=answer.reason or answer.problem, advice=advice)


def left_in(store: Path) -> list[Leftover]:
    """The servers of this store that outlived their run, kept ones included."""
    return leftovers(store)


def is_left(left: Leftover) -> Finding:
    """A server that stands without its run."""
    advice = "`loadgen doctor --stop` ends it and proves it."
    facts = {"run": left.run, "target": left.target, "engine": left.engine, "port": left.port, "kept": left.kept}
    facts |= {"pids": [process.pid for process in left.processes], "containers": list(left.containers)}
    state: State = "warning" if left.kept else "problem"
    return Finding(name="server", state=state, text=left.sentence(), advice=advice, facts=facts)


def stop(found: Sequence[Leftover]) -> list[Finding]:
    """Ends the servers, as their runs would have; a finding for each, a problem for one of which something is left."""
    return [_stopped(left) for left in found]


def _stopped(left: Leftover) -> Finding:
    name = f"{left.engine} (target {left.target}) of run {left.run}"
    try:
        proof = kill_leftover(left)
        problems = proof.problems()
        text = f"{name} is stopped after {proof.took_s:.1f} s, and nothing of it is left"
    except OSError as error:
        problems = [f"its record cannot be written: {error}."]
    facts = {"run": left.run, "target": left.target, "stopped": not problems}
    if not problems:
        return Finding(name="server", state="ok", text=text, facts=facts)
    text = f"{name} could not be ended: {' '.join(problems)}"
    return Finding(name="server", state="problem", text=text, advice=f"{left.by_hand()}.", facts=facts)
