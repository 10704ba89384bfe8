"""Rules of ``published``, ``preset`` and ``row``: a number beside a published one means the same as that one.

In: the scenario of one cell. Out: pairs of a path and a sentence.
"""

from __future__ import annotations

from collections.abc import Iterator

from loadgen.errors import UsageError
from loadgen.published.presets import Preset, preset_of
from loadgen.published.tables import Table, table
from loadgen.scenario.model import Scenario
from loadgen.scenario.objective import parse_measure, parse_objective
from loadgen.scenario.override import did_you_mean
from loadgen.scenario.tree import Path

Broken = Iterator[tuple[Path, str]]


def published_rules(scenario: Scenario) -> Broken:
    """Every rule of published tables and presets that a cell breaks."""
    found = None
    if scenario.published is not None:
        try:
            found = table(scenario.published)
        except UsageError as error:
            yield ("published",), str(error).removesuffix(".")
            return
    yield from _rows(scenario, found)
    if found and scenario.preset is not None and scenario.preset != found.preset:
        theirs = f"by preset {found.preset}" if found.preset else "by no preset"
        yield ("preset",), f"{scenario.preset} does not go with published: {found.name}, whose speed is {theirs}"
        return
    preset = preset_of(scenario.preset, scenario.published)
    if preset is not None:
        yield from _preset(scenario, preset)


def _rows(scenario: Scenario, found: Table | None) -> Broken:
    for name, target in scenario.targets.items():
        path: Path = ("targets", name, "row")
        if target.row is None:
            continue
        if found is None:
            yield path, "means nothing without published, the name of the table that it is a row of"
            continue
        for word in target.row:
            if word in found.said:
                continue
            if word in found.columns:
                reason = f"is no key of {found.name}" if found.keys.get(word) is None else "follows from the cell"
                yield (*path, word), f"{reason}; a row states {', '.join(found.said)}"
            else:
                yield (*path, word), f"{found.name} has no such column{did_you_mean(word, found.said)}"


def _preset(scenario: Scenario, preset: Preset) -> Broken:
    load = scenario.load
    speed = preset.speed(load.burst is not None) if load.concurrency == 1 or load.burst is not None else None
    if speed is None:
        ways = "concurrency: 1" + (" (one request at a time) or burst (all prompts at once)" if preset.burst else "")
        yield ("load",), f"preset {preset.name} defines the speed of {ways}; take that, or remove the preset"
        return
    if scenario.workload.output.exact is None:
        yield ("workload", "output"), f"needs exact: N under preset {preset.name}, whose replies all have one length"
    for path, metric in _asked(scenario):
        if metric in preset.others or (metric != speed and metric in (preset.single, preset.burst)):
            yield path, f"{metric} is another speed than that of preset {preset.name}, which is {speed} here"


def _asked(scenario: Scenario) -> Iterator[tuple[Path, str]]:
    """Every metric that the scenario names, and where."""
    for i, text in enumerate(scenario.objectives):
        yield ("objectives", i), parse_objective(text).metric
    if scenario.comparison is not None:
        yield ("comparison", "metric"), parse_measure(scenario.comparison.metric).metric
    for i, words in enumerate(scenario.nightly.primary or ()):
        yield ("nightly", "primary", i), parse_measure(words).metric
