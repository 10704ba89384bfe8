"""Stores with nights that were made up: given values, judged and written down as a nightly does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from made_runs import MACHINE, made_run, scenario_of

from loadgen.assemble import assemble
from loadgen.nights.baseline import news
from loadgen.nights.events import Night, append
from loadgen.nights.history import History, noise_floors, read_history
from loadgen.nights.series import points_of
from loadgen.nights.verdicts import Past, SeriesVerdict, confirm, gates_of, judge
from loadgen.scenario import Scenario, load
from loadgen.store import Run

GPU = {"name": "H200", "uuid": "GPU-1", "memory_gb": 150.0, "driver": "570"}
LAUNCHED = "{engine: vllm, model: m%s}"
AT = "2026-11-20T02:00:00Z"

VECTOR = (100, 101, 99, 100.5, 98.8, 100.2, 101.3, 99.4, 100.1, 99.9, 100.7, 99.2, 100.4, 99.6)
"""The baseline of the specification's test vector; tonight is 94."""


def made_scenario(folder: Path, more: str = "repeats: 1\n", targets: Sequence[str] = ("a",)) -> Scenario:
    folder.mkdir(parents=True, exist_ok=True)
    return scenario_of(folder, targets, more)


def night(
    store: Path,
    scenario: Scenario,
    value: float,
    again: float | None = None,
    described: Mapping[str, Any] | None = None,
) -> tuple[Run, list[SeriesVerdict]]:
    """One night in which every target had this output_tok_s; ``again`` is what a second measurement comes to."""
    run, report = _run(store, scenario, value, described)
    points = points_of(report)
    pasts = read_history(store).pasts(points, noise_floors(store, report, points))
    gates = gates_of(report.run["scenario"])
    verdicts = judge(points, pasts, gates)
    confirms: tuple[str, ...] = ()
    if again is not None and any(verdict.candidate for verdict in verdicts):
        second, measured = _run(store, scenario, again, described)
        confirms = (second.id,)
        verdicts = confirm(verdicts, points_of(measured), pasts, gates)
    told = Night(at=AT, run=run.id, scenario=scenario.name, verdicts=tuple(verdicts), confirms=confirms)
    append(store, [told, *news(verdicts, pasts, AT)])
    return run, verdicts


def nights(store: Path, scenario: Scenario, values: Sequence[float]) -> list[Run]:
    """Nights of these values, one after the other."""
    return [night(store, scenario, value)[0] for value in values]


def _run(store: Path, scenario: Scenario, value: float, described: Mapping[str, Any] | None) -> Any:
    values = {target: [value] * scenario.repeats for target in scenario.targets}
    run = made_run(store, scenario, values, described)
    return run, assemble(run)


def launched(folder: Path, words: str = "", more: str = "repeats: 1\n", load_words: str = "concurrency: 4") -> Scenario:
    """One target, which is launched; ``words`` are further ones of it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "made.yaml"
    path.write_text(
        f"schema: loadgen/v1\nname: made\ntargets: {{a: {LAUNCHED % words}}}\n"
        "workload: {prompts: natural, output: {exact: 8}}\n"
        f"load: {{warmup_s: 1, window_s: 30, {load_words}}}\n{more}"
    )
    return load(path).scenario


def described(facts: Mapping[str, Any] | None = None, driver: str = "570", **more: Any) -> dict[str, Any]:
    """Fields of run.json: a machine with one GPU, and what the server of target "a" says of itself."""
    server = {"target": "a", "engine": "vllm", "facts": {"version": "0.9", "revision": "r1", **(facts or {})}}
    gpus = [{**GPU, "driver": driver}]
    return {"machine": {**MACHINE, "gpus": gpus}, "servers": {"a-1": server}} | more


def throughput(history: History) -> str:
    """The key of its only series of output_tok_s."""
    (found,) = history.find("output_tok_s")
    return found


def past(store: Path) -> Past:
    """What is known of that series after all nights."""
    history = read_history(store)
    return history.by_now([throughput(history)])[throughput(history)]
