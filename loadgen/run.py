"""The story of a run, and the only file that knows its order. Read this first::

    scenario -> plan -> [ launch -> drive -> record -> summarise ]* -> compare -> report

In: a `Request`. Out: a finished run folder and its exit code. Each repeat is written as soon as it is over, so that
whatever comes later (a server that dies, a Ctrl-C, a full disk) costs nothing that was measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, Protocol

import msgspec

from loadgen import launch
from loadgen.alone import alone
from loadgen.assemble import RunReport, assemble
from loadgen.cells import place_of
from loadgen.described import description, placed, served, utc
from loadgen.drive.tally import Tick
from loadgen.ended import status_of
from loadgen.errors import LaunchError, LoadgenError, TargetError, UsageError
from loadgen.fair.fingerprint import Prober
from loadgen.fleet import Elsewhere, Fleet, Stop, open_fleet
from loadgen.interrupt import Interrupt, counted_by
from loadgen.needless import Left, same_plan, set_aside, spared, what_is_left
from loadgen.ownership import held, this_owner, tidy
from loadgen.plan import Plan, PlannedCell, Step, make_plan, workers_of
from loadgen.repeat import Result, fail, run_repeat
from loadgen.reports.left import lines as left_lines
from loadgen.reports.stored import write_reports
from loadgen.room import refuse
from loadgen.scenario import Cell, Loaded, expand
from loadgen.searched import Probe, cells_of, read_probes
from loadgen.searching import Search, probe_after_probe, widest_loads
from loadgen.sites import Sites
from loadgen.store import Run, create_run, write_bytes, write_json
from loadgen.targets import check
from loadgen.telemetry.required import check_required


class Watcher(Protocol):
    """Who is told how a run goes on; the command line shows it."""

    def planned(self, plan: Plan, run: Run, loaded: Loaded) -> None:
        """The run has a folder and a plan; nothing was started yet."""

    def say(self, text: str) -> None:
        """Something happened that a person would want to know."""

    def began(self, step: Step, number: int) -> None:
        """Repeat ``number`` of the plan starts."""

    def ticked(self, tick: Tick) -> None:
        """A second of one worker has passed."""

    def ended(self, result: Result | None) -> None:
        """A repeat is over; None if it failed."""

    def added(self, cell: PlannedCell) -> None:
        """A search is about to measure in this cell, which no plan knew before."""

    def spared(self, steps: Collection[int]) -> None:
        """These steps of the plan, by number, will not be run: they are done already, or nobody needs them."""


class Request(msgspec.Struct, frozen=True):
    """What is to be run. ``resume`` is a run whose whole repeats are taken over; with ``retry`` blocks of it that hold
    an invalid one are measured again. ``keep`` leaves the servers that are up at the end as they are, for a look at
    them. ``cells`` are the only ones that are run, by id (None: all), and ``night`` is what a nightly notes of the run,
    in run.json. ``elsewhere`` is what was said of workers on other machines. ``wait_s`` is how long it waits for GPUs
    or cores that another run has (None: whoever asks has them already). From ``ends_at`` on (CLOCK_MONOTONIC) no
    further repeat begins."""

    loaded: Loaded
    store: Path
    resume: Run | None = None
    keep: bool = False
    cells: Collection[str] | None = None
    night: dict[str, Any] | None = None
    elsewhere: Elsewhere | None = None
    wait_s: float | None = None
    retry: bool = False
    ends_at: float = math.inf


class _State(msgspec.Struct):
    """What a run knows while it goes on."""

    run: Run
    loaded: Loaded
    cells: dict[str, Cell]
    plan: Plan
    watcher: Watcher
    keep: bool
    elsewhere: Elsewhere | None = None
    left: Left = msgspec.field(default_factory=Left)
    interrupt: Interrupt = msgspec.field(default_factory=Interrupt)
    failures: list[str] = msgspec.field(default_factory=list)

    @property
    def ladders(self) -> dict[str, str]:
        """By cell: its ladder."""
        return {cell.id: cell.ladder for cell in self.plan.cells}


def execute(request: Request, watcher: Watcher) -> RunReport:
    """Runs a scenario from plan to report. Raises LoadgenError for what stops it before anything is measured."""
    cells = [cell for cell in expand(request.loaded.scenario) if request.cells is None or cell.id in request.cells]
    plan = make_plan(request.loaded.scenario, cells, request.loaded.path.parent.absolute())
    if request.resume is not None:
        same_plan(request.resume, plan, request.loaded.scenario)
    if plan.searches and request.elsewhere is not None and request.elsewhere.shard is not None:
        raise UsageError(
            "--shard: a search needs the answers of all shards before its next load; search from one place."
        )
    check(request.loaded, cells)
    refuse(cells, watcher.say, request.elsewhere.shard if request.elsewhere else None)
    check_required(cells, request.loaded.path.parent)
    name = request.loaded.scenario.name
    with alone(cells, f"a run of {name}", request.wait_s, watcher.say) as tell_others:
        run = request.resume or create_run(request.store, name)
        tell_others(f"run {run.id}")
        return _executed(request, run, cells, plan, watcher)


def _executed(request: Request, run: Run, cells: list[Cell], plan: Plan, watcher: Watcher) -> RunReport:
    with held(run):
        tidy(run)
        state = _begin(request, run, cells, plan, watcher)
        watcher.planned(plan, run, request.loaded)
        try:
            with counted_by(state.interrupt):
                _measure(state, request)
        except BaseException as error:
            _finish(state, "failed", [*state.failures, str(error) or type(error).__name__])
            raise
        return _report(state)


def _begin(request: Request, run: Run, cells: list[Cell], plan: Plan, watcher: Watcher) -> _State:
    loaded = request.loaded
    state = _State(run, loaded, {cell.id: cell for cell in cells}, plan, watcher, request.keep, request.elsewhere)
    state.interrupt.ends_at = request.ends_at
    if request.resume is None:
        write_json(run.folder / "plan.json", plan)
        write_bytes(run.folder / "scenario.yaml", loaded.source)
        shard = state.elsewhere.shard if state.elsewhere else None
        run.write("run.json", {**description(run, loaded, state.cells, shard), "night": request.night})
    else:
        state.cells |= cells_of(read_probes(run), plan, state.cells)
        again = {**this_owner(), "status": "running", "resumed": utc(), "ended": None, "failures": []}
        run.write("run.json", {**run.read("run.json"), **again})
    return state


def _measure(state: _State, request: Request) -> None:
    """Follows the plan. A repeat that fails costs itself; the rest goes on."""
    state.left = what_is_left(state.run, state.plan, request.loaded.scenario.comparison is not None, request.retry)
    idle = state.left.idle
    state.watcher.spared(idle)
    for line in left_lines(state.run, state.plan, state.left) if request.resume else ():
        state.watcher.say(line)
    steps = [(number, step) for number, step in enumerate(state.plan.steps) if number not in idle]
    if not steps and not state.plan.searches:
        return
    if request.resume is not None:
        state.run.write("run.json", placed(state.run))
    loads = [state.cells[step.cell].scenario.load for _, step in steps] or widest_loads(state.cells.values())
    folder = state.loaded.path.parent.absolute()  # servers and makers of models run in folders of their own
    with (
        open_fleet({load.fleet for load in loads}, max(map(workers_of, loads)), state.elsewhere) as fleet,
        Sites(state.run, folder, state.watcher, lambda: state.interrupt.over, state.plan, state.keep) as sites,
    ):
        prober = Prober(state.run, fleet)
        last: dict[str | None, Step] = {}
        try:
            sites.try_endpoints([state.cells[step.cell] for _, step in steps] or state.cells.values())
            sites.spare(idle)
            for number in range(len(state.plan.searches)):
                _search(state, number, partial(_one, state, fleet, prober, sites), last)
                for instance, left in sites.done_with(number).items():
                    _ended(state, last[instance], left)
            for (number, step), following in zip_longest(steps, steps[1:]):
                if state.interrupt.over:
                    break
                if number in idle:
                    continue
                last[step.server] = step
                _one(state, fleet, prober, sites, number, step)
                if following is None or _block(state, step) != _block(state, following[1]):
                    pending = {later for later, _ in steps if later > number} - idle
                    idle |= spared(state.run, state.plan, pending, step, state.watcher.say)
                    sites.spare(idle)
                    state.watcher.spared(idle)
                for instance, left in sites.done_with(number).items():
                    _ended(state, last[instance], left)
        finally:
            for instance, left in sites.close().items():
                _ended(state, last[instance], left)
            described = state.run.read("run.json")
            servers = {**described["servers"], **sites.described}
            known = {"servers": servers, "served": served(state.loaded, state.cells), "fleet": fleet.about()}
            # Once more, because an engine may have fetched its model, and with it the config, in the meantime.
            state.run.write("run.json", {**described, **known})


def _search(state: _State, number: int, one: Callable[[int, Step], None], last: dict[str | None, Step]) -> None:
    """A search: each probe is a repeat, and follows from those before it."""
    planned = state.plan.searches[number]

    def drive(probe: Probe, cell: Cell) -> None:
        state.cells[cell.id] = cell
        state.watcher.added(probe.cell)
        last[planned.server] = probe.step
        one(len(read_probes(state.run)) - 1, probe.step)

    search = Search(state.run, state.plan, number, state.cells[planned.cell], state.loaded)
    for sentence in probe_after_probe(search, drive, lambda: state.interrupt.over):
        state.watcher.say(sentence)


def _block(state: _State, step: Step) -> tuple[str, int]:
    return state.ladders[step.cell], step.block


def _one(state: _State, fleet: Fleet, prober: Prober, sites: Sites, number: int, step: Step) -> None:
    """One repeat: its server is made sure of, it is driven, and what comes of it is written. A server that is compared
    is asked for its fingerprint first."""
    cell = state.cells[step.cell]
    state.watcher.began(step, number)
    result: Result | None = None
    try:
        site = sites.site(cell, step.target, step.server)
        look = _look(state, sites, step)
        if state.loaded.scenario.comparison is not None and cell.routing is None:
            prober.before(cell, step, site, sites.start_of(step.server), look)
        if not state.interrupt.over:  # nothing that is whole is set aside for a repeat that does not begin
            set_aside(state.left.beside(number))
            attempt, folder = state.run.repeat(step.cell, step.target, step.rep).new_attempt()
            result = run_repeat(fleet, site, step, cell, (state.run.id, folder, attempt), (state.watcher.ticked, look))
        if step.server is not None and not sites.alive(step.server):
            raise sites.lost(step.server)
    except launch.LaunchCancelled:
        pass
    except (LaunchError, TargetError) as error:
        first = not any(str(error) in failure for failure in state.failures)
        state.failures.append(f"{place_of(step.cell, step.target, step.rep)}: {error}")
        if first:
            state.watcher.say(f"{step.target} failed: {error}")
    state.watcher.ended(result)


def _ended(state: _State, step: Step, left: list[str]) -> None:
    """The server of a repeat was stopped after it. If something of it is left, the repeat has failed: nobody may take
    a machine for clean, or a run for good, that was left with processes or memory held."""
    state.failures += [f"{place_of(step.cell, step.target, step.rep)}: {problem}" for problem in left]
    attempts = state.run.repeat(step.cell, step.target, step.rep).attempts()
    if left and attempts and (attempts[-1] / "summary.json").exists():
        fail(attempts[-1], "left_behind", " ".join(left))
    for problem in left:
        state.watcher.say(f"{step.target}: {problem}")


def _look(state: _State, sites: Sites, step: Step) -> Callable[[], Stop | None]:
    load = state.cells[step.cell].scenario.load
    planned_s = next((cell.seconds for cell in state.plan.cells if cell.id == step.cell), 0.0)
    grace_s = planned_s + (load.drain_s if load.window_s is not None else 0.0)  # a plan does not count the drain

    def look() -> Stop | None:
        if not sites.alive(step.server):
            return "now"  # nobody will answer any more
        return state.interrupt.wanted(grace_s)

    return look


def _report(state: _State) -> RunReport:
    status = status_of(state.run, state.plan, state.left.idle, state.failures, state.interrupt.count > 0)
    _finish(state, status, state.failures)
    report = assemble(state.run, interrupted=state.interrupt.exit_code)
    write_reports(report)
    return report


def _finish(state: _State, status: str, failures: list[str]) -> None:
    told = {"status": status, "ended": utc(), "failures": failures, "out_of_time": state.interrupt.out_of_time}
    try:
        state.run.write("run.json", {**state.run.read("run.json"), **told})
    except LoadgenError:
        if status != "failed":
            raise
