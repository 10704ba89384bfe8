"""What goes with a search, and the cell that one of its probes is.

In: the scenario of a cell with ``search``. Out: broken rules; or, for a load, a cell of its own in which that load is
set, and no search.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from loadgen.metrics import METRICS, PERCENTILES
from loadgen.scenario.label import cell_id
from loadgen.scenario.model import ARRIVAL_WORDS, Load, Scenario
from loadgen.scenario.objective import SHARES, Objective, parse_measure, parse_objective
from loadgen.scenario.search import SEARCHED, Search
from loadgen.scenario.tree import Path
from loadgen.search.path import Goal
from loadgen.search.sweep import Course

if TYPE_CHECKING:
    from loadgen.scenario.matrix import Cell

LEAST_WITHIN = 0.01
"""Loads have three digits."""

LEAST_REQUESTS, LEAST_WINDOW_S = 2, 30
"""A window holds so many requests at the smallest rate that is tried; one that is limited by its count is taken for
so long."""

_OF_LOOP = {"concurrency": ("arrival", "burstiness", "max_in_flight"), "rate_rps": ("ramp_s",)}
"""Words of `load` that do not go with a load of the other loop."""

_OF_SWEEP, _OF_SEARCH = ("steps", "latency"), ("start", "within", "probes")


def search_rules(scenario: Scenario) -> Iterator[tuple[Path, str]]:
    """Every rule that a cell with a search breaks."""
    search = scenario.search
    if search is None:
        return
    for word in ("concurrency", *ARRIVAL_WORDS):
        if getattr(scenario.load, word) is not None:
            yield ("load", word), f"does not go with search, which sets the load itself; remove {word} or search"
    if scenario.load.arrival == "trace":
        yield ("load", "arrival"), "trace has a load of its own, and a search sets another; remove one of the two"
    if scenario.load.fleet != "local" and scenario.load.workers == "auto":
        yield ("load", "workers"), "is auto, and nobody knows beforehand how many nodes a search needs: say how many"
    if scenario.comparison is not None:
        yield ("search",), "does not go with comparison: each target is searched by itself; remove one of the two"
    if scenario.repeats != Scenario.model_fields["repeats"].default:
        yield ("repeats",), "does not go with search, which adds windows where they are needed; remove it"
    if scenario.workload.routing_check:
        yield ("workload", "routing_check"), "does not go with search"
    for word in _OF_SEARCH if search.find == "sweep" else _OF_SWEEP:
        if getattr(search, word) != Search.model_fields[word].default:
            yield ("search", word), f"does not go with {search.find}"
    yield from _bounds(search)
    yield from _objectives(scenario, search)


def _bounds(search: Search) -> Iterator[tuple[Path, str]]:
    if search.within < LEAST_WITHIN:
        yield ("search", "within"), f"must be at least {LEAST_WITHIN * 100:.0f} %: loads are tried in three digits"
    if search.start is not None and search.most is not None and search.start > search.most:
        yield ("search", "start"), f"is more than search.most ({search.most:g})"
    for word, value in (("start", search.start), ("most", search.most)):
        if search.find != "max_rate" and value is not None and value != int(value):
            yield ("search", word), f"is a number of requests in flight, and {value:g} is not whole"


def _objectives(scenario: Scenario, search: Search) -> Iterator[tuple[Path, str]]:
    if search.find == "sweep":
        what = parse_measure(latency_of(scenario))
        if METRICS[what.metric].unit != "s" or what.statistic not in PERCENTILES:
            yield ("search", "latency"), f"is a percentile of a time, such as p50 ttft, and {what} is none"
        return
    if not scenario.objectives:
        yield ("search",), f"{search.find} needs objectives, such as: objectives: [p99 ttft < 0.5 s, error_rate < 1 %]"
    for i, text in enumerate(scenario.objectives):
        if reason := _uncountable(parse_objective(text)):
            yield ("objectives", i), reason


def _uncountable(objective: Objective) -> str | None:
    """Why a search cannot count the requests that miss an objective."""
    metric = METRICS[objective.metric]
    wanted = "lower" if objective.op in ("<", "<=") else "higher"
    if metric.name in SHARES:
        return None if metric.better == wanted else f"{metric.name} has its limit on the wrong side for a search"
    if metric.per == "chunk":
        return f"{metric.name} is no number of a request, so that no request misses it; take tpot, or stall"
    if metric.per == "window":
        return f"{metric.name} does not get worse under load, so that it limits none; a search takes times and shares"
    if metric.better != wanted:
        return f"asks {metric.name} to be bad: a search needs a limit that a higher load breaks"
    if objective.statistic in PERCENTILES or objective.statistic == ("max" if wanted == "lower" else "min"):
        return None
    return f"a search counts the requests that miss a limit; take a percentile, such as p50, not {objective.statistic}"


def latency_of(scenario: Scenario) -> str:
    """The measure whose knee a sweep looks for."""
    given = scenario.search.latency if scenario.search is not None else None
    return given or ("p50 ttft_s" if scenario.workload.stream else "p50 e2e_s")


def goal_of(scenario: Scenario) -> Goal | Course | None:
    """What a scenario's search looks for; None without one."""
    search, load = scenario.search, scenario.load
    if search is None:
        return None
    if search.find == "sweep":
        most = None if search.most is None else int(search.most)
        return Course(steps=search.steps, most=most, latency=latency_of(scenario), seed=scenario.seed)
    return Goal(
        find=search.find,
        start=search.start or 1.0,
        least=1.0 if search.find == "max_concurrency" else LEAST_REQUESTS / (load.window_s or LEAST_WINDOW_S),
        most=search.most,
        within=search.within,
        probes=search.probes,
    )


def searched_load(scenario: Scenario) -> Load:
    """The load as that of a probe, so that its rules can be checked."""
    if scenario.search is None:
        return scenario.load
    *_, word = SEARCHED[scenario.search.find]
    none = dict.fromkeys(("concurrency", *ARRIVAL_WORDS))
    other = {"ramp_s": 0.0} if scenario.search.find == "sweep" else {}
    return scenario.load.model_copy(update={**none, word: 1, **other})


def probe_cell(cell: Cell, word: str, load: float) -> Cell:
    """The cell of a probe: ``word`` of `load` has this value."""
    scenario = cell.scenario
    data: dict[str, Any] = scenario.model_dump(by_alias=True, exclude_unset=True, exclude={"search"})
    kept = {name: value for name, value in data["load"].items() if name not in _OF_LOOP[word]}
    whole = int(load) if word == "concurrency" else load
    own = kept if scenario.search is not None and scenario.search.find == "sweep" else data["load"]
    data |= {"load": {**own, word: whole}, "repeats": 1}
    axes = {**cell.axes, word: whole}
    return replace(cell, id=cell_id(axes), axes=axes, scenario=Scenario.build(data, scenario.references))
