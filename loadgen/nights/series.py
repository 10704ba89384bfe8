"""A run becomes points of series: what one night measured of one thing that is watched over months.

In: a `RunReport`. Out: a `Point` for each measure of each target in each cell. A series is known by its key, which is
made of all that makes nights comparable and of nothing that is watched: not the version of the engine, the driver, the
revision of the model or the image, which stand beside the value as facts. Pure functions. The statistics are in
``regression.py``; the definitions are those of the specification's section 3.3.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from loadgen.assemble import RunReport, TargetCell
from loadgen.cells import too_late
from loadgen.fair.facts import facts_of, scenario_of
from loadgen.metrics import METRICS, Measure, measure
from loadgen.summary import Summary

if TYPE_CHECKING:
    from pydantic import BaseModel

SCHEMA = 1
"""Version of what our numbers mean; raised when a metric changes its definition. Every series then begins anew."""

PRIMARY = ("output_tok_s", "p50 ttft_s")
"""What raises alarms where the scenario does not say: see `Nightly` in the scenario's words."""

SECONDARY = ("total_tok_s", "p95 ttft_s", "p99 ttft_s", "p50 tpot_s", "p99 tpot_s", "p50 e2e_s")
"""What is kept and shown besides."""

TAILS = ("p90", "p95", "p99", "p99.9", "max")

EPOCH = ("gpu_driver", "revision", "image_policy")
"""Facts whose change starts a new epoch: what was measured before is no measure of what comes."""

_FLOATING = ("", "latest", "nightly", "main", "master", "dev", "edge")
_SAME = ("workload", "load", "seed")
_VERSIONS = ("image", "python", "tokenizer", "config", "gpu", "gpus", "bandwidth_gb_s", "price_per_hour", "api_key_env")
_NOT_MEASURED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "workload": ("save_text", "routing_check"),
        "load": (
            *("interval_s", "drain_s", "timeout_s", "stall_timeout_s", "connect_timeout_s", "max_event_bytes"),
            "workers",
        ),
    }
)


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is watched: a measure (``p50 ttft_s``) of a target in a cell. ``key`` tells it from every other,
    16 hex digits."""

    key: str
    scenario: str
    cell: str
    target: str
    measure: str

    @property
    def name(self) -> str:
        """For people: ``moe_vs_dense moe concurrency=16 output_tok_s``."""
        return f"{self.scenario} {self.target} {self.cell} {self.measure}"

    @property
    def higher_is_better(self) -> bool:
        return METRICS[measure(self.measure).metric].better == "higher"


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """What one run came to in a series.

    ``y`` is the mean over the good repeats of the natural logarithm of the measure, None where there is none; ``reps``
    is their number. ``state`` is ok where every repeat of the plan is good, degraded where some are, invalid where none
    is. ``facts`` are those of `facts_of` (a mapping that the points of one target in one cell share), with
    ``image_policy``. ``at`` is the start of the run in UTC, ``primary`` says whether the series may raise an alarm.
    """

    series: Series
    run: str
    at: str
    state: Literal["ok", "degraded", "invalid"]
    y: float | None
    reps: int
    primary: bool
    facts: dict[str, str]

    @property
    def value(self) -> float | None:
        """The measure in its own unit: the geometric mean over repeats."""
        return None if self.y is None else math.exp(self.y)


def points_of(report: RunReport) -> list[Point]:
    """Every point of a run. The cells of a routing check are no series. A secondary measure that no good repeat has
    gives no point; a primary one gives one that is invalid, unless nothing of it was measured because the time was up.
    """
    found = []
    primary = primaries(report.run["scenario"])
    for cell in report.cells:
        for target in cell.targets:
            if target.results and len(too_late(cell.id, target, report.run)) == len(target.results):
                continue
            facts = _facts(report, cell.id, target.target)
            identity = _identity(report, cell.id, target.target, facts)
            for words in dict.fromkeys((*primary, *SECONDARY)):
                series = _series(report, cell.id, target.target, words, identity)
                point = _point(report, target, series, facts, words in primary)
                if point.y is not None or point.primary:
                    found.append(point)
    return found


def primaries(scenario: Mapping[str, Any]) -> tuple[str, ...]:
    """The primary measures of a scenario as run.json keeps it. A reply that comes whole has no time to first token, and
    where the scenario names no measures that one is left out."""
    named = (scenario.get("nightly") or {}).get("primary")
    if named is not None:
        return tuple(str(measure(words)) for words in named)
    streamed = (scenario.get("workload") or {}).get("stream", True)
    return PRIMARY if streamed else PRIMARY[:1]


def gate(words: str, own: Mapping[str, float] | None = None) -> float:
    """The effect below which a series raises no alarm, relative: 3 % for rates of the window, 10 % for tails, 5 % for
    everything else. ``own`` are the scenario's, by measure."""
    what = measure(words)
    for name, value in (own or {}).items():
        if measure(name) == what:
            return value
    if what.statistic in TAILS:
        return 0.10
    return 0.03 if METRICS[what.metric].per == "window" else 0.05


