"""What a report holds of each cell, and what weakens it: a target's repeats, its state, its doubts, once each.

In: results of repeats. Out: the structs that a `RunReport` is made of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from loadgen.judge import Judgement
from loadgen.repeat import Result
from loadgen.summary import Doubt, Summary


class TargetCell(msgspec.Struct, frozen=True, kw_only=True):
    """One target in one cell: its results by repeat (None where one is missing) and what the objectives say.

    ``gpus`` is the number of its GPUs, None where nobody knows. ``doubts`` weaken what its repeats say together;
    ``routing`` weakens what is said of a mixture of experts.
    """

    target: str
    results: tuple[Result | None, ...]
    judgements: tuple[Judgement, ...] = ()
    gpus: int | None = None
    doubts: tuple[Doubt, ...] = ()
    routing: Doubt | None = None

    @property
    def summaries(self) -> list[Summary]:
        """The summaries that are there."""
        return [result.summary for result in self.results if result is not None]

    @property
    def state(self) -> str:
        """ok, invalid, failed or skipped, of the worst of its repeats that are there."""
        states = [summary.state for summary in self.summaries]
        return next((state for state in ("failed", "invalid", "ok") if state in states), "skipped")

    def by_repeat(self, value: Callable[[Result], float | None]) -> tuple[float | None, ...]:
        """Something of each repeat, None for one that is missing."""
        return tuple(value(result) if result is not None else None for result in self.results)

    @property
    def valid(self) -> list[Summary]:
        """The summaries that may be averaged: an invalid one never is."""
        return [summary for summary in self.summaries if summary.state == "ok"]


class ReportCell(msgspec.Struct, frozen=True, kw_only=True):
    """One cell of the matrix with the targets that are measured in it, in the scenario's order. ``routing`` is the kind
    of prompts of a cell of the routing check."""

    id: str
    axes: dict[str, Any]
    targets: tuple[TargetCell, ...]
    routing: str | None = None


class Warned(msgspec.Struct, frozen=True, kw_only=True):
    """A doubt or an invalidity, once, with the places it was found in."""

    code: str
    text: str
    where: tuple[str, ...]
    invalid: bool


def warnings_of(cells: tuple[ReportCell, ...]) -> list[Warned]:
    """Doubts of all repeats, each code once a target, with an example's text and the places."""
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
                for doubt in result.summary.invalid:
                    found.setdefault((doubt.code, target.target, True), []).append((where, doubt.text))
                for doubt in result.summary.doubts:
                    found.setdefault((doubt.code, target.target, False), []).append((where, doubt.text))
    merged: dict[tuple[str, str, bool], list[str]] = {}
    for (code, _, invalid), places in found.items():
        key = (code, places[0][1], invalid)
        merged.setdefault(key, []).extend(where for where, _ in places)
    return [
        Warned(code=code, text=text, where=tuple(where), invalid=invalid)
        for (code, text, invalid), where in sorted(merged.items(), key=lambda item: not item[0][2])
    ]
