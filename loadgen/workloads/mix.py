"""Several workloads at once, by weight: what a server that is shared by several uses is asked.

    prompts: mix
    mix:
      chat: {weight: 3, prompts: natural, output: {max: 300}}
      code: {weight: 1, prompts: synthetic, kind: words, words: 3000, output: {max: 60}}

A part has the settings that its source has anywhere else, and a weight (1 unless it is said). The workload's ``output``
holds for the parts that say none; all of them say ``exact``, or all ``max``. The name of its part is each record's
``source``, and the report has a row for each.

The shares hold exactly in every thousand sessions, whose order is a seeded permutation; each part goes through sessions
of its own, with a seed of its own. A trace has an order and times of its own, and is no part of a mix.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import msgspec

from loadgen.errors import UsageError
from loadgen.record import Prompt
from loadgen.workloads import Context, Conversing, Source
from loadgen.workloads.order import place
from loadgen.workloads.outline import Outline, outline_of
from loadgen.workloads.replies import asked, open_source

EVERY = 1000
"""Sessions in which the shares are exact."""

_NO_PARTS = ("mix", "trace")


class Part(NamedTuple):
    """One workload of the mix, and how many of `EVERY` sessions are its."""

    name: str
    source: Source
    sessions: int


class Mix:
    """The sessions of several workloads."""

    name = "mix"
    size: int | None = None

    def __init__(self, parts: Sequence[Part], seed: int) -> None:
        self._parts = parts
        self._ends = list(accumulate(part.sessions for part in parts))
        self._seed = seed

    def session(self, index: int) -> tuple[Prompt, ...]:
        """The prompts of a session, with the name of their part for their source."""
        number, inner = self._at(index)
        part = self._parts[number]
        return tuple(msgspec.structs.replace(prompt, source=part.name) for prompt in part.source.session(inner))

    def outline(self, index: int) -> Outline:
        """The outline of the part's session; parts share no blocks."""
        number, inner = self._at(index)
        outline = outline_of(self._parts[number].source, inner)
        blocks = tuple((hash((number, block)), tokens) for block, tokens in outline.blocks)
        return msgspec.structs.replace(outline, source=self._parts[number].name, blocks=blocks)

    def describe(self) -> dict[str, Any]:
        """The share of each part, and what it is."""
        parts = {part.name: {"share": part.sessions / EVERY, **part.source.describe()} for part in self._parts}
        return {"kind": self.name, "size": None, "parts": parts}

    def _at(self, index: int) -> tuple[int, int]:
        """Which part a session is of, and which session of that part it is."""
        slot = place(index, EVERY, self._seed)
        number = bisect_right(self._ends, slot)
        part = self._parts[number]
        return number, index // EVERY * part.sessions + slot - (self._ends[number] - part.sessions)


class MixTalk(Mix):
    """A mix with conversations in it."""

    def turn(self, index: int, turn: int, replies: Sequence[str]) -> Prompt:
        """A later turn of a conversation."""
        number, inner = self._at(index)
        part = self._parts[number]
        assert isinstance(part.source, Conversing)
        return msgspec.structs.replace(part.source.turn(inner, turn, replies), source=part.name)


def open(settings: dict[str, Any], context: Context) -> Mix:
    """The mix of these workloads. Raises UsageError that names the part for one that cannot be used."""
    said = settings.get("mix")
    if set(settings) != {"mix"} or not isinstance(said, Mapping) or len(said) < 2:
        raise UsageError(
            "workload.mix: prompts: mix takes one setting, at least two workloads by name: mix: {chat: {weight: 3, "
            "prompts: natural}, code: {weight: 1, prompts: synthetic, kind: words, words: 3000}}."
        )
    weights = {str(name): _weight(str(name), words) for name, words in said.items()}
    counts = _shares(weights)
    sources = [_source(str(name), words, context) for name, words in said.items()]
    parts = [Part(name, source, counts[name]) for name, source in zip(weights, sources, strict=True)]
    return (MixTalk if any(isinstance(one, Conversing) for one in sources) else Mix)(parts, context.seed)


def _weight(name: str, words: Any) -> float:
    if not isinstance(words, Mapping) or not isinstance(words.get("prompts"), str):
        raise UsageError(f"workload.mix.{name}: must be a workload with prompts: the name of its source.")
    if words["prompts"] in _NO_PARTS:
        raise UsageError(f"workload.mix.{name}.prompts: {words['prompts']} cannot be a part of a mix.")
    weight = words.get("weight", 1)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < 1e9:
        raise UsageError(f"workload.mix.{name}.weight: must be a number above 0, not {weight!r}.")
    return float(weight)


def _shares(weights: Mapping[str, float]) -> dict[str, int]:
    """Sessions of `EVERY` by part, by largest remainder. Raises UsageError for a part that would have none."""
    total = sum(weights.values())
    exact = {name: weight / total * EVERY for name, weight in weights.items()}
    counts = {name: int(share) for name, share in exact.items()}
    rest = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in rest[: EVERY - sum(counts.values())]:
        counts[name] += 1
    for name, count in counts.items():
        if count == 0:
            raise UsageError(
                f"workload.mix.{name}.weight: {weights[name]:g} of {total:g} is under 1 in {EVERY}; leave it out."
            )
    return counts


def _source(name: str, words: Mapping[str, Any], context: Context) -> Source:
    settings = {key: value for key, value in words.items() if key not in ("weight", "prompts", "output")}
    seed = int.from_bytes(hashlib.sha256(f"{context.seed}:{name}".encode()).digest()[:6], "big")
    mine: dict[str, Any] = {"seed": seed}
    if "output" in words and not context.probe:
        mine |= asked(f"workload.mix.{name}.output", words["output"] or {})
        if mine["exact"] != context.exact:
            raise UsageError(
                f"workload.mix.{name}.output: exact and max do not mix; say what workload.output says, "
                f"{'exact' if context.exact else 'max'}."
            )
    try:
        return open_source(words["prompts"], settings, msgspec.structs.replace(context, **mine))
    except UsageError as error:
        raise UsageError(f"workload.mix.{name}: {error}") from error
