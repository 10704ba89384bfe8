"""The story of a night, and the only file that knows its order::

    lock -> retention -> preflight -> run -> verdict -> confirm -> report -> retention, site -> tell

In: `Asked`. Out: a `NightReport`, and in the store a run that has become a night. Whatever ends it before its verdict
is written down (a kill, a power cut, Ctrl-C) leaves a run that ``resume`` goes on with; what goes wrong after that
costs its own step and no other, and is said.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from loadgen.alone import gpus_here, places_of
from loadgen.assemble import RunReport
from loadgen.cells import too_late
from loadgen.doctor.finding import Finding
from loadgen.errors import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_REGRESSION,
    BusyError,
    LoadgenError,
    PreflightError,
    UsageError,
)
from loadgen.locks import held, machine_locks, name_lock
from loadgen.nightly import afterwards
from loadgen.nightly.budget import NIGHTS, in_time, pace, within
from loadgen.nightly.past_runs import confirming, last_profile, paces, planned_cells, unfinished
from loadgen.nightly.preflight import examine, other_profile
from loadgen.nightly.telling import tell_not_run, wrongs
from loadgen.nights.baseline import news
from loadgen.nights.events import Night, append
from loadgen.nights.history import History, noise_floors, read_history
from loadgen.nights.night import NightReport, exit_code_of, sentence
from loadgen.nights.series import points_of
from loadgen.nights.verdicts import SeriesVerdict, State, confirm, gates_of, judge
from loadgen.ownership import close_abandoned
from loadgen.retention import KEEP_S
from loadgen.run import Request, Watcher, execute
from loadgen.scenario import Cell, Loaded, expand
from loadgen.store import Run, make_folder

MEASURE, CONFIRM = "measure", "confirm"
"""What a run is to its night: ``night.part`` of run.json."""


class Asked(msgspec.Struct, frozen=True):
    """What a nightly is to do. ``wait_s`` is how long it waits for its locks, ``budget_s`` how long it may take (None:
    as long as it takes). ``resume`` goes on with a night that was not finished, if there is one. ``anyway`` measures
    in spite of what the preflight finds. Request lines are kept for ``keep_s``. ``named`` says that the profile was
    asked for, and not chosen by what this machine has."""

    loaded: Loaded
    store: Path
    wait_s: float = 0.0
    budget_s: float | None = None
    resume: bool = False
    anyway: bool = False
    keep_s: float = KEEP_S
    named: bool = False

    @property
    def name(self) -> str:
        """What the night is called: its scenario."""
        return self.loaded.scenario.name

    @property
    def webhook(self) -> str | None:
        """The name of the variable that holds the webhook's URL."""
        return self.loaded.scenario.nightly.webhook_env


class _State(msgspec.Struct):
    """What a night knows while it goes on. ``began`` is when it had its locks, ``measured`` the folder of its run once
    that is over."""

    asked: Asked
    watcher: Watcher
    began: float
    measured: str | None = None
    paced: float = 1.0
    profile_before: str | None = None
    left_out: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    unconfirmed: list[str] = msgspec.field(default_factory=list)
    failures: list[str] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)

    @property
    def ends_at(self) -> float:
        """When the budget is used up (CLOCK_MONOTONIC)."""
        return math.inf if self.asked.budget_s is None else self.began + self.asked.budget_s

    def left_s(self) -> float:
        """Seconds that are left of the budget."""
        return self.ends_at - time.monotonic()


def nightly(asked: Asked, watcher: Watcher) -> tuple[NightReport, RunReport]:
    """Does a night, and gives its report with that of its run. Raises BusyError if another has what it needs,
    PreflightError if nothing could be measured, LoadgenError for what stops it later; people are told of these too, but
    for a night that is at it already."""
    cells = expand(asked.loaded.scenario)
    if any(cell.scenario.search is not None for cell in cells):
        raise UsageError(f"{asked.name} is a search, whose loads are others every night: give a nightly a fixed load.")
    purpose, until = f"nightly {asked.name}", time.monotonic() + asked.wait_s
    state = _State(asked, watcher, until)
    with ExitStack() as stack:
        with _told_of_failure(state, but=BusyError):  # that night tells of itself
            make_folder(asked.store)
            stack.enter_context(held([name_lock(asked.store, asked.name)], purpose, asked.wait_s, watcher.say))
        with _told_of_failure(state):
            places = machine_locks(places_of(cells, gpus_here()))
            stack.enter_context(held(places, purpose, max(until - time.monotonic(), 0.0), watcher.say))
            state.began = time.monotonic()
            night, report = _night(state, cells)
        return (night if night.interrupted else _finished(state, night)), report


