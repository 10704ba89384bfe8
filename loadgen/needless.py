"""Which steps of a plan are still to be run, by what is stored: not those that are done, nor those that ``until``
spares, but those of blocks that are to be measured again.

In: a run's folder and its plan. Out: numbers of steps. The run asks when it begins, where a resumed one takes over what
is whole, and after every block; ``loadgen plan --resume`` asks the same.

**Again.** An invalid repeat condemns its cell, and a hiccup of one minute must not cost the hours around it. Only whole
blocks are measured again, of all targets, whatever the other repeats of the block came to: a pair is two repeats under
one drift of the machine, and the drift of a pair cancels with that of the other pair of its block (ABBA) where both
were measured in one stretch. What is measured again is chosen by a repeat's state, never by its value. The attempts
before stay in the store and in the report.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from loadgen.assemble import so_far
from loadgen.cells import Again, again_lines
from loadgen.errors import UsageError
from loadgen.plan import Plan, Step, part_of
from loadgen.repeat import Result
from loadgen.scenario import Scenario, from_public, public_dict
from loadgen.store import SET_ASIDE, Run, SetAside, number_of, write_json
from loadgen.until import enough, last_of_block, stands

ASKED = ("targets", "workload", "load", "matrix")
"""What a repeat is made of, beside the plan."""

REACHED = ("python", "api_key_env", "proxy", "devices")
"""Words of a target by which it, and what it runs on, is reached from here, and which may be mended before a run goes
on: a GPU has another number on another machine."""


class Old(NamedTuple):
    """A whole attempt at step ``number`` that is to count no longer; ``said`` is why."""

    number: int
    step: Step
    attempt: Path
    said: SetAside


class Left(msgspec.Struct, frozen=True):
    """What is left of a run: ``idle`` are the steps that are not run, ``again`` the blocks that are measured again."""

    idle: set[int] = msgspec.field(default_factory=set)
    again: Sequence[Sequence[Old]] = ()

    def beside(self, number: int) -> Sequence[Old]:
        """The attempts that count no longer once step ``number`` is measured: those of its block."""
        return next((block for block in self.again if any(old.number == number for old in block)), ())


def same_plan(run: Run, plan: Plan, scenario: Scenario) -> None:
    """What is added to a run must be what it was planned for: the same steps of the same targets, asked the same.

    Raises UsageError."""
    begun = msgspec.convert(run.read("plan.json"), Plan)
    if (begun.steps, begun.until, begun.searches) != (plan.steps, plan.until, plan.searches):
        raise UsageError(
            f"{run.id} has another plan than this scenario (cells, repeats, seed, comparison, search): resume it with "
            f"the flags that it began with, and the scenario of {run.folder}/scenario.yaml."
        )
    stored = public_dict(from_public(run.read("run.json")["scenario"], where=str(run.folder / "run.json")))
    now = public_dict(scenario)
    changed = [one for word in ASKED for one in _changed(stored[word], now[word], word)]
    if changed:
        more = f", and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise UsageError(
            f"{run.id} began with another scenario ({changed[0]}{more}): resume it with the flags that it began with, "
            f"and the scenario of {run.folder}/scenario.yaml, or begin a new run."
        )


def _changed(old: Any, new: Any, path: str) -> Iterator[str]:
    """What differs between two values of a scenario, each as a clause."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for word in {**old, **new}:
            if word not in REACHED:
                yield from _changed(old.get(word), new.get(word), f"{path}.{word}")
    elif old != new:
        was, is_now = (msgspec.json.encode(value).decode()[:60] for value in (old, new))
        yield f"{path} was {was} and is {is_now}"


def what_is_left(run: Run, plan: Plan, paired: bool, retry: bool) -> Left:
    """What is left of a run; with ``retry`` blocks that hold an invalid or a failed repeat are measured again. Where
    nothing is compared (not ``paired``) a repeat is a block of its own."""
    again = list(_wrong(run, plan, paired)) if retry else []
    idle = whole(run, plan, paired) - {old.number for block in again for old in block}
    pending = {number for number in range(len(plan.steps)) if number not in idle}
    return Left(idle | spared(run, plan, pending, None, lambda _: None), again)


def whole(run: Run, plan: Plan, paired: bool) -> set[int]:
    """Steps of pairs of which every target's repeat is whole. Where nothing is compared (``paired`` is False) a repeat
    is no part of a pair."""
    pairs: dict[tuple[str, int, str], list[int]] = {}
    for number, step in enumerate(plan.steps):
        pairs.setdefault((step.cell, step.rep, "" if paired else step.target), []).append(number)
    done: set[int] = set()
    for pair in pairs.values():
        steps = [plan.steps[number] for number in pair]
        if all(run.repeat(step.cell, step.target, step.rep).whole() for step in steps):
            done.update(pair)
    return done


# Again ----------------------------------------------------------------------------------------------------------------


