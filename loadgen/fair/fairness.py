"""What differs between two targets besides what is meant to differ: the gate before any verdict.

In: what a run wrote of a target (run.json and the plan), as facts in words. Out: sentences. A difference that was not
declared in ``comparison.factor`` forbids a verdict; what is known of one side only, or cannot matter much, is a doubt.
The words are in ``scenario/factors.py``; pure functions, so that stored runs are held against each other alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from loadgen.comparing.compare import MAX_CACHED_DIFFERENCE
from loadgen.comparing.comparison import CellPairs, Comparison, Sides
from loadgen.fair import gates
from loadgen.fair.facts import FOUND, NAMES, facts_of, scenario_of, starts_of
from loadgen.fair.fingerprint import Fingerprint, key_of
from loadgen.plan import Plan
from loadgen.repeat import Result
from loadgen.scenario.factors import FACTORS, covered
from loadgen.summary import Doubt
from loadgen.telemetry.measured import throttled

MINOR = ("host", "kernel", "prompts.seed", "python", "devices", "kv_tokens")
"""What may differ between two instances of the very same thing, or two draws of its prompts: a doubt, no difference."""

KV_TOLERANCE = 0.05
"""KV capacity may differ by this much between two starts of one server."""

ASKED = ("template", "output", "stream", "prompts", "sampling", "request", "exact", "load", "driver", "endpoint")
"""What the scenario alone decides: one that is not stated is not set."""

SAID = ("model", "weights", "revision", "engine", "engine_version", "backend", "loadgen", "machine", "throttled")
SAID_OF_GPUS = ("gpu", "gpus", "gpu_driver")
"""What is found out: one that is not stated is not known."""

OF_ENDPOINT = ("engine", "engine_version", "dtype", "quantization", "gpu")
"""What one would want to know of an endpoint."""

NOT_OF_SERVERS = (*MINOR, "load", "driver", "loadgen", "machine", "gpus", "gpu_driver", "cpus", "endpoint", "throttled")
"""Factors that do not change what a server answers to one request at a time."""

_LENGTH = 100


def differences(baseline: Mapping[str, str], candidate: Mapping[str, str], declared: Sequence[str]) -> tuple[str, ...]:
    """A sentence for everything that differs and is not declared: "dtype is float16 for a and bfloat16 for b".

    What is not known of a side is no difference: see `doubts`.
    """
    return tuple(
        f"{name} is {_words(a)} for {_name(baseline)} and {_words(b)} for {_name(candidate)}"
        for name, a, b in _unequal(baseline, candidate, declared)
        if name not in MINOR and ((a and b) or _stated(name, baseline, candidate))
    )


def doubts(baseline: Mapping[str, str], candidate: Mapping[str, str], declared: Sequence[str]) -> tuple[Doubt, ...]:
    """What may differ: values that are not known of a side, and what two instances of one thing differ in."""
    found = []
    unknown = {
        _name(side): ", ".join(_unknown(side, other, declared))
        for side, other in ((baseline, candidate), (candidate, baseline))
    }
    for names in dict.fromkeys(filter(None, unknown.values())):
        sides = " and ".join(side for side, theirs in unknown.items() if theirs == names)
        found.append(Doubt("unknown_factor", f"Not known of {sides}: {names}. What is not declared may differ there."))
    alike = all(name in MINOR for name, _, _ in _unequal(baseline, candidate, ()))
    for name, a, b in _unequal(baseline, candidate, declared):
        if name in MINOR and a and b and not (name == "kv_tokens" and (not alike or _near(a, b))):
            text = f"{name} is {_words(a)} for {_name(baseline)} and {_words(b)} for {_name(candidate)}."
            found.append(Doubt("minor_difference", text))
    return tuple(found)


def note(declared: Sequence[str], found: Sequence[str]) -> str:
    """What was declared, and what differs besides, in one line for the report."""
    rest = "; ".join(dict.fromkeys(found)) or "nothing that is known"
    return f"Declared to differ: {', '.join(declared) or 'nothing'}. Also different: {rest}."


def with_note(comparison: Comparison, pairs: Sequence[CellPairs], declared: Sequence[str]) -> Comparison:
    """The comparison of these pairs with the `note` on what was found before it."""
    found = [text for one in pairs for text in one.differences]
    said = note(declared, found) + (" What is meant to differ is named in comparison.factor." if found else "")
    return msgspec.structs.replace(comparison, notes=(said, *comparison.notes))


# Both sides -----------------------------------------------------------------------------------------------------------


class Side(msgspec.Struct, frozen=True):
    """One side of a comparison in one cell: its facts, and the fingerprints of its servers where it has any."""

    facts: Mapping[str, str]
    fingerprints: Sequence[Fingerprint] = ()

    def named(self, name: str) -> Side:
        """The same under another name in sentences."""
        return replace(self, facts={**self.facts, "target": name})


class Kept(msgspec.Struct, frozen=True):
    """What a run kept of its targets besides their results: run.json, the plan, all fingerprints."""

    described: Mapping[str, Any]
    plan: Plan
    fingerprints: Sequence[Fingerprint] = ()

    def side(self, cell: str, target: str, results: Sequence[Result | None] = ()) -> Side:
        """A target in a cell; what its repeats' telemetry says of it counts where they are given."""
        key = key_of(scenario_of(self.described, self.plan, cell), target)
        own = [found for found in self.fingerprints if (found.target, found.key) == (target, key)]
        starts = starts_of(self.plan, cell, target, [found.server for found in own if found.server is not None])
        taken = tuple(found for found in own if found.server is None or found.server in starts)
        slowed = throttled([result.telemetry for result in results if result is not None])
        more = {} if slowed is None else {"throttled": slowed}
        return Side(facts_of(self.described, self.plan, cell, target) | more, taken)