@contextmanager
def _told_of_failure(state: _State, but: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """People are told why a night did not come to its verdict."""
    asked = state.asked
    try:
        yield
    except but:
        raise
    except Exception as error:
        ours = isinstance(error, LoadgenError | OSError)
        why = str(error) if ours else f"a bug, {type(error).__name__}: {error}"
        problems = tell_not_run(asked.store, asked.name, asked.webhook, why, state.measured)
        if problems and isinstance(error, LoadgenError):
            error.args = (" ".join([why, *problems]),)
        raise


def _night(state: _State, cells: list[Cell]) -> tuple[NightReport, RunReport]:
    """From preflight to verdict."""
    asked = state.asked
    close_abandoned(asked.store, state.watcher.say)
    for problem in afterwards.attempted(
        "retention", lambda: afterwards.clean(asked.store, asked.keep_s, state.watcher.say)
    ):
        state.watcher.say(problem)  # a disk that is nearly full gets room now, and not after a night that never begins
    past = read_history(asked.store, state.watcher.say)
    resumed = _to_resume(asked, past, state.watcher.say)
    chosen = _chosen(state, cells, resumed, past)
    _preflight(state, [cell for cell in cells if cell.id in chosen])
    note = {"part": MEASURE, "left_out": state.left_out}
    request = Request(asked.loaded, asked.store, resumed, cells=chosen, night=note, ends_at=state.ends_at)
    report = execute(request, state.watcher)
    state.measured = report.path
    _note_missing(state, report)
    plain = NightReport(
        name=asked.name, run=str(report.run["run"]), path=report.path, started=str(report.run["started"]),
        went_on=resumed is not None, left_out=state.left_out, findings=state.findings, exit_code=report.exit_code,
    )  # fmt: skip
    return (plain if plain.interrupted else _judged(state, plain, report)), report


def _note_missing(state: _State, report: RunReport) -> None:
    """Cells that the night planned and that the budget left no time for count as left out, so that nobody takes their
    series for ended ones. Those that it came to when it was gone on with count no longer."""
    missing = [
        cell.id
        for cell in report.cells
        if any(0 < len(target.results) == len(too_late(cell.id, target, report.run)) for target in cell.targets)
    ]
    state.left_out += tuple(missing)
    run = Run(Path(report.path))
    described = run.read("run.json")
    if tuple(described["night"].get("left_out") or ()) != state.left_out:
        run.write("run.json", {**described, "night": {**described["night"], "left_out": state.left_out}})


def _to_resume(asked: Asked, past: History, say: Callable[[str], None]) -> Run | None:
    if not asked.resume:
        return None
    found = unfinished(asked.store, asked.loaded.scenario, {night.run for night in past.nights}, MEASURE)
    say(f"going on with {found.id}" if found else "there is no night of this scenario to go on with; a new one begins")
    return found


def _chosen(state: _State, cells: Sequence[Cell], resumed: Run | None, past: History) -> Collection[str]:
    """The cells of this night, by id. A night that goes on has those that it began with."""
    asked = state.asked
    nights = [night.run for night in past.nights if night.scenario == asked.name]
    state.paced = pace(paces(asked.store, nights[-NIGHTS:]))
    state.profile_before = last_profile(asked.store, nights)
    if resumed is not None:
        planned, noted = planned_cells(resumed), resumed.read("run.json").get("night") or {}
        state.left_out = tuple(cell for cell in noted.get("left_out") or () if cell not in planned)
        return planned
    if asked.budget_s is None:
        return [cell.id for cell in cells]
    folder = asked.loaded.path.parent
    kept, left_out = within(asked.budget_s, asked.loaded.scenario, cells, state.paced, folder)
    state.left_out = tuple(left_out)
    if left_out:
        state.watcher.say(f"the budget has no time for {len(left_out)} cells: {', '.join(left_out)}")
    return [cell.id for cell in kept]


def _preflight(state: _State, cells: Sequence[Cell]) -> None:
    """Raises PreflightError with every problem, unless the night is to go on anyway."""
    asked = state.asked
    other = () if asked.named else other_profile(asked.loaded, state.profile_before)
    state.findings = (*other, *examine(asked.loaded, cells, asked.store))
    for one in state.findings:
        state.watcher.say(f"{one.state}: {sentence(one)}")
    wrong = [sentence(one) for one in state.findings if one.state == "problem"]
    if wrong and not asked.anyway:
        raise PreflightError(f"the night was not begun. {' '.join(wrong)} (--anyway measures in spite of it.)")


# Verdict --------------------------------------------------------------------------------------------------------------


def _judged(state: _State, night: NightReport, report: RunReport) -> NightReport:
    """The night with its verdicts, written down. An interrupted second measurement leaves it open."""
    asked, scenario = state.asked, report.run["scenario"]
    points = points_of(report)
    history = read_history(asked.store, state.watcher.say)
    if history.alternates(asked.name, points):
        state.notes.append(
            f"The last night called {asked.name} measured other series, and an earlier one these. Two scenarios of one "
            "name take each other's place: give each a `name:` of its own."
        )
    pasts, gates = history.pasts(points, noise_floors(asked.store, report, points)), gates_of(scenario)
    verdicts = judge(points, pasts, gates)
    again = _again(state, night, [one for one in verdicts if one.candidate])
    codes = [report.exit_code, *([again.exit_code] if again else []), *([EXIT_FAILED] if state.failures else [])]
    if again is not None:
        night = msgspec.structs.replace(night, confirmed_by=again.path, exit_code=exit_code_of(codes))
        if night.interrupted:
            return night
        verdicts = confirm(verdicts, points_of(again), pasts, gates)
    codes += [EXIT_REGRESSION] if any(one.state is State.REGRESSION for one in verdicts) else []
    at, code = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), exit_code_of([EXIT_OK, *codes])
    confirms = (str(again.run["run"]),) if again else ()
    event = Night(
        at=at, run=night.run, scenario=asked.name, verdicts=tuple(verdicts), confirms=confirms, exit_code=code
    )
    append(asked.store, [event, *news(verdicts, pasts, at)])
    unwell = {one.series.key for one in verdicts if one.state not in (State.OK, State.LEARNING)}
    changed = {one.series.key: tuple(history.changed(one)) for one in points if one.series.key in unwell}
    return msgspec.structs.replace(
        night, verdicts=tuple(verdicts), changed=changed, unconfirmed=tuple(state.unconfirmed),
        failures=(*wrongs(report), *wrongs(again, "Measured again: "), *state.failures), notes=tuple(state.notes),
        exit_code=code,
    )  # fmt: skip