def set_aside(block: Sequence[Old]) -> None:
    """These attempts count no longer. What is wrong is said last: until then the block is still found to be so, and a
    kill in the middle costs nothing."""
    for old in sorted(block, key=lambda old: old.said.why != ""):
        write_json(old.attempt / SET_ASIDE, old.said)


def again_sentences(left: Left) -> Iterator[str]:
    """What is measured again, and why, for people."""
    cells: dict[str, list[Again]] = {}
    for old in (old for block in left.again for old in block):
        one, said = old.step, old.said
        again = Again(target=one.target, rep=one.rep, attempt=None, before=said.attempt, state=said.state, why=said.why)
        cells.setdefault(one.cell, []).append(again)
    for cell, found in cells.items():
        yield from again_lines(cell, found)


def _wrong(run: Run, plan: Plan, paired: bool) -> Iterator[list[Old]]:
    blocks: dict[tuple[str, int, str], list[tuple[int, Step]]] = {}
    for number, step in enumerate(plan.steps):
        key = (step.cell, step.block, "") if paired else (step.cell, step.rep, step.target)
        blocks.setdefault(key, []).append((number, step))
    for block in blocks.values():
        found = [old for number, step in block if (old := _old(run, number, step)) is not None]
        if any(old.said.why for old in found):
            yield found


def _old(run: Run, number: int, step: Step) -> Old | None:
    attempt = run.repeat(step.cell, step.target, step.rep).whole()
    if attempt is None:
        return None
    found = msgspec.json.decode((attempt / "summary.json").read_bytes(), type=Result)
    return Old(number, step, attempt, _said(number_of(attempt), found))


def _said(attempt: int, found: Result) -> SetAside:
    state, why = found.summary.state, " ".join(doubt.text for doubt in found.summary.invalid)
    if state != "ok":
        return SetAside(attempt=attempt, state=state, why=why or "no request succeeded")
    return SetAside(attempt=attempt, state="degraded" if found.lost else "ok", why="; ".join(found.lost))


# Time and order -------------------------------------------------------------------------------------------------------


def rest_of(run: Run, plan: Plan, left: Left) -> Plan:
    """The plan of what is left. Its cells take as long as their repeats that are whole took, where there are any; with
    ``until`` the repeats of a block that was begun are among the fewest."""
    cells = []
    for cell in plan.cells:
        took = [end_s for step in plan.steps if step.cell == cell.id and (end_s := _took(run, step)) is not None]
        seconds, assumed = (sum(took) / len(took), "") if took else (cell.seconds, cell.assumed)
        least = max(cell.least, last_of_block(run.begun(cell.id))) if plan.until is not None else cell.least
        cells.append(msgspec.structs.replace(cell, seconds=seconds, assumed=assumed, least=least))
    steps = [step for number, step in enumerate(plan.steps) if number not in left.idle]
    return part_of(msgspec.structs.replace(plan, cells=tuple(cells)), steps)


def _took(run: Run, step: Step) -> float | None:
    """Seconds from the start of a whole repeat to the end of its window."""
    attempt = run.repeat(step.cell, step.target, step.rep).whole()
    if attempt is None:
        return None
    return msgspec.json.decode((attempt / "summary.json").read_bytes(), type=Result).summary.window.w1


# Until ----------------------------------------------------------------------------------------------------------------


def spared(run: Run, plan: Plan, pending: Collection[int], after: Step | None, say: Callable[[str], None]) -> set[int]:
    """Steps that the intervals make needless: of every ladder, or of that of the step ``after`` which a block ended,
    whatever became of it. It says how wide the interval is. A ladder is not judged while one of the steps that are
    ``pending`` belongs to a block that was begun: with it the interval may be another."""
    if plan.until is None:
        return set()
    ladders = {cell.id: cell.ladder for cell in plan.cells}
    found: set[int] = set()
    for ladder in dict.fromkeys(ladders.values()):
        if after is None:
            found |= _of_ladder(run, plan, ladder, (pending, 0), lambda _: None)
        elif ladder == ladders[after.cell]:
            found |= _of_ladder(run, plan, ladder, (pending, after.rep), say)
    return found


def _of_ladder(
    run: Run, plan: Plan, ladder: str, stands_at: tuple[Collection[int], int], say: Callable[[str], None]
) -> set[int]:
    pending, rep = stands_at
    cells = [cell for cell in plan.cells if cell.ladder == ladder and cell.routing is None]
    begun = {cell.id: max(rep, run.begun(cell.id)) for cell in cells}
    if plan.until is None or not cells or any(begun[cell.id] < cell.least for cell in cells):
        return set()
    left = [plan.steps[number] for number in pending]
    if any(step.cell in begun and step.rep <= last_of_block(begun[step.cell]) for step in left):
        return set()
    comparisons = so_far(run, plan, cells)
    done = enough(plan.until, cells, begun, comparisons)
    say(stands(plan.until, cells, comparisons, done))
    steps = enumerate(plan.steps)
    return {n for n, step in steps if done and step.cell in begun and step.rep > last_of_block(begun[step.cell])}
