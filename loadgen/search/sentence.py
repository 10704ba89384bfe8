"""What a search came to, in sentences: the answer as a bracket, why it stopped, what weakens it.

In: the goal, the trials, the reason to stop. Out: text and doubts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loadgen.metrics import measure
from loadgen.search.path import CLIENT_WINDOWS, Bracket, Goal, Stop, bracket
from loadgen.search.sweep import Course, Swept
from loadgen.search.verdict import Trial, Verdict
from loadgen.shown import brief
from loadgen.summary import Doubt

_BLIND = {
    "client": "the client itself was the limit",
    "gone": "nobody listened any more",
    "window": "no window can be trusted",
}

_UNITS = {"max_rate": "requests/s", "max_concurrency": "requests in flight"}


def answer(goal: Goal, trials: Sequence[Trial]) -> str:
    """``it meets the objectives up to 12.3 requests/s, and misses them at 12.8``."""
    found, unit = bracket(trials), _UNITS[goal.find]
    if not trials:
        return "no load was measured"
    if found.holds is None and found.blind is not None:
        return f"nobody knows: at {found.blocks:g} {unit} {_BLIND[found.blind]}"
    if found.holds is None:
        return f"it misses the objectives at every load that was tried, down to {found.blocks:g} {unit}"
    known = f"it meets the objectives up to {found.holds:g} {unit}" + _sure(found.met, found.holds)
    if found.blocks is None:
        return f"{known}, the most that was tried"
    if found.blind is not None:
        return f"{known}; at {found.blocks:g} {_BLIND[found.blind]}"
    return f"{known}, and misses them at {found.blocks:g}" + _sure(found.missed, found.blocks)


def _sure(sure: float | None, taken: float) -> str:
    """How much of an end is certified, where that is less than is said."""
    if sure == taken:
        return ""
    return " (not certified)" if sure is None else f" (certified at {sure:g})"


def stopped(goal: Goal, trials: Sequence[Trial], stop: Stop | None) -> str:
    """Why no other load was tried."""
    count = sum(one.windows for one in trials)
    probes = f"{count} probe" if count == 1 else f"{count} probes"
    match stop:
        case None:
            return f"it is not over after {probes}, and --resume goes on"
        case Stop.NARROW:
            return f"both ends are sure and within {goal.within * 100:.3g} % of each other, after {probes}"
        case Stop.PROBES:
            return f"all {goal.probes} probes are used up; search.probes says how many there are"
        case Stop.MOST:
            return f"the objectives hold at search.most ({goal.most:g}), after {probes}"
        case Stop.LEAST:
            return f"less than {goal.least:.3g} cannot be tried; {_worst(trials)}"
        case Stop.UNDECIDED:
            return (
                f"what lies between can only be decided with more requests (a longer load.window_s): {_worst(trials)}"
            )
        case Stop.GONE:
            return f"no connection could be made in {CLIENT_WINDOWS} windows: start the server again, and search anew"
        case _:
            top = next(one for one in trials if one.load == bracket(trials).blocks)
            who = "the client is" if stop is Stop.CLIENT else "the windows are"
            return f"{who} the limit, {top.windows} times at {top.load:g}: {top.why.rstrip('.')}"


def swept_sentence(course: Course, found: Swept, unit: str = "requests/s") -> str:
    """``p50 TTFT begins to rise at 9.5 requests/s [9.1, 10], 95 % of the maximum; the measured maximum is 10``."""
    if found.maximum is None:
        return "no closed loop was answered, or none can be trusted: there is no maximum to step up to"
    most = f"the measured maximum is {brief(found.maximum, 3)} {unit}"
    if found.knee is None:
        return f"{most}; no knee: {found.why}"
    knee, share = found.knee, found.knee.rate / found.maximum
    at, low, high = (brief(rate, 3) for rate in (knee.rate, knee.low, knee.high))
    return (
        f"{measure(course.latency).label} begins to rise at {at} {unit} [{low}, {high}], "
        f"{share * 100:.0f} % of the maximum; {most}"
    )


def doubts(goal: Goal, trials: Sequence[Trial], seconds: float, limits: Sequence[tuple[str, float]]) -> Iterator[Doubt]:
    """What weakens an answer. ``seconds`` is how long a window and its warm-up last, ``limits`` the objectives on
    waiting (text, seconds)."""
    found = bracket(trials)
    if found.holds is not None and found.met != found.holds:
        low = next(one for one in trials if one.load == found.holds)
        yield Doubt("uncertified", f"{found.holds:g} is not certified: {low.why}.")
    top = next((one for one in trials if one.load == found.blocks), None)
    if top is not None and top.windows == 1 and found.blind is None:
        yield Doubt("once", f"{top.load:g} was measured in one window: a hiccup of the machine would look the same.")
    if top is not None and top.verdict is Verdict.MISSED and _by_none(top):
        yield Doubt("by_no_objective", f"At {top.load:g} no objective is surely missed by itself: {top.why}.")
    above = [one.load for one in trials if top is not None and one.load > top.load and one.verdict is Verdict.MET]
    if above:
        yield Doubt("not_rising", f"{min(above):g} meets the objectives although {top.load if top else 0:g} does not.")
    for text, limit in limits:
        if goal.find == "max_rate" and limit > goal.within * seconds:
            yield Doubt(
                "short_for_limit",
                f"Warm-up and window last {seconds:.3g} s; at a rate {goal.within * 100:.3g} % too high a queue takes "
                f"{limit / goal.within:.3g} s to grow to the limit of {text}: the answer may be too high by so much.",
            )


def _by_none(missed: Trial) -> bool:
    """Whether a load is called missed for another reason than the misses of an objective: a queue, or our own cap."""
    known = [one.verdict for one in missed.objectives]
    return bool(known) and Verdict.MISSED not in known


def _worst(trials: Sequence[Trial]) -> str:
    """What is said of the lowest load that blocks."""
    found: Bracket = bracket(trials)
    top = next((one for one in trials if one.load == found.blocks), None)
    base = next((one for one in trials if one.load == found.holds), None)
    unsure = next((one for one in (base, top) if one is not None and one.verdict is Verdict.UNDECIDED), top)
    return "" if unsure is None else f"at {unsure.load:g} {unsure.why}"