def policy_of(image: str | None) -> str | None:
    """How an image is pinned: by digest, by tag, or not at all (``latest`` and its like float). None without one."""
    if image is None:
        return None
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return "digest" if digest else "floating" if tag in _FLOATING else "tag"


def _facts(report: RunReport, cell: str, target: str) -> dict[str, str]:
    words = (scenario_of(report.run, report.plan, cell).get("targets") or {}).get(target) or {}
    policy = policy_of(words.get("image"))
    return facts_of(report.run, report.plan, cell, target) | ({"image_policy": policy} if policy else {})


def _identity(report: RunReport, cell: str, target: str, facts: Mapping[str, str]) -> list[Any]:
    """All that the nights of a series have in common. What came from the environment counts by its reference; what
    equals its default is left out, so that a word that loadgen learns later changes no key."""
    scenario = scenario_of(report.run, report.plan, cell)
    words = dict((scenario.get("targets") or {}).get(target) or {})
    image = str(words.get("image") or "").partition("@")[0]
    options = {name: value for name, value in (words.get("options") or {}).items() if name != "revision"}
    parts = {
        "target": {**{name: value for name, value in words.items() if name not in _VERSIONS}, "options": options},
        **{name: scenario.get(name) for name in _SAME},
    }
    place = image.rpartition("/")[0] + image.rpartition("/")[2].partition(":")[0]
    kind = (facts.get("gpu"), facts.get("gpus"), _host_class(report.run.get("machine") or {}))
    scope = report.plan.scope if report.run["scenario"].get("comparison") else None
    return [SCHEMA, _without_defaults(parts), place, kind, scope, report.run["scenario"].get("name"), cell, target]


def _host_class(machine: Mapping[str, Any]) -> list[Any]:
    """What hosts of a kind have in common. Their memory is left out: an upgrade of the kernel moves it a little."""
    gpus = [gpu.get("name") for gpu in machine.get("gpus") or ()]
    return [machine.get("cpu"), machine.get("cores"), machine.get("os"), gpus]


def _without_defaults(parts: Mapping[str, Any]) -> dict[str, Any]:
    from loadgen.scenario import Load, Target, Workload

    kept = {}
    models: dict[str, type[BaseModel]] = {"target": Target, "workload": Workload, "load": Load}
    for name, words in parts.items():
        model = models.get(name)
        defaults = model.model_construct().model_dump(mode="json") if model is not None else {}
        drop = _NOT_MEASURED.get(name, ())
        if isinstance(words, Mapping):
            words = {k: v for k, v in words.items() if k not in drop and defaults.get(k, ...) != v}
        kept[name] = _without_nothing(words)
    return kept


def _without_nothing(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    inner = {name: _without_nothing(one) for name, one in value.items()}
    return {name: one for name, one in inner.items() if one is not None and one != {}}


def _series(report: RunReport, cell: str, target: str, words: str, identity: Sequence[Any]) -> Series:
    text = msgspec.json.encode([*identity, words], order="deterministic")
    return Series(
        key=hashlib.sha256(text).hexdigest()[:16],
        scenario=str(report.run["scenario"].get("name")),
        cell=cell,
        target=target,
        measure=words,
    )


def _point(report: RunReport, target: TargetCell, series: Series, facts: dict[str, str], primary: bool) -> Point:
    logs = list(_logs(target, measure(series.measure)))
    state: Literal["ok", "degraded", "invalid"] = "ok"
    if len(logs) < len(target.results) or not logs:
        state = "degraded" if logs else "invalid"
    return Point(
        series=series,
        run=str(report.run["run"]),
        at=str(report.run["started"]),
        state=state,
        y=math.fsum(logs) / len(logs) if logs else None,
        reps=len(logs),
        primary=primary,
        facts=facts,
    )


def _logs(target: TargetCell, what: Measure) -> Iterator[float]:
    for result in target.results:
        if result is None or result.interrupted or result.lost:
            continue
        value = _good(result.summary, what)
        if value is not None:
            yield math.log(value)


def _good(summary: Summary, what: Measure) -> float | None:
    value = summary.get(what) if summary.state == "ok" else None
    return value if value is not None and value > 0 and math.isfinite(value) else None
