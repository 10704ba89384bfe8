"""A search over a store with a simulated server in the place of the driver: all of it is real but the waiting."""

from __future__ import annotations

from pathlib import Path

import msgspec
from made_runs import MACHINE
from queue_simulation import Queue

from loadgen.assemble import RunReport, assemble
from loadgen.judge import asked, limits
from loadgen.plan import make_plan
from loadgen.repeat import Result
from loadgen.scenario import Cell, Loaded, expand, load, parse_objective, public_dict
from loadgen.searched import Probe
from loadgen.searching import Search, probe_after_probe
from loadgen.store import Run, create_run, write_json
from loadgen.summary import Context, Doubt, Summary

SCENARIO = """\
schema: loadgen/v1
name: sought
targets: {{a: {{endpoint: 'http://127.0.0.1:9000', model: m}}, b: {{endpoint: 'http://127.0.0.1:9001', model: m}}}}
workload: {{prompts: natural, output: {{exact: 8}}}}
load: {{warmup_s: 3, window_s: 5}}
search: {search}
objectives: [p95 ttft < 0.5 s, error_rate < 2 %, goodput > 90 %]
"""

MAX_RATE = "{find: max_rate, start: 20, probes: 12}"


class Simulated:
    """A run whose targets are simulated: ``a`` answers 80 requests a second, ``b`` 40."""

    def __init__(self, folder: Path, search: str = MAX_RATE) -> None:
        path = folder / "sought.yaml"
        path.write_text(SCENARIO.format(search=search))
        self.loaded: Loaded = load(path)
        self.cells = {cell.id: cell for cell in expand(self.loaded.scenario)}
        self.plan = make_plan(self.loaded.scenario, list(self.cells.values()), folder)
        self.run: Run = create_run(folder / "store", "sought")
        self.driven: list[Probe] = []
        self.late_from: float | None = None
        self.waves_from: float | None = None
        write_json(self.run.folder / "plan.json", self.plan)
        known = {
            "run": self.run.id, "status": "complete", "started": "2026-11-20T01:00:00Z", "ended": None,
            "scenario": public_dict(self.loaded.scenario), "seed": 1, "versions": {}, "machine": MACHINE,
            "servers": {}, "profile": None, "profile_reason": "", "failures": [],
        }  # fmt: skip
        self.run.write("run.json", known)

    def follow(self, most: int = 100) -> list[str]:
        """All searches, until so many probes were driven; what was said."""
        said = []
        for number, planned in enumerate(self.plan.searches):
            search = Search(self.run, self.plan, number, self.cells[planned.cell], self.loaded)
            said += list(probe_after_probe(search, self._drive, lambda: len(self.driven) >= most))
        return said

    def report(self) -> RunReport:
        return assemble(self.run)

    def _drive(self, probe: Probe, cell: Cell) -> None:
        self.driven.append(probe)
        step = probe.step
        attempt, folder = self.run.repeat(step.cell, step.target, step.rep).new_attempt()
        result = Result(
            cell=cell.id, target=step.target, rep=step.rep, attempt=attempt, block=1, seed=step.seed, server=None,
            started="2026-11-20T01:00:00Z", summary=self._measured(probe, cell), workers=(),
        )  # fmt: skip
        write_json(folder / "summary.json", result)

    def _measured(self, probe: Probe, cell: Cell) -> Summary:
        queue = Queue(slots=8 if probe.step.target == "a" else 4, tokens=10, window_s=5)
        objectives = [parse_objective(one) for one in cell.scenario.objectives]
        context = Context(
            limits=limits(objectives), asked=asked(objectives), concurrency=cell.scenario.load.concurrency
        )
        closed = cell.scenario.load.concurrency
        seed = probe.step.seed % 10**9
        one = (
            queue.at_rate(probe.load, seed, context) if closed is None else queue.at_concurrency(closed, seed, context)
        )
        if self.late_from is not None and probe.load >= self.late_from:
            return msgspec.structs.replace(one, state="invalid", invalid=(Doubt("late", "The client sent late."),))
        if self.waves_from is not None and probe.load >= self.waves_from:
            return msgspec.structs.replace(one, state="invalid", invalid=(Doubt("one_phase", "Requests ran in step."),))
        return one
