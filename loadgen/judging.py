"""What request lines come to: when a repeat ends, when shards are merged, and again later by other rules.

In: the lines in a folder, the load that was offered, and what the fleet left. Out: a summary with its doubts, its parts
by turn, endpoint and source, and what was lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from loadgen.drive.job import Shape
from loadgen.drive.schedule import share
from loadgen.fleet import Outcome
from loadgen.judge import asked, limits
from loadgen.parts import Part, gone, parts_by
from loadgen.record import read_records
from loadgen.scenario import Cell, parse_objective
from loadgen.store import request_files
from loadgen.summarise import summarise
from loadgen.summary import Context, Doubt, Summary, Window


class Judged(NamedTuple):
    """What request lines come to: the summary, its parts by kind, and what was lost of workers and endpoints."""

    summary: Summary
    parts: dict[str, dict[str, Part]]
    lost: tuple[str, ...]


def judged(
    cell: Cell, offered: tuple[Shape, int], folder: Path, window: Window, left: tuple[Outcome, Sequence[Doubt]]
) -> Judged:
    """The request lines in ``folder``, summed up: those of a repeat that is over, of merged shards, or of a stored run.
    ``offered`` is the load and its seed, ``left`` what the fleet left and the doubts that are known already."""
    outcome, doubts = left
    kinds = _kinds(outcome, cell)
    missing = _endpoint_doubts(kinds, folder)
    context = _context(cell, offered, window, outcome, (*missing, *doubts))
    return Judged(
        summarise(read_records(request_files(folder)), window, context, folder),
        parts_by(kinds, lambda: read_records(request_files(folder)), window, context),
        (*outcome.lost, *(doubt.text for doubt in missing)),
    )


def _context(
    cell: Cell, offered: tuple[Shape, int], window: Window, outcome: Outcome, doubts: Sequence[Doubt]
) -> Context:
    """What the summary must know besides the records; ``offered`` is the load and its seed."""
    objectives = [parse_objective(text) for text in cell.scenario.objectives]
    workload, load = cell.scenario.workload, cell.scenario.load
    index, of = outcome.share
    return Context(
        exact_tok=None if workload.output.exact is None else workload.output.number or 0,
        stream=workload.stream,
        concurrency=len(range(index, load.concurrency, of)) if load.concurrency else None,
        scheduled=_scheduled(*offered, window, outcome.share),
        conversations="turn" in _kinds(outcome, cell),
        burst=load.burst is not None,
        worker_cpu=tuple(audit.cpu_share for audit in outcome.audits if audit.cpu_share is not None),
        limits=limits(objectives),
        asked=asked(objectives),
        skew_s=outcome.skew_s,
        doubts=tuple(doubts),
    )


def _kinds(outcome: Outcome, cell: Cell) -> list[str]:
    """The kinds of parts that this repeat may have."""
    talked = any(audit.conversations is not None for audit in outcome.audits)
    mixed = cell.scenario.workload.prompts == "mix"
    several = any(len(target.urls) > 1 for target in cell.scenario.targets.values())
    return [kind for kind, there in (("turn", talked), ("endpoint", several), ("source", mixed)) if there]


def _endpoint_doubts(kinds: Sequence[str], folder: Path) -> list[Doubt]:
    """What weakens a repeat of several endpoints, some of which were gone at its end."""
    missing = gone(read_records(request_files(folder))) if "endpoint" in kinds else []
    if not missing:
        return []
    text = f"Gone at the end: {', '.join(missing)}; the last requests there found no server. Their share of the load is"
    return [Doubt("endpoint_lost", f"{text} among the failed; what the other endpoints did beside it was measured.")]


def _scheduled(shape: Shape, seed: int, window: Window, part: tuple[int, int]) -> int | None:
    """How many requests an open loop wanted to send in the window; None for a closed loop, or without a window."""
    if shape.arrival is None or shape.window_s is None:
        return None
    count = 0
    for _, offset in share(shape.arrival, seed, *part):
        if offset >= window.w1:
            break
        count += offset >= window.w0
    return count


def worker_doubts(outcome: Outcome, workers: int, wanted: int) -> list[Doubt]:
    """What weakens a repeat for the sake of its workers: of ``workers`` that began, ``wanted`` were to be there."""
    doubts = [*outcome.doubts]
    if workers < wanted:
        text = f"The load was dealt to {workers} of {wanted} workers: the others were lost before this repeat."
        doubts.append(Doubt("fewer_workers", text))
    if outcome.lost:
        names = "; ".join(outcome.lost)
        doubts.append(
            Doubt("worker_lost", f"{len(outcome.lost)} of {workers} workers died ({names}): their load is missing.")
        )
    unset = [clock.host for clock in outcome.clocks if clock.error_us is None]
    if unset:
        hosts = ", ".join(sorted(set(unset)))
        text = f"Nobody sets the clocks of {hosts}: by how much their workers started apart is not known."
        doubts.append(Doubt("clock_unknown", text))
    steps = sum(audit.clock_steps for audit in outcome.audits)
    if steps:
        doubts.append(Doubt("clock_step", f"The clock of this machine was set {steps} times during the repeat."))
    return doubts
