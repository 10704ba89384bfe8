"""What a report holds of each cell, and what weakens it: a target's repeats, its state, its doubts, once each.

In: results of repeats, and what the store says of those that have none. Out: the structs that a `RunReport` is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from loadgen.host import machine_words
from loadgen.judge import Judgement
from loadgen.metrics import Measure
from loadgen.plan import Plan
from loadgen.repeat import Result
from loadgen.search.verdict import answers
from loadgen.store import Repeat, Run
from loadgen.summary import Doubt, Summary

Ahead = Literal["running", "waiting"]
"""What a repeat without a result is in a run that goes on: it is being measured, or its turn has not come."""


OUT_OF_TIME, MISSING = "out_of_time", "missing"
"""The codes of what a run did not come to: its time was up, or it was ended otherwise."""

_TOKEN_RATES = ("output_tok_s", "total_tok_s")


class Again(msgspec.Struct, frozen=True, kw_only=True):
    """A repeat that was measured again. ``attempt`` is the one that counts now, None where there is none yet;
    ``before`` is the one that was set aside, ``state`` and ``why`` what was wrong with it. ``why`` is empty where
    nothing was, and it is here for the sake of its block."""

    target: str
    rep: int
    attempt: int | None
    before: int
    state: str
    why: str = ""


class TargetCell(msgspec.Struct, frozen=True, kw_only=True):
    """One target in one cell: its results by repeat (None where one is missing) and what the objectives say.

    ``gpus`` is the number of its GPUs, None where nobody knows. ``doubts`` weaken what its repeats say together;
    ``routing`` weakens what is said of a mixture of experts. ``ahead`` are the repeats, by number, that a run which
    goes on has not come to the end of; ``again`` those that were measured again, an attempt each. ``probed`` says that
    its repeats are windows of a search.
    """

    target: str
    results: tuple[Result | None, ...]
    judgements: tuple[Judgement, ...] = ()
    gpus: int | None = None
    doubts: tuple[Doubt, ...] = ()
    routing: Doubt | None = None
    ahead: dict[int, Ahead] = {}
    again: tuple[Again, ...] = ()
    probed: bool = False

    @property
    def summaries(self) -> list[Summary]:
        """The summaries that are there."""
        return [result.summary for result in self.results if result is not None]

    @property
    def whole(self) -> list[Summary | None]:
        """The summary of each repeat that was not interrupted, None for one that was, or is missing."""
        return [None if result is None or result.interrupted else result.summary for result in self.results]

    @property
    def state(self) -> str:
        """ok, invalid or failed, of the worst of its repeats that are there; of a search ok if a window answers. Where
        none is there: running or waiting in a run that goes on, else skipped."""
        if self.probed and self.valid:
            return "ok"
        states = [*(summary.state for summary in self.summaries), *self.ahead.values()]
        return next(
            (state for state in ("failed", "invalid", "ok", "running", "waiting") if state in states), "skipped"
        )

    @property
    def stands(self) -> str:
        """The state as tables show it, loud where something is wrong; beside it that a repeat is being measured."""
        state = self.state.upper() if self.state in ("failed", "invalid", "skipped") else self.state
        return f"{state}, running" if self.summaries and "running" in self.ahead.values() else state

    def by_repeat(self, value: Callable[[Result], float | None]) -> tuple[float | None, ...]:
        """Something of each repeat, None for one that is missing."""
        return tuple(value(result) if result is not None else None for result in self.results)

    def vouched(self, summary: Summary) -> bool:
        """Whether a repeat says something of the server. A window of a search does in an overload, too, in which
        requests were dropped or nothing was answered: what the server could not do is no fault of the client."""
        return answers(summary) if self.probed else summary.state == "ok"

    @property
    def good(self) -> list[Result]:
        """The repeats that may be averaged: an invalid one never is."""
        return [result for result in self.results if result is not None and self.vouched(result.summary)]

    @property
    def valid(self) -> list[Summary]:
        """Their summaries."""
        return [result.summary for result in self.good]


def value_of(summary: Summary, what: Measure) -> float | None:
    """A measure of a repeat that may be averaged. Where requests ran in step a window of a search answers all the same,
    but has no token rates."""
    if what.metric in _TOKEN_RATES and any(doubt.code == "one_phase" for doubt in summary.invalid):
        return None
    return summary.get(what)


class ReportCell(msgspec.Struct, frozen=True, kw_only=True):
    """One cell of the matrix with the targets that are measured in it, in the scenario's order. ``routing`` is the kind
    of prompts of a cell of the routing check."""

    id: str
    axes: dict[str, Any]
    targets: tuple[TargetCell, ...]
    routing: str | None = None

    @property
    def again(self) -> list[Again]:
        """What of it was measured again, by target."""
        return [one for target in self.targets for one in target.again]


def ahead_of(run: Run, plan: Plan, described: Mapping[str, Any]) -> dict[tuple[str, str, int], Ahead]:
    """By cell, target and number: the repeats that a run which goes on has not come to the end of; none where it is
    over."""
    if described.get("status") != "running":
        return {}
    places = [(step.cell, step.target, step.rep) for step in plan.steps]
    attempt = run.measuring()
    repeat = None if attempt is None else Repeat(attempt.parent)
    now = None if repeat is None else (repeat.cell, repeat.target, repeat.rep)
    first = places.index(now) if now in places else 0
    return {place: "running" if place == now else "waiting" for place in places[first:]}


def again_of(repeat: Repeat, attempt: int | None) -> list[Again]:
    """The attempts at a repeat that were set aside; ``attempt`` is the one that counts."""
    return [
        Again(target=repeat.target, rep=repeat.rep, attempt=attempt, before=one.attempt, state=one.state, why=one.why)
        for one in repeat.set_aside()
    ]


def again_lines(cell: str, found: Sequence[Again]) -> Iterator[str]:
    """A sentence for every attempt of a cell that was set aside for its own sake, and one for those beside them."""
    for one in found:
        if one.why:
            now = "to be measured again" if one.attempt is None else f"attempt {one.attempt}"
            yield f"{cell}: repeat {one.rep} of {one.target}: {now}; attempt {one.before} was {one.state}: {one.why}"
    beside: dict[str, dict[int, None]] = {}
    bad = {(one.target, one.rep) for one in found if one.why}
    for one in found:
        if (one.target, one.rep) not in bad:
            beside.setdefault(one.target, {})[one.rep] = None
    if beside:
        names = ", ".join(f"{_numbers(list(reps))} of {target}" for target, reps in beside.items())
        yield f"{cell}: measured again beside that, since a block (ABBA) is measured in one stretch: {names}"


def _numbers(reps: Sequence[int]) -> str:
    head = ", ".join(map(str, reps[:-1]))
    return f"repeats {head} and {reps[-1]}" if head else f"repeat {reps[0]}"


class Warned(msgspec.Struct, frozen=True, kw_only=True):
    """A doubt or an invalidity, once, with the places it was found in. ``text`` is that of the first of them; where
    ``varies``, others have numbers of their own."""

    code: str
    text: str
    where: tuple[str, ...]
    invalid: bool
    varies: bool = False


def place_of(cell: str, target: str, rep: int) -> str:
    """A repeat for people, which sentences of failures begin with."""
    return f"{cell}, {target}, repeat {rep}"


def missing_of(cell: str, target: TargetCell, described: Mapping[str, Any]) -> list[int]:
    """The repeats of a target, by number, that were planned and are not whole, without a failure that says why. What a
    run that goes on has still to come to is not missing."""
    missing = [
        number
        for number, result in enumerate(target.results, 1)
        if (result is None or result.interrupted) and number not in target.ahead
    ]
    failures = [str(text) for text in described.get("failures") or ()]
    places = {number: f"{place_of(cell, target.target, number)}: " for number in missing}
    return [
        number
        for number in missing
        if not any(text.startswith(places[number]) or f": {places[number]}" in text for text in failures)
    ]


def too_late(cell: str, target: TargetCell, described: Mapping[str, Any]) -> list[int]:
    """The repeats of a target, by number, that a run whose time was up left out, or cut short. One that failed had its
    time."""
    return missing_of(cell, target, described) if described.get("out_of_time") else []


def not_come_to(cells: Sequence[ReportCell], described: Mapping[str, Any]) -> list[Warned]:
    """What a run was planned for and did not come to, or cut short: its time was up, or it was ended, or a part of it
    was, or files of it are gone."""
    where = [
        place_of(cell.id, target.target, number)
        for cell in cells
        for target in cell.targets
        for number in missing_of(cell.id, target, described)
    ]
    code, text = MISSING, "This was planned, and is not there: the run was ended before it, or its files are gone."
    if described.get("out_of_time"):
        code, text = OUT_OF_TIME, "The time was up before this was measured."
    return [Warned(code=code, text=text, where=tuple(where), invalid=False)] if where else []


def elsewhere(described: Mapping[str, Any]) -> list[Warned]:
    """That a run went on on another machine, if it did."""
    places = [machine_words(place["machine"]) for place in described.get("elsewhere") or ()]
    if not places:
        return []
    text = (
        f"The run began on {machine_words(described['machine'])} and went on on {' and '.join(dict.fromkeys(places))}: "
        "a pair was measured on one machine, but figures of single targets are averages over both."
    )
    return [Warned(code="elsewhere", text=text, where=("the run",), invalid=False)]


def warnings_of(cells: tuple[ReportCell, ...]) -> list[Warned]:
    """Doubts of all repeats, each code once a target, with the first one's text and the places."""
    found: dict[tuple[str, str, bool], list[tuple[str, str]]] = {}
    for cell in cells:
        for target in cell.targets:
            for doubt in target.doubts:
                found.setdefault((doubt.code, target.target, False), []).append(
                    (f"{cell.id}, {target.target}", doubt.text)
                )
            for result in target.results:
                if result is None:
                    continue
                where = f"{cell.id}, {target.target}, repeat {result.rep}"
                invalid = not target.vouched(result.summary)
                for doubt in result.summary.invalid:
                    found.setdefault((doubt.code, target.target, invalid), []).append((where, doubt.text))
                for doubt in result.summary.doubts:
                    found.setdefault((doubt.code, target.target, False), []).append((where, doubt.text))
    merged: dict[tuple[str, str, bool], list[tuple[str, str]]] = {}
    for (code, _, invalid), places in found.items():
        merged.setdefault((code, places[0][1], invalid), []).extend(places)
    return [
        Warned(
            code=code,
            text=text,
            where=tuple(where for where, _ in places),
            invalid=invalid,
            varies=any(said != text for _, said in places),
        )
        for (code, text, invalid), places in sorted(merged.items(), key=lambda item: not item[0][2])
    ]
