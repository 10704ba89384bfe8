"""Searches as they lie in a store: which probes were made, which comes next, what they came to.

In: a run's folder and its plan. Out: the next `Probe`, or a `Searched` for the report. The plan of a search names no
loads, because each follows from what the ones before came to. A probe is written down before it is driven, in
``probes.json``: the step and the cell that it adds to the plan. Its repeat lies where every repeat lies. What comes
next is computed from whole repeats and nothing else, so that a run that was killed goes on with the probe it was killed
in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from loadgen.errors import EXIT_FAILED, EXIT_INVALID, EXIT_OBJECTIVE_MISSED, EXIT_OK, StoreError
from loadgen.plan import Plan, PlannedCell, PlannedSearch, Step, planned_cell, seed_of
from loadgen.repeat import Result
from loadgen.scenario import Cell, Loaded, Objective, parse_objective, public_dict
from loadgen.scenario.search_rules import probe_cell
from loadgen.search.path import Bracket, Goal, Stop, Word, bracket, next_load
from loadgen.search.sentence import answer, doubts, stopped, swept_sentence
from loadgen.search.sweep import Course, Leg, Swept, latency_at, next_leg, swept
from loadgen.search.verdict import Trial, answers, trial
from loadgen.store import Run
from loadgen.summary import Doubt, Summary

WAITS = ("ttft_s", "ttft_from_schedule_s", "e2e_s")
"""Times that a queue makes longer for as long as a load is too high."""

FILE = "probes.json"
VERSION = 1
"""Of the file's layout."""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """A window of a search: ``search`` counts into the plan's searches, ``number`` the probes of that one from 1.
    ``word`` and ``load`` are what is set in its cell."""

    search: int
    number: int
    word: Word
    load: float
    cell: PlannedCell
    step: Step


class Done(msgspec.Struct, frozen=True):
    """A probe whose repeat is whole."""

    probe: Probe
    summary: Summary


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What ``probes.json`` holds: every probe that was begun, in order, and why searches ended, by their number."""

    v: int = VERSION
    probes: tuple[Probe, ...] = ()
    stops: dict[str, Stop] = {}


def read_probes(run: Run) -> tuple[Probe, ...]:
    """Every probe that was begun, in order."""
    return _written(run).probes


def _written(run: Run) -> Written:
    """Raises StoreError for a file that is none of ours."""
    if not (run.folder / FILE).exists():
        return Written()
    try:
        return msgspec.convert(run.read(FILE), Written)
    except msgspec.ValidationError as error:
        raise StoreError(f"{run.folder / FILE} is no list of probes: {error}") from error


def read_plan(run: Run) -> Plan:
    """The plan of a run, with the cells and steps that its searches have added, by rising load."""
    plan = msgspec.convert(run.read("plan.json"), Plan)
    if not plan.searches:
        return plan
    probes = read_probes(run)
    order = sorted(probes, key=lambda probe: (plan.searches[probe.search].cell, probe.word, probe.load))
    cells = {probe.cell.id: probe.cell for probe in order}
    steps = tuple(probe.step for probe in probes)
    return msgspec.structs.replace(plan, cells=(*plan.cells, *cells.values()), steps=(*plan.steps, *steps))


def whole(run: Run, probes: Iterable[Probe]) -> list[Done]:
    """Those of the probes whose repeats are whole, with what was measured."""
    found = []
    for probe in probes:
        attempt = run.repeat(probe.step.cell, probe.step.target, probe.step.rep).whole()
        if attempt is not None:
            result = msgspec.json.decode((attempt / "summary.json").read_bytes(), type=Result)
            found.append(Done(probe, result.summary))
    return found


def trials_of(done: Sequence[Done], objectives: Sequence[Objective]) -> list[Trial]:
    """What is known of each load, in the order in which they were first tried."""
    windows: dict[float, list[Summary]] = {}
    for one in done:
        windows.setdefault(one.probe.load, []).append(one.summary)
    return [trial(load, objectives, found) for load, found in windows.items()]


def wanted(search: PlannedSearch, done: Sequence[Done], objectives: Sequence[Objective]) -> tuple[Word, float] | Stop:
    """The next load of a search and the word that sets it, or why there is none."""
    if isinstance(search.goal, Goal):
        load = next_load(search.goal, trials_of(done, objectives))
        return load if isinstance(load, Stop) else (search.goal.word, load)
    return next_leg(search.goal, legs_of(done))


def legs_of(done: Sequence[Done]) -> list[Leg]:
    """The steps of a sweep."""
    return [Leg(one.probe.word, one.probe.load, one.summary) for one in done]