def _again(state: _State, night: NightReport, candidates: Sequence[SeriesVerdict]) -> RunReport | None:
    """Measures the cells of the candidates once more, with fresh servers, as a run of its own; what keeps it from that
    is noted, and the candidates remain suspect."""
    if not candidates:
        return None
    asked = state.asked
    begun = confirming(asked.store, night.run)
    ids = planned_cells(begun) if begun else _in_time(state, candidates)
    if not ids:
        return None
    state.watcher.say(f"{len(candidates)} series seem worse; measuring again: {', '.join(ids)}")
    note = {"part": CONFIRM, "confirms": night.run}
    try:
        request = Request(asked.loaded, asked.store, begun, cells=ids, night=note, ends_at=state.ends_at)
        return execute(request, state.watcher)
    except LoadgenError as error:
        state.failures.append(f"The candidates could not be measured again: {error}")
        return None


def _in_time(state: _State, candidates: Sequence[SeriesVerdict]) -> list[str]:
    """The cells of the candidates, the least likely to be chance first, for as many as the budget has time left."""
    scenario = state.asked.loaded.scenario
    cells = {cell.id: cell for cell in expand(scenario)}
    by_chance = sorted(candidates, key=lambda one: one.p or 0.0)
    wanted = [cells[name] for name in dict.fromkeys(one.series.cell for one in by_chance)]
    kept, late = in_time(state.left_s(), scenario, wanted, state.paced, state.asked.loaded.path.parent)
    state.unconfirmed += late
    return kept


def _finished(state: _State, night: NightReport) -> NightReport:
    asked = state.asked
    gates = asked.loaded.scenario.nightly.gate
    return afterwards.finished(
        afterwards.Asked(asked.store, asked.webhook, gates, asked.keep_s), night, state.watcher.say
    )
