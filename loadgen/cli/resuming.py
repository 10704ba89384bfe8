"""The flags that go on with a run: ``run`` does it, ``plan`` says what is left and how long that takes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loadgen.cli.flags import known_runs
from loadgen.errors import UsageError

if TYPE_CHECKING:
    from loadgen.assemble import RunReport
    from loadgen.plan import Plan
    from loadgen.scenario import Scenario
    from loadgen.store import Run

NAMED = 3
"""So many of the repeats that are missing are named."""

Resume = Annotated[
    str | None,
    typer.Option(
        "--resume", help="Go on with this run (its name, a part of it, or `last`).", autocompletion=known_runs
    ),
]
Retry = Annotated[
    bool,
    typer.Option(
        "--retry-invalid",
        help="With --resume: measure what is invalid or failed again, in whole blocks (ABBA) of all targets.",
    ),
]


def begun(store: Path | None, resume: str | None, retry: bool, scenario: Scenario) -> Run | None:
    """The run to go on with, None for a new one. Raises UsageError."""
    from loadgen.store import find_run, store_root

    if retry and resume is None:
        raise UsageError("--retry-invalid: belongs to --resume RUN: say which run's invalid repeats are meant.")
    if retry and scenario.search is not None:
        raise UsageError(
            "--retry-invalid: the probes of a search follow from one another, and it measures invalid ones again by "
            "itself; search anew, or go on with --resume alone."
        )
    return None if resume is None else find_run(store_root(store), resume)


def refuse_beside(resume: str | None, retry: bool, others: Mapping[str, object]) -> None:
    """Raises UsageError for a flag of ``plan`` that shows something else than what a run has left."""
    for flag, given in others.items():
        if given and (resume is not None or retry):
            raise UsageError(
                f"{flag}: shows something else than what a run has left (--resume); leave one of the two out."
            )


def hints(report: RunReport, scenario: Path, quiet: bool) -> Iterator[str]:
    """How what a run lacks is measured, and what is invalid or failed measured again; nothing of a search, which finds
    its own way. That repeats are missing is no progress, and is said where one wants to hear none (``quiet``), too."""
    shard = bool(report.run.get("shard"))
    found = [] if report.searches else list(_missing(report))
    resumed = ["loadgen", "run", str(scenario), "--resume", str(report.run["run"])]
    if found:
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        how = "" if shard else f" `{shlex.join(resumed)}`, with the same flags, measures them."
        yield f"loadgen: planned repeats are missing: {'; '.join(found[:NAMED])}{more}.{how}"
    states = {target.state for cell in (*report.cells, *report.routing_cells) for target in cell.targets}
    if not (report.searches or shard or quiet) and states & {"invalid", "failed"}:
        words = shlex.join([*resumed, "--retry-invalid"])
        yield f"loadgen: `{words}`, with the same flags, measures what is invalid or failed again."


def _missing(report: RunReport) -> Iterator[str]:
    """The places of repeats that are not whole; none where nothing was measured, and a new run does as well."""
    from loadgen.cells import place_of

    cells = (*report.cells, *report.routing_cells)
    if not any(target.summaries for cell in cells for target in cell.targets):
        return
    for cell in cells:
        for target in cell.targets:
            for number, summary in enumerate(target.whole, 1):
                if summary is None:
                    yield place_of(cell.id, target.target, number)


def left_of(run: Run, plan: Plan, scenario: Scenario, retry: bool) -> tuple[Plan, list[str]]:
    """The plan of what a run has left, and what is to be said of it. Raises UsageError for another run's plan."""
    from loadgen.needless import rest_of, same_plan, what_is_left
    from loadgen.reports.left import lines

    same_plan(run, plan, scenario)
    left = what_is_left(run, plan, scenario.comparison is not None, retry)
    return rest_of(run, plan, left), lines(run, plan, left)
