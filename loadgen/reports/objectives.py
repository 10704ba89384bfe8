"""What became of the objectives, in sentences: shared by the terminal, Markdown and the page.

In: a `RunReport`. Out: lines that begin with a mark.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from loadgen.assemble import RunReport
from loadgen.judge import Judgement
from loadgen.metrics import METRICS
from loadgen.scenario import parse_objective
from loadgen.shown import number


class Marks(NamedTuple):
    """How an objective that is met, missed, or cannot be judged is marked."""

    met: str
    missed: str
    unknown: str

    def of(self, met: bool | None) -> str:
        """The mark of a judgement."""
        return self.unknown if met is None else self.met if met else self.missed


UNICODE = Marks("✓", "✗", "?")
ASCII = Marks("ok", "MISSED", "?")


def lines(report: RunReport, marks: Marks) -> list[str]:
    """One line for each objective that all cells meet; for the others one line a cell and target that does not."""
    found: dict[str, list[tuple[str, Judgement]]] = {}
    for cell in report.cells:
        for target in cell.targets:
            for judgement in target.judgements:
                found.setdefault(judgement.text, []).append((f"{cell.id}, {target.target}", judgement))
    said = []
    for text, places in found.items():
        met = [judgement for _, judgement in places if judgement.met]
        if len(met) == len(places):
            said.append(f"{marks.met} {text}: met {_everywhere(len(places))}, {_worst(met)}{_few(met)}")
            continue
        if met:
            said.append(f"{marks.met} {text}: met in {len(met)} of {len(places)} places")
        said += _not_met(text, places, marks)
    return said


def _not_met(text: str, places: Sequence[tuple[str, Judgement]], marks: Marks) -> Iterator[str]:
    """A line for each place that misses an objective, and one for all that cannot be judged for the same reason."""
    unknown: dict[str, list[str]] = {}
    for where, judgement in places:
        if judgement.value is not None and not judgement.met:
            yield f"{marks.of(judgement.met)} {text}: {where}: {_with_unit(judgement)} ({judgement.why})"
        elif not judgement.met:
            unknown.setdefault(f"{marks.of(judgement.met)} {text}: {judgement.why}", []).append(where)
    for why, some in unknown.items():
        yield f"{why} ({some[0] if len(some) == 1 else f'{len(some)} places, first {some[0]}'})"


def _few(met: Sequence[Judgement]) -> str:
    """What weakens those that were judged without the statistic that was asked for, in the words of the first."""
    few = [one.why for one in met if "too few" in one.why]
    some = "" if len(few) == len(met) else f"in {len(few)} of them "
    return f"; {some}{few[0]}" if few else ""


def _everywhere(count: int) -> str:
    return "here" if count == 1 else f"in all {count} places"


def _worst(judgements: Sequence[Judgement]) -> str:
    known = sorted((one for one in judgements if one.value is not None), key=lambda one: one.value or 0.0)
    low, high = _with_unit(known[0]), _with_unit(known[-1])
    return f"value {low}" if low == high else f"values {low} to {high}"


def _with_unit(judgement: Judgement) -> str:
    """What was held against the limit, as people read it: ``219.0 ms``, ``0.500 %``."""
    unit, scale = METRICS[parse_objective(judgement.text).metric].read_in
    return f"{number(judgement.value, scale)} {unit}".rstrip()
