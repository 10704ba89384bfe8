"""A comparison in words: one sentence per measure and cell, one per measure and axis. Pure text, no statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loadgen.comparing.comparison import Compared, ComparedCell, Crossing, Crossings
from loadgen.metrics import METRICS, measure
from loadgen.statistics import Ratio, Verdict

INTERACTIVITY = "interactivity"
"""The axis of p50 decode_tok_s: tok/s a user."""

BATCH = "batch_seen"
"""The axis of the batches that the servers say they ran."""


def cell_name(axes: Mapping[str, int | float | str]) -> str:
    """`` at concurrency 16, rate_rps 4``; empty for a scenario without a matrix."""
    return " at " + ", ".join(f"{axis_name(axis)} {value}" for axis, value in axes.items()) if axes else ""


def axis_name(axis: str) -> str:
    """``concurrency`` of ``load.concurrency``."""
    return axis.rpartition(".")[2]


def sentence(cell: ComparedCell, compared: Compared) -> str:
    """``moe serves 1.43 times the output tok/s of dense at concurrency 16 [1.39, 1.47]: faster``."""
    where, ratio = cell_name(cell.axes), compared.ratio
    if compared.verdict is Verdict.INVALID:
        return f"{compared.label}{where} is invalid: {compared.why}"
    if compared.verdict is Verdict.NOT_COMPARABLE:
        return f"{cell.candidate} and {cell.baseline} are not comparable in {compared.label}{where}: {compared.why}"
    if ratio is None:
        return f"{cell.candidate} against {cell.baseline} in {compared.label}{where}: no ratio, {compared.why}"
    throughput = METRICS[measure(compared.measure).metric].per == "window" and compared.better == "higher"
    does = "serves" if throughput else "has"
    claim = (
        f"{cell.candidate} {does} {_number(ratio.value, ratio)} times the {compared.label} of {cell.baseline}{where} "
        f"{interval(ratio)}"
    )
    return claim if compared.verdict is None else f"{claim}: {compared.verdict}{_needed(compared)}"


def interval(ratio: Ratio) -> str:
    """``[1.39, 1.47]``, or the reason in parentheses why there is none."""
    if ratio.low is None or ratio.high is None:
        return f"({ratio.why})"
    return f"[{_number(ratio.low, ratio)}, {_number(ratio.high, ratio)}]"


def crossing_sentence(
    names: tuple[str, str], label: str | None, axis: str, span: tuple[float, float], found: Sequence[Crossing]
) -> str:
    """All crossings of one measure; ``names`` is (baseline, candidate), ``span`` the first and last value looked at.

    Without a label it goes on from words that named the candidate and the measure.
    """
    baseline, candidate = names
    subject, measured = (candidate, f" in {label}") if label else ("it", "")
    sure = [crossing for crossing in found if crossing.decided]
    unsure = [crossing for crossing in found if not crossing.decided]
    told = [
        f"{subject} {crossing.direction} {baseline}{measured} between "
        f"{_on_axis(axis, f'{_place(crossing.low)} and {_place(crossing.high)}')}{_at(crossing)}"
        for crossing in sure
    ]
    if not sure:
        where = _on_axis(axis, f"{_place(span[0])}..{_place(span[1])}") + (", which both ran" if axis == BATCH else "")
        told = [f"no crossing{f' of {candidate} and {baseline}{measured}' if label else ''} in {where}"]
    if unsure:
        places = ", ".join(f"between {_place(crossing.low)} and {_place(crossing.high)}" for crossing in unsure)
        told.append(f"the sign of the difference also changes {places}, where an interval still includes equality")
    return "; ".join(told)


def equal_sentence(found: Crossings, label: str, reach: Sequence[tuple[float, float]]) -> str:
    """The crossings at an equal batch or at equal interactivity; ``reach`` is the range of each side's own cells."""
    names, where = (found.baseline, found.candidate), cell_name(found.group)
    if found.first is None or found.last is None:
        apart = " and ".join(f"{name} {_place(a)}..{_place(b)}" for name, (a, b) in zip(names, reach, strict=True))
        what = _on_axis(found.axis, "").strip()
        return f"{found.candidate} and {found.baseline} have no {what} in common{where}: {apart}"
    named = None if found.axis == INTERACTIVITY else label + where
    told = crossing_sentence(names, named, found.axis, (found.first, found.last), found.crossings)
    if named is not None:
        decided = any(crossing.decided for crossing in found.crossings)
        return f"{told} (both ran {_place(found.first)}..{_place(found.last)})" if decided else told
    ends = " and ".join(
        f"{_number(one.ratio.value, one.ratio)} {interval(one.ratio)} times at {_place(one.x)} tok/s a user"
        for one in (found.equal[0], found.equal[-1])
    )
    what = f"{label} per {found.per}"
    return f"at equal interactivity{where} {found.candidate} serves the {what} of {found.baseline} {ends}; {told}"


def _on_axis(axis: str, words: str) -> str:
    return f"{words} tok/s a user" if axis == INTERACTIVITY else f"{axis_name(axis)} {words}"


def _place(x: float) -> str:
    """A whole number as it is, others to three digits."""
    return f"{x:.0f}" if x == round(x) or x >= 100 else f"{x:.3g}"


def _at(crossing: Crossing) -> str:
    if crossing.interval is None:
        return f", at about {_place(crossing.at)}"
    return f", at {_place(crossing.at)} [{_place(crossing.interval[0])}, {_place(crossing.interval[1])}]"


def _needed(compared: Compared) -> str:
    if compared.repeats_needed is None or compared.ratio is None:
        return ""
    if compared.repeats_needed >= 4 * compared.ratio.n:
        return f" ({compared.repeats_needed} repeats or more would be needed)"
    return f" (about {compared.repeats_needed} repeats would settle it)"


def _number(value: float, ratio: Ratio) -> str:
    """Two decimals; more where the interval is narrower than those would show, or an end of it would read as 1 that is
    not; two digits below 0.1."""
    return f"{value:.2g}" if value < 0.1 else f"{value:.{_decimals(ratio)}f}"


def _decimals(ratio: Ratio) -> int:
    ends = [end for end in (ratio.low, ratio.high) if end is not None and end != 1]
    least = 3 if ratio.half_width is not None and ratio.half_width < 0.01 else 2
    return next((digits for digits in range(least, 4) if all(round(end, digits) != 1 for end in ends)), 4)