def same_replies(baseline: Side, candidate: Side) -> str | None:
    """How far two sides of one model can be seen to be the same model; None where that was not asked alike."""
    found = gates.alike(baseline.fingerprints, candidate.fingerprints)
    if found is None or _value(baseline.facts, "model") != _value(candidate.facts, "model"):
        return None
    names = f"{_name(baseline.facts)} and {_name(candidate.facts)}"
    return f"{found[0]} of {found[1]} greedy probes got the same reply from {names}."


def held(pairs: CellPairs, baseline: Side, candidate: Side, declared: Sequence[str]) -> CellPairs:
    """A cell's pairs with what both sides differ in besides what is declared, and with what weakens comparing them."""
    facts = (baseline.facts, candidate.facts)
    a, b = ((_name(side.facts), side.fingerprints) for side in (baseline, candidate))
    found = dict.fromkeys((*differences(*facts, declared), *gates.differences(a, b, declared)))
    same = all(name in NOT_OF_SERVERS for name in (*declared, *(name for name, _, _ in _unequal(*facts, ()))))
    cached = Sides() if "prefix_caching" in declared else pairs.cached
    weak = (*doubts(*facts, declared), *gates.doubts(a, b, declared, same), *_half_known(pairs, cached))
    return msgspec.structs.replace(
        pairs,
        differences=(*pairs.differences, *found),
        doubts=(*pairs.doubts, *weak),
        cached=cached,
    )


def _half_known(pairs: CellPairs, cached: Sides) -> Iterator[Doubt]:
    """A doubt where one side had warm prompts and the other does not say."""
    known = [[share for share in side if share is not None] for side in (cached.baseline, cached.candidate)]
    for (name, other), mine, theirs in zip(
        ((pairs.baseline, pairs.candidate), (pairs.candidate, pairs.baseline)), known, reversed(known), strict=True
    ):
        if mine and not theirs and sum(mine) / len(mine) > MAX_CACHED_DIFFERENCE:
            text = f"{sum(mine) / len(mine) * 100:.3g} % of the prompt tokens of {name} came from its prefix cache"
            yield Doubt("cached_half_known", f"{text}, and {other} does not say how many of its own did.")


# Differences ----------------------------------------------------------------------------------------------------------


def _unequal(
    baseline: Mapping[str, str], candidate: Mapping[str, str], declared: Sequence[str]
) -> Iterator[tuple[str, str | None, str | None]]:
    """Every factor whose values are not the same, with both, None where one is not stated; the declared ones are left
    out. What an engine came to stands in for an option that a side does not set. The greatest come first."""
    free = covered(declared)
    order = [*FACTORS]
    names = dict.fromkeys((*baseline, *candidate, "dtype", "quantization"))
    for name in sorted(names, key=lambda name: order.index(word) if (word := _word(name)) in order else len(order)):
        if name in NAMES or name.startswith(FOUND) or _word(name) in free:
            continue
        a, b = _value(baseline, name), _value(candidate, name)
        if a != b:
            yield name, a, b


def _value(facts: Mapping[str, str], name: str) -> str | None:
    """A fact; where an option is not set, what the engine came to."""
    return facts.get(name) or facts.get(FOUND + name)


def _word(name: str) -> str:
    """The factor that a fact belongs to."""
    return name.partition(".")[0]


def _words(value: str | None) -> str:
    if value is None:
        return "not set"
    return value if len(value) <= _LENGTH else f"{value[: _LENGTH - 4]} ..."


def _stated(name: str, baseline: Mapping[str, str], candidate: Mapping[str, str]) -> bool:
    """True if a factor that has no value is not set, rather than not known. An option that another engine lacks, or an
    endpoint's, is not known."""
    word = _word(name)
    if word in ASKED:  # of a result of another tool nothing is known but who sent, and in which shape
        return word in ("driver", "load") or "imported" not in (baseline.get("place"), candidate.get("place"))
    launched = all(facts.get("place") == "launched" for facts in (baseline, candidate))
    return word not in (*SAID, *SAID_OF_GPUS) and launched and baseline.get("engine") == candidate.get("engine")


def _unknown(side: Mapping[str, str], other: Mapping[str, str], declared: Sequence[str]) -> list[str]:
    """What is not known of a side, and is of the other or should be."""
    names = [
        name
        for name, a, b in _unequal(side, other, declared)
        if a is None and name not in MINOR and not _stated(name, side, other)
    ]
    if side.get("place") in ("endpoint", "imported"):
        names += OF_ENDPOINT
    elif side.get("model") != other.get("model"):
        names.append("dtype")  # each model's own, unless somebody says
    free = covered(declared)
    return [name for name in dict.fromkeys(names) if _value(side, name) is None and _word(name) not in free]


def _near(a: str, b: str) -> bool:
    """KV capacity is an effect of everything else, so it says something only where all that is alike."""
    return abs(float(a) - float(b)) <= KV_TOLERANCE * max(float(a), float(b))


def _name(facts: Mapping[str, str]) -> str:
    return facts.get("target", "a side")
