"""Did a load keep its objectives? From one window or several of it: met, missed, undecided, or no answer.

In: the summaries of a load's windows. Out: a `Trial`.

Every objective that a search takes is a share of requests: "p99 ttft < 0.5 s" allows 1 % of the requests to be slower,
"error_rate < 1 %" 1 % to fail, "goodput > 95 %" 5 % to miss any limit. The windows of a load have fresh prompts each
and are one sample of it; correlated requests count as the independent ones that they are worth. An objective is

* **met** if so few missed as happens once in a hundred tries where the allowed share does: MLPerf's early stopping, h
  requests under the limit and t over it, I_p(h, t + 1) < 1 - c with p = 1 - allowed and c = 0.99. Without a miss that
  takes 459 requests for p99 and for an error rate of 1 %, 90 for p95;
* **missed** if so many missed as happens once in a hundred tries: the same from the other side, I_a(t, h + 1) < 1 - c;
* **undecided** else, and then it leans to where the share lies that was seen.

A load in an open loop is missed, too, if the server fell behind: requests that it has not ended when the window does
have no latency yet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Literal, Protocol

import msgspec

from loadgen.metrics import METRICS, PERCENTILES, Measure
from loadgen.statistics import CERTAINTY, LEVEL
from loadgen.summary import Distribution, Misses, Summary

OF_ALL = ("error_rate", "goodput")
"""Metrics that are themselves shares of all measured requests."""

Blind = Literal["client", "gone", "window"]
"""Why a load says nothing: the client was the limit, nobody listened any more, or the windows themselves cannot be
trusted."""

_CLIENT = {"late", "cpu", "skew", "sends"}

_BEHIND = 0.02
"""Share of the sent requests by which a server may be behind."""

_SIGMAS = 3.0


class Verdict(StrEnum):
    """What is said of a load, or of one objective at it."""

    MET = "met"
    MISSED = "missed"
    UNDECIDED = "undecided"
    INVALID = "invalid"


class Objective(Protocol):
    """What a scenario's objective offers: ``p99 ttft < 0.5 s`` has the statistic p99, the metric ttft (or ttft_s), the
    op <, the value 0.5 in the metric's own unit, and its text."""

    @property
    def statistic(self) -> str | None: ...
    @property
    def metric(self) -> str: ...
    @property
    def op(self) -> str: ...
    @property
    def value(self) -> float: ...
    @property
    def text(self) -> str: ...


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """One objective at one load.

    ``missed`` of ``n`` requests missed it, which are worth ``n_eff`` independent ones; ``share`` is that of the misses,
    with its 95 % interval (Clopper and Pearson's), ``allowed`` what it may be. ``value`` is the measured statistic in
    the metric's unit with its 95 % ``interval``, each None where one window is too small for it; of several windows it
    is their mean, and there is no interval. ``leans`` is True where the share that was seen is allowed.
    """

    text: str
    metric: str
    value: float | None
    interval: tuple[float, float] | None
    n: int
    missed: int
    n_eff: float
    share: float | None
    share_interval: tuple[float, float] | None
    allowed: float
    verdict: Verdict
    leans: bool | None


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one load by now.

    ``windows`` counts those that were measured, ``valid`` those of them that say something. ``leans`` is which way an
    undecided load is taken (True for met), None where nothing is known. ``why`` is a sentence's end. ``blind`` is what
    was wrong where no window says anything, None where one does.
    """

    load: float
    windows: int
    valid: int
    objectives: tuple[Held, ...]
    verdict: Verdict
    leans: bool | None
    why: str
    blind: Blind | None = None


def trial(load: float, objectives: Sequence[Objective], windows: Sequence[Summary]) -> Trial:
    """What the windows of one load say together. There is at least one."""
    valid = [window for window in windows if answers(window)]
    held = tuple(_held(objective, valid) for objective in objectives) if valid else ()
    verdict, leans, why = _verdict(valid, held) if valid else (Verdict.INVALID, None, _nothing(windows[-1]))
    counts = {"windows": len(windows), "valid": len(valid)}
    blind = None if valid else _blind(windows[-1])
    return Trial(load=load, objectives=held, verdict=verdict, leans=leans, why=why, blind=blind, **counts)


def answers(window: Summary) -> bool:
    """False for a window in which the client was the limit, nobody listened, or of which something was left behind.

    Two that are invalid say something of the server all the same: one that dropped requests because too many were in
    flight, and in an open loop one whose replies had not come as far at its end as at its start (``one_phase``): that
    forbids its rates, and is what a queue does that grows.
    """
    if window.state == "failed":
        return window.ok == 0 and not _gone(window)
    return not _against(window)


def _against(window: Summary) -> set[str]:
    """The codes of what makes a window say nothing."""
    offered = window.audit.achieved_rps is not None
    spared = {"one_phase"} if offered else set()
    return {doubt.code for doubt in window.invalid} - spared - ({"sends"} if _dropped(window) else set())


def needed(allowed: float) -> int | None:
    """How many requests without a miss certify that share: 459 for 1 %; None where nothing is allowed."""
    return math.ceil(math.log(1 - CERTAINTY) / math.log1p(-allowed)) if 0 < allowed < 1 else None


def allowed_misses(objective: Objective) -> float:
    """The share of requests that may miss an objective."""
    upper = objective.op in ("<", "<=")
    if objective.metric in OF_ALL:
        return objective.value if upper else 1 - objective.value
    if objective.statistic in ("min", "max"):
        return 0.0
    p = PERCENTILES[objective.statistic or "p50"]
    return round(1 - p if upper else p, 9)


def _verdict(valid: Sequence[Summary], held: Sequence[Held]) -> tuple[Verdict, bool | None, str]:
    if all(window.state == "failed" for window in valid):
        return Verdict.MISSED, False, "no request was answered"
    if any(_dropped(window) for window in valid):
        return Verdict.MISSED, False, "requests were dropped at load.max_in_flight, because so many were unanswered"
    if (behind := _behind(valid)) is not None:
        return Verdict.MISSED, False, behind
    missed = [one for one in held if one.verdict is Verdict.MISSED]
    if missed:
        return Verdict.MISSED, False, "; ".join(map(_said, missed))
    unsure = [one for one in held if one.verdict is Verdict.UNDECIDED]
    if not unsure:
        return Verdict.MET, True, "every objective, with 99 % confidence"
    return Verdict.UNDECIDED, all(one.leans for one in unsure), "; ".join(map(_said, unsure))


def _said(held: Held) -> str:
    if held.n == 0:
        return f"{held.text}: no request has a value"
    least = needed(held.allowed)
    few = f", {least} are needed at least" if least is not None and held.n < least and not held.missed else ""
    return f"{held.text}: {held.missed:,} of {held.n:,} missed it, {held.allowed * 100:.3g} % may{few}"


def _nothing(window: Summary) -> str:
    """Why a window says nothing."""
    return "no connection could be made" if _gone(window) else window.invalid[0].text


def _blind(window: Summary) -> Blind:
    """What was wrong with a window that says nothing."""
    if _gone(window):
        return "gone"
    return "client" if _against(window) & _CLIENT else "window"


def _gone(window: Summary) -> bool:
    return window.requests > 0 and set(window.status) == {"connect_error"}


def _dropped(window: Summary) -> bool:
    return "sends" in {doubt.code for doubt in window.invalid} and window.status.get("dropped", 0) > 0


def _behind(windows: Sequence[Summary]) -> str | None:
    """Whether the server left more undone than it had found, in an open loop: by more than `_BEHIND` of what was sent,
    and by more than the number in flight changes by itself (3 sigma of two Poisson counts)."""
    sent = done = flying = 0.0
    for one in windows:
        if one.audit.achieved_rps is None:
            return None
        sent += one.audit.achieved_rps * one.window.length_s
        done += (one.request_rps or 0.0) * one.window.length_s + one.failed - one.status.get("cancelled", 0)
        flying += one.in_flight or 0.0
    undone = sent - done
    if undone <= max(_BEHIND * sent, _SIGMAS * math.sqrt(2 * max(flying, 1.0))):
        return None
    return f"the server fell behind: it ended {done:.0f} of {sent:.0f} requests that were sent"


def _held(objective: Objective, windows: Sequence[Summary]) -> Held:
    counted = objective.metric if objective.metric in OF_ALL else objective.text
    found = [one.misses[counted] for one in windows if counted in one.misses]
    n, missed = sum(one.n for one in found), sum(one.missed for one in found)
    n_eff, allowed = _worth(found), allowed_misses(objective)
    bad = missed / n * n_eff if n else 0.0
    return Held(
        text=objective.text,
        metric=objective.metric,
        **_value(objective, windows),
        n=n,
        missed=missed,
        n_eff=n_eff,
        share=missed / n if n else None,
        share_interval=share_interval(bad, n_eff) if n else None,
        allowed=allowed,
        verdict=decided(bad, n_eff, allowed),
        leans=missed <= allowed * n if n else None,
    )


def _worth(windows: Sequence[Misses]) -> float:
    """How many independent requests several windows are worth together.

    A window without a miss knows nothing of how misses cluster, and would pass for all its requests: the clustering is
    that of the windows that have some, by their share of the misses.
    """
    n, missed = sum(one.n for one in windows), sum(one.missed for one in windows)
    if not missed:
        return float(n)
    clustered = math.fsum(one.missed * one.n / one.n_eff for one in windows if one.missed) / missed
    return n / clustered


def decided(bad: float, n: float, allowed: float) -> Verdict:
    """What ``bad`` of ``n`` independent requests say of "in the long run at most ``allowed`` miss"."""
    from scipy.special import betainc

    if n <= 0 or allowed >= 1:
        return Verdict.UNDECIDED if n <= 0 else Verdict.MET
    if allowed <= 0:
        return Verdict.MISSED if bad > 0 else Verdict.MET
    good = n - bad
    if good > 0 and betainc(good, bad + 1, 1 - allowed) < 1 - CERTAINTY:
        return Verdict.MET
    if bad > 0 and betainc(bad, good + 1, allowed) < 1 - CERTAINTY:
        return Verdict.MISSED
    return Verdict.UNDECIDED


def share_interval(bad: float, n: float) -> tuple[float, float]:
    """The 95 % interval of a share (Clopper and Pearson 1934), of counts that need not be whole."""
    from scipy.special import betaincinv

    tail = (1 - LEVEL) / 2
    low = float(betaincinv(bad, n - bad + 1, tail)) if bad > 0 else 0.0
    high = float(betaincinv(bad + 1, n - bad, 1 - tail)) if bad < n else 1.0
    return low, high


def _value(objective: Objective, windows: Sequence[Summary]) -> dict[str, Any]:
    """``value`` and ``interval`` of an objective's own statistic."""
    per_window = METRICS[objective.metric].per == "window"
    what = Measure(objective.metric, None if per_window else objective.statistic)
    values = [one.get(what) for one in windows]
    known = [value for value in values if value is not None]
    value = math.fsum(known) / len(known) if known and len(known) == len(values) else None
    one = getattr(windows[0], objective.metric) if len(windows) == 1 else None
    interval = one.intervals.get(objective.statistic or "") if isinstance(one, Distribution) else None
    return {"value": value, "interval": interval}
