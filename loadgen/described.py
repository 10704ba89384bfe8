"""What ``run.json`` says of a run when it begins: what is run, by which versions, on which machine.

In: the scenario and its cells. Out: plain data for the store.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from loadgen import host
from loadgen.limits.served import Serving, serving
from loadgen.noise import remember
from loadgen.ownership import this_owner
from loadgen.scenario import Cell, Loaded, public_dict
from loadgen.store import Run
from loadgen.telemetry.nvml import idle_watts

SCHEMA = 1


def description(run: Run, loaded: Loaded, cells: Mapping[str, Cell], shard: Any) -> dict[str, Any]:
    """The whole of it, for a run that starts now; ``shard`` is which part of a load it drives, None for all of it."""
    return {
        "schema": SCHEMA,
        "run": run.id,
        "status": "running",
        **this_owner(),
        "started": utc(),
        "ended": None,
        "scenario_path": str(loaded.path),
        "scenario": public_dict(loaded.scenario),
        "profile": loaded.profile,
        "profile_reason": loaded.profile_reason,
        "seed": loaded.scenario.seed,
        "versions": host.versions(),
        "machine": host.fingerprint(),
        "idle_watts": idle_watts(),
        "served": served(loaded, cells),
        "noise": remember(run.folder.parents[2], host.fingerprint(), loaded.scenario, cells),
        "servers": {},
        "failures": [],
        "shard": shard,
    }


def placed(run: Run) -> dict[str, Any]:
    """What a run that goes on measuring now has to say of where. Each machine that is another one, in words, than where
    it began is added to ``elsewhere``: pairs are whole on one machine, averages are not."""
    began, here = run.read("run.json"), host.fingerprint()
    if host.machine_words(here) == host.machine_words(began["machine"]):
        return began
    return {**began, "elsewhere": [*began.get("elsewhere", ()), {"since": utc(), "machine": here}]}


def served(loaded: Loaded, cells: Mapping[str, Cell]) -> Serving:
    """What the targets of the cells serve, as far as their files are here by now."""
    return serving(list(cells.values()), loaded.path.parent.absolute())


def utc() -> str:
    """Now, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
