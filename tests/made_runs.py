"""Runs that were made up, as they lie in a store: given values by repeat, everything else as a real run writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from loadgen.noise import remember
from loadgen.plan import make_plan
from loadgen.repeat import Result
from loadgen.scenario import Scenario, expand, load, public_dict
from loadgen.store import Run, create_run, write_json
from loadgen.summarise import summarise
from loadgen.summary import Distribution, Doubt, Summary, Window

A = (1000.0, 1012.0, 995.0, 1004.0, 990.0, 1008.0)
B = (1431.0, 1440.0, 1419.0, 1448.0, 1409.0, 1441.0)
"""The test vectors of the specification: paired 1.4292 [1.4217, 1.4367], Welch 1.4292 [1.4120, 1.4466]."""

MACHINE = {"host": "h1", "cpu": "a processor", "cores": 8, "memory_gb": 64.0, "os": "Linux", "kernel": "6", "gpus": []}

Values = Sequence[float | None]


def scenario_of(folder: Path, targets: Sequence[str], more: str = "", load_words: str = "concurrency: 4") -> Scenario:
    """A scenario with these endpoints as targets; ``more`` are further lines."""
    listed = ", ".join(
        f"{name}: {{endpoint: 'http://127.0.0.1:{9000 + i}', model: m}}" for i, name in enumerate(targets)
    )
    path = folder / "made.yaml"
    path.write_text(
        f"schema: loadgen/v1\nname: made\ntargets: {{{listed}}}\nworkload: {{prompts: natural, output: {{exact: 8}}}}\n"
        f"load: {{warmup_s: 1, window_s: 30, {load_words}}}\n{more}"
    )
    return load(path).scenario


def summary(output_tok_s: float, ttft_s: float = 0.05, state: str = "ok", window_s: float = 30) -> Summary:
    """A good repeat: its throughput, and its median TTFT."""
    empty = summarise([], Window(1, 1 + window_s))
    middle = Distribution(n=500, mean=ttft_s, p50=ttft_s)
    tokens = Distribution(n=500, mean=8, p50=8)
    wrong = (Doubt("send_late", "The client sent late."),) if state == "invalid" else ()
    fields: dict[str, Any] = {"state": state, "output_tok_s": output_tok_s, "ttft_s": middle, "error_rate": 0.0}
    return msgspec.structs.replace(empty, **fields, in_tok=tokens, out_tok=tokens, ok=500, requests=500, invalid=wrong)


def made_run(
    store: Path,
    scenario: Scenario,
    values: Mapping[str, Values | Mapping[str, Values]],
    described: Mapping[str, Any] | None = None,
    **good: Any,
) -> Run:
    """A complete run: each target's ``output_tok_s`` by repeat, the same in every cell or by cell; None leaves a repeat
    out. ``described`` replaces fields of run.json; ``good`` are further fields of `summary`."""
    cells = expand(scenario)
    run = create_run(store, scenario.name)
    write_json(run.folder / "plan.json", make_plan(scenario, cells))
    known = {
        "run": run.id, "status": "complete", "started": "2026-11-20T01:00:00Z", "ended": "2026-11-20T01:30:00Z",
        "scenario": public_dict(scenario), "seed": 1, "versions": {"loadgen": "1"}, "machine": MACHINE, "servers": {},
        "profile": None, "profile_reason": "", "failures": [],
    }  # fmt: skip
    known |= described or {}
    noise = remember(store, known["machine"], scenario, {cell.id: cell for cell in cells})
    run.write("run.json", {"noise": noise, **known})
    for cell in cells:
        for target, measured in values.items():
            of_cell = measured[cell.id] if isinstance(measured, Mapping) else measured
            for rep, value in enumerate(of_cell, 1):
                if value is not None:
                    write(run, (cell.id, target, rep), summary(value, **good))
    return run


def write(run: Run, place: tuple[str, str, int], one: Summary, **fields: Any) -> None:
    """A repeat (cell, target, number) that came to this summary; ``fields`` are further ones of `Result`."""
    cell, target, rep = place
    _, folder = run.repeat(*place).new_attempt()
    result = Result(
        cell=cell, target=target, rep=rep, attempt=1, block=(rep + 1) // 2, seed=1, server=None,
        started="2026-11-20T01:00:00Z", summary=one, workers=(), **fields,
    )  # fmt: skip
    write_json(folder / "summary.json", result)