def next_probe(run: Run, plan: Plan, index: int, pattern: Cell, loaded: Loaded) -> Probe | Stop:
    """The probe that is to be driven now: one whose repeat is not whole, else a new one, which is written down, as is
    the end. ``pattern`` is the cell that is searched in."""
    search, written = plan.searches[index], _written(run)
    mine = [probe for probe in written.probes if probe.search == index]
    done = whole(run, mine)
    if len(done) < len(mine):
        measured = {one.probe.number for one in done}
        return next(probe for probe in mine if probe.number not in measured)
    found = wanted(search, done, [parse_objective(text) for text in pattern.scenario.objectives])
    if isinstance(found, Stop):
        run.write(FILE, msgspec.structs.replace(written, stops={**written.stops, str(index): found}))
        return found
    word, load = found
    cell = probe_cell(pattern, word, load)
    rep = 1 + sum(probe.step.cell == cell.id for probe in mine)
    step = Step(cell=cell.id, target=search.target, rep=rep, block=1, seed=seed_of(cell, rep), server=search.server)
    probe = Probe(
        search=index,
        number=len(mine) + 1,
        word=word,
        load=load,
        cell=planned_cell(cell, cell.id, public_dict(loaded.scenario), loaded.path.parent.absolute()),
        step=step,
    )
    stops = {number: why for number, why in written.stops.items() if number != str(index)}
    run.write(FILE, msgspec.structs.replace(written, probes=(*written.probes, probe), stops=stops))
    return probe


def cells_of(probes: Iterable[Probe], plan: Plan, patterns: Mapping[str, Cell]) -> dict[str, Cell]:
    """The cells of probes, by id."""
    found = [probe_cell(patterns[plan.searches[one.search].cell], one.word, one.load) for one in probes]
    return {cell.id: cell for cell in found}


# For the report -------------------------------------------------------------------------------------------------------


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """A probe of the path, as the search saw it then.

    ``trial`` is what all windows of this load said together by then, None in a sweep, whose ``latency`` (s) is the
    measure that its knee is looked for in. ``answers`` is False where the client was the limit.
    """

    number: int
    cell: str
    rep: int
    word: Word
    load: float
    requests: int
    request_rps: float | None
    goodput: float | None
    answers: bool
    trial: Trial | None = None
    latency: float | None = None


class Searched(msgspec.Struct, frozen=True, kw_only=True):
    """A search of one target in one cell of the matrix.

    ``answer`` is the bracket of a search for the largest load, ``swept`` what a sweep came to. ``stop`` is why it tried
    no other load, None where it is not over. ``sentence`` says the answer and ``why`` why it stopped, both for people.
    """

    cell: str
    axes: dict[str, Any]
    target: str
    goal: Goal | Course
    probes: tuple[Looked, ...]
    answer: Bracket | None = None
    swept: Swept | None = None
    stop: Stop | None
    sentence: str
    why: str
    doubts: tuple[Doubt, ...] = ()

    @property
    def exit_code(self) -> int:
        """6 where the server is gone, 5 where the client is the limit, 3 where no load keeps the objectives, else 0."""
        if self.stop is None or not self.probes:
            return EXIT_OK
        if self.stop is Stop.GONE:
            return EXIT_FAILED
        if (self.answer is not None and self.answer.blind) or (self.swept is not None and self.swept.maximum is None):
            return EXIT_INVALID
        return EXIT_OBJECTIVE_MISSED if self.answer is not None and self.answer.holds is None else EXIT_OK


def searched(run: Run, plan: Plan, index: int, objectives: Sequence[Objective]) -> Searched:
    """A search of a plan as far as it has come."""
    search = plan.searches[index]
    done = whole(run, [probe for probe in read_probes(run) if probe.search == index])
    stop = _written(run).stops.get(str(index))
    known: dict[str, Any] = {"cell": search.cell, "axes": search.axes, "target": search.target, "goal": search.goal}
    return Searched(**known, **_came_to(search, done, objectives, stop), stop=stop)


def _came_to(
    search: PlannedSearch, done: Sequence[Done], objectives: Sequence[Objective], stop: Stop | None
) -> dict[str, Any]:
    goal, trials = search.goal, trials_of(done, objectives) if isinstance(search.goal, Goal) else []
    if isinstance(goal, Course):
        found = swept(goal, legs_of(done))
        over = f"after {len(done)} steps" if stop is not None else "it is not over: --resume goes on"
        said = {"swept": found, "sentence": swept_sentence(goal, found), "why": over}
        return said | {"probes": tuple(_looked(one, None, latency_at(goal, one.summary)) for one in done)}
    waits = [(one.text, one.value) for one in objectives if one.metric in WAITS]
    return {
        "answer": bracket(trials),
        "sentence": ("so far " if trials and stop is None else "") + answer(goal, trials),
        "why": stopped(goal, trials, stop),
        "doubts": tuple(doubts(goal, trials, search.seconds, waits)) if trials else (),
        "probes": tuple(_looked(one, _trial_then(done[: i + 1], objectives), None) for i, one in enumerate(done)),
    }


def _trial_then(done: Sequence[Done], objectives: Sequence[Objective]) -> Trial:
    """What was known of the load of the last of these probes."""
    load = done[-1].probe.load
    return trial(load, objectives, [one.summary for one in done if one.probe.load == load])


def _looked(done: Done, known: Trial | None, latency: float | None) -> Looked:
    probe, one = done.probe, done.summary
    return Looked(
        number=probe.number,
        cell=probe.cell.id,
        rep=probe.step.rep,
        word=probe.word,
        load=probe.load,
        requests=one.requests,
        request_rps=one.request_rps,
        goodput=one.goodput,
        answers=answers(one),
        trial=known,
        latency=latency,
    )
