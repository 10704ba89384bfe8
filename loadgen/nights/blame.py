"""What changed between two nights of a series: the versions and settings to look at when it got worse.

In: what two runs wrote of a target. Out: changes, in words. Nothing here says what is to blame; it says what is not
the same, and a regression with nothing changed is one of the machine or of what runs beside it. Pure functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from loadgen.fair.facts import FOUND, facts_of, scenario_of
from loadgen.fair.fairness import KV_TOLERANCE
from loadgen.plan import Plan

_NO_CHANGE = ("target", "place", "image_policy")
_LONGEST = 100


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was ``before`` and is ``after``; None where it is not known, or not set."""

    what: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        said = self.what.startswith(FOUND)
        what = f"the engine's {self.what.removeprefix(FOUND)}" if said else self.what
        return f"{what} {_words(self.before)} -> {_words(self.after)}"


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[Change]:
    """What differs between two sheets (see `sheet`; `Point.facts` will do), in the order of the later one. Words of the
    scenario that a fact already tells are left out, and what an engine came to where it is what an option says."""
    found = [Change(what=name, before=old, after=new) for name, old, new in _differing(before, after)]
    told = {change.what.rpartition(".")[2] for change in found if not change.what.startswith("scenario.")}
    asked = {(change.what, change.before, change.after) for change in found}
    return [
        one
        for one in found
        if not (one.what.startswith("scenario.") and one.what.rpartition(".")[2] in told)
        and not (one.what.startswith(FOUND) and (one.what.removeprefix(FOUND), one.before, one.after) in asked)
    ]


def sheet(described: Mapping[str, Any], plan: Plan, cell: str, target: str) -> dict[str, str]:
    """All that a run wrote of a target in a cell: its facts, the versions of what measures, the clocks and the power
    that the GPUs of its machine are held to, the words of the scenario. ``described`` is run.json."""
    scenario = scenario_of(described, plan, cell)
    own = {"target": (scenario.get("targets") or {}).get(target)}
    words = own | {name: scenario.get(name) for name in ("workload", "load", "seed", "repeats", "comparison")}
    found = facts_of(described, plan, cell, target)
    found |= {f"versions.{name}": str(value) for name, value in (described.get("versions") or {}).items()}
    found.pop("versions.loadgen", None)  # a fact already
    for i, gpu in enumerate((described.get("machine") or {}).get("gpus") or ()):
        limits = {name: value for name, value in gpu.items() if name not in ("name", "driver")}  # facts as well
        found |= dict(_flat(f"gpu{i}", limits))
    return found | dict(_flat("scenario", words))


def _differing(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[tuple[str, str | None, str | None]]:
    for name in dict.fromkeys((*after, *before)):
        old, new = before.get(name), after.get(name)
        timed = name.startswith(FOUND) and name.endswith("_s")  # how long a start took is another each time
        if old != new and name not in _NO_CHANGE and not timed and not (name == "kv_tokens" and _near(old, new)):
            yield name, old, new


def _near(old: str | None, new: str | None) -> bool:
    """KV capacity differs a little at every start."""
    try:
        a, b = float(old or ""), float(new or "")
    except ValueError:
        return False
    return abs(a - b) <= KV_TOLERANCE * max(a, b)


def _flat(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(f"{path}.{name}", inner)
    elif value is not None:
        yield path, value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _words(value: str | None) -> str:
    if value is None:
        return "(not known)"
    return value if len(value) <= _LONGEST else f"{value[: _LONGEST - 4]} ..."
