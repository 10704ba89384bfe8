"""Servers that outlived their run (killed with -9, or kept by ``--keep``): found by server.json, named, ended if asked.

A record names a leftover if the machine has not been booted since, the process that started it is gone, and something
of it lives: a recorded process, one that carries its cookie, or a container with its label.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import msgspec

from loadgen.launch import containers, server_json
from loadgen.launch.command import Container
from loadgen.launch.processes import ProcessId, Tree, boot_id
from loadgen.launch.proof import Estate, StopProof, stop_and_prove


class Leftover(msgspec.Struct, frozen=True):
    """A server without its run. ``processes`` and ``containers`` are what lives of it; ``kept`` means that its run was
    told to leave it up."""

    folder: Path
    run: str
    target: str
    engine: str
    port: int
    processes: tuple[ProcessId, ...]
    containers: tuple[str, ...]
    kept: bool
    record: dict[str, Any]

    def sentence(self) -> str:
        """What it is and where, for the user."""
        parts = []
        if self.processes:
            parts.append(f"processes {', '.join(str(process.pid) for process in self.processes)}")
        if self.containers:
            parts.append(f"containers {', '.join(self.containers)}")
        if self.kept:
            what = "was told to keep"
        else:
            what = "could not end" if self.record["state"] == "left" else "was killed and left"
        return (
            f"run {self.run} {what} {self.engine} (target {self.target}) on port {self.port}: {' and '.join(parts)} "
            f"(by hand: {self.by_hand()}); its log is {self.folder / 'server.log'}."
        )

    def by_hand(self) -> str:
        """The command line that ends it without us."""
        program = self.record["container"]["program"] if self.containers else ""
        words = [f"kill {' '.join(str(process.pid) for process in self.processes)}"] if self.processes else []
        words += [f"{program} rm -f {' '.join(self.containers)}"] if self.containers else []
        return " && ".join(words)


def leftovers(store: Path) -> list[Leftover]:
    """The servers of this store that outlived their run, oldest first. Files that are no records are passed over."""
    found = (_leftover(path) for path in sorted(store.glob(f"runs/*/*/servers/*/{server_json.FILE}")))
    return [leftover for leftover in found if leftover is not None]


def kill_leftover(leftover: Leftover) -> StopProof:
    """End it as its own run would have, and note that in its record.

    What its GPUs held before its start is long past: of the memory nothing is proved.
    """
    tree = _tree(leftover.record)
    stop = [[str(word) for word in words] for words in leftover.record["stop"]]
    grace_s = float(leftover.record["grace_s"])
    proof = stop_and_prove(Estate(tree, _container(leftover.record), stop, leftover.port, grace_s))
    state = "stopped" if proof.ok else "left"
    ended = {"state": state, "ended": server_json.now(), "proof": msgspec.to_builtins(proof) | {"ok": proof.ok}}
    with contextlib.suppress(OSError):  # a full disk: what does not live is no leftover, whatever its record says
        server_json.write(leftover.folder / server_json.FILE, leftover.record | ended)
    return proof


def _leftover(path: Path) -> Leftover | None:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if (
            kept["schema"] != server_json.SCHEMA
            or kept["state"] in ("stopped", "failed")
            or kept["boot_id"] != boot_id()
        ):
            return None
        if ProcessId.from_json(kept["owner"]).alive():
            return None
        tree, container = _tree(kept), _container(kept)
        tree.refresh(thorough=True)
        processes = tuple(tree.alive())
        ids = tuple(containers.living(container) or ()) if container else ()
        if not processes and not ids:
            return None
        return Leftover(
            folder=path.parent,
            run=kept["run"],
            target=kept["target"],
            engine=kept["engine"],
            port=int(kept["port"]),
            processes=processes,
            containers=ids,
            kept=kept["state"] == "kept",
            record=kept,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _tree(kept: dict[str, Any]) -> Tree:
    leader = None if kept["pid"] is None else ProcessId.from_json(kept)
    return Tree(leader, kept["cookie"], [ProcessId.from_json(entry) for entry in kept["processes"]])


def _container(kept: dict[str, Any]) -> Container | None:
    return None if kept["container"] is None else Container(**kept["container"])
