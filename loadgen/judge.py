"""Objectives -> judgements: did this target in this cell keep what was asked of it?

An objective is judged by the mean over the repeats of the statistic of each repeat. Percentiles of pooled requests are
not used: a pooled p99 is that of the worst repeat. A percentile that is blank for want of samples is still judged where
the whole sample lies on one side of the limit; else the answer is "not known", which is neither a tick nor a cross.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import msgspec

from loadgen.metrics import METRICS, PERCENTILES, Measure, find
from loadgen.search.verdict import Objective
from loadgen.statistics import floor_of
from loadgen.summary import Distribution, Limit, Summary


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """One objective in one cell. ``met`` is None where it cannot be known; ``why`` says how it was judged, or why not.

    ``value`` is what was held against ``limit``, None where nothing was.
    """

    text: str
    value: float | None
    limit: float
    met: bool | None
    why: str

    @property
    def mark(self) -> str:
        """A tick, a cross, or a question mark."""
        return {True: "✓", False: "✗", None: "?"}[self.met]


def judge(objectives: Sequence[Objective], repeats: Sequence[Summary | None]) -> list[Judgement]:
    """Every objective against the repeats of one target in one cell; None stands for a repeat that is missing."""
    return [_judge(objective, [repeat for repeat in repeats if repeat is not None]) for objective in objectives]


def limits(objectives: Sequence[Objective]) -> dict[str, float]:
    """The limits that one request must keep to count as good, from the objectives on request metrics.

    Of several on one metric (p50 < 0.2 s, p99 < 0.5 s) the loosest is the one that every request is asked to keep.
    """
    found: dict[str, float] = {}
    for limit in asked(objectives):
        loosest = max if METRICS[limit.metric].better == "lower" else min
        found[limit.metric] = loosest(limit.value, found.get(limit.metric, limit.value))
    return found


def asked(objectives: Sequence[Objective]) -> tuple[Limit, ...]:
    """What each objective by itself asks of single requests; one that asks for what nobody minds asks nothing."""
    metrics = [(objective, find(objective.metric)) for objective in objectives]
    return tuple(
        Limit(objective.text, metric.name, objective.value)
        for objective, metric in metrics
        if metric.per == "request" and metric.better == ("lower" if objective.op in ("<", "<=") else "higher")
    )


def _judge(objective: Objective, repeats: Sequence[Summary]) -> Judgement:
    metric = find(objective.metric)
    what = Measure(metric.name, None if metric.per == "window" else objective.statistic or "p50")
    values = [repeat.get(what) for repeat in repeats]
    known = [value for value in values if value is not None]
    if not repeats:
        return _answer(objective, None, None, "no repeat was measured")
    if any(repeat.state == "invalid" for repeat in repeats):
        return _answer(objective, None, None, "a repeat is invalid")
    if len(known) == len(values):
        mean = sum(known) / len(known)
        how = "one repeat" if len(known) == 1 else f"mean of {len(known)} repeats"
        return _answer(objective, mean, _keeps(objective, mean), how + _certified(objective, what, repeats))
    samples = [getattr(repeat, what.metric) for repeat in repeats]
    blank = what.statistic if what.statistic in PERCENTILES else None
    if blank is None or not all(isinstance(one, Distribution) and one.n for one in samples):
        return _answer(objective, None, None, f"a repeat has no {METRICS[what.metric].label}")
    return _by_extremes(objective, blank, samples)


def _by_extremes(objective: Objective, statistic: str, samples: Sequence[Distribution]) -> Judgement:
    """A blank percentile, judged by the largest and the smallest value of all: both on one side decide."""
    n = min(sample.n for sample in samples)
    few = f"too few samples: n = {n}, {statistic} needs {floor_of(PERCENTILES[statistic])}"
    least, most = min(sample.min or 0.0 for sample in samples), max(sample.max or 0.0 for sample in samples)
    if _keeps(objective, least) and _keeps(objective, most):
        worst, name = (most, "largest") if objective.op in ("<", "<=") else (least, "smallest")
        return _answer(objective, worst, True, f"{few}; judged by the {name} value")
    if not _keeps(objective, least) and not _keeps(objective, most):
        best, name = (least, "smallest") if objective.op in ("<", "<=") else (most, "largest")
        return _answer(objective, best, False, f"{few}; judged by the {name} value")
    return _answer(objective, None, None, few)


def _certified(objective: Objective, what: Measure, repeats: Sequence[Summary]) -> str:
    """The certified upper limit where every repeat has one and it keeps the objective too."""
    held = [getattr(repeat, what.metric) for repeat in repeats]
    tails = [one.certified.get(what.statistic or "") for one in held if isinstance(one, Distribution)]
    known = [tail for tail in tails if tail is not None]
    if objective.op not in ("<", "<=") or len(known) < len(repeats) or not _keeps(objective, max(known)):
        return ""
    return f"; {what.statistic} is at most {max(known):.4g} with 99 % confidence in each"


def _keeps(objective: Objective, value: float) -> bool:
    compare = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}[objective.op]
    return bool(compare(value, objective.value))


def _answer(objective: Objective, value: float | None, met: bool | None, why: str) -> Judgement:
    return Judgement(text=objective.text, value=value, limit=objective.value, met=met, why=why)
