"""``nightly``: what cron calls."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loadgen.cli import runs
from loadgen.cli.flags import Endpoint, Model, Profile, ScenarioPath, Sets, Store, Wait, period, waiting
from loadgen.cli.screen import Screen, put, speaks_unicode, tell, width

if TYPE_CHECKING:
    from loadgen.assemble import RunReport
    from loadgen.nights.night import NightReport

commands = typer.Typer()


@commands.command(epilog="Example: loadgen nightly scenarios/moe_vs_dense.yaml --budget 3h")
def nightly(
    scenario: ScenarioPath,
    store: Store = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget", metavar="TIME", help="How long it may take; the last cells that do not fit are left out."
        ),
    ] = None,
    wait: Wait = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a night that was not finished.")] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Measure in spite of what the preflight finds.")] = False,
    keep_requests: Annotated[
        str, typer.Option("--keep-requests", metavar="TIME", help="How long request lines are kept.")
    ] = "90d",
    junit: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML, for CI.")] = None,
    profile: Profile = None,
    sets: Sets = None,
    endpoint: Endpoint = None,
    model: Model = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on standard error.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the night as JSON.")] = False,
) -> None:
    """Run a scenario as a night, and say what is worse than before.

    It is measured, held against earlier nights, confirmed, kept and told.

    For cron, systemd and CI. Exit codes: 0 good, 3 an objective missed, 4 a confirmed regression, 5 a measurement that
    is not to be trusted or that the budget cut, 6 nothing could be measured or a target failed, 75 another run is at
    it, 130 and 143 interrupted.
    """
    from loadgen.nightly.story import Asked
    from loadgen.nightly.story import nightly as run_night
    from loadgen.reports import night as report
    from loadgen.store import store_root

    asked = Asked(
        runs.load(scenario, sets, profile, endpoint, model),
        store_root(store),
        wait_s=waiting(wait),
        budget_s=period(budget) if budget is not None else None,
        resume=resume,
        anyway=anyway,
        keep_s=period(keep_requests),
        named=profile is not None,
    )
    with Screen(quiet) as screen:
        night, measured = run_night(asked, screen.progress)
    if as_json:
        put(report.render_json(night))
    else:
        print(report.render(night, width(sys.stdout), unicode=speaks_unicode(sys.stdout)), end="")
    _publish(night, measured, junit)
    raise typer.Exit(night.exit_code)


def _publish(night: NightReport, measured: RunReport, junit: Path | None) -> None:
    """For the CI system that called us: its page and its tests. What goes wrong is said, and fails nothing."""
    from loadgen.errors import StoreError
    from loadgen.nightly.notify import write_summary
    from loadgen.reports import junit as tests
    from loadgen.reports import markdown
    from loadgen.reports import night as report
    from loadgen.store import write_bytes

    problems = [write_summary(report.render_markdown(night, markdown.render(measured)))]
    if junit is not None:
        try:
            write_bytes(junit, tests.render([measured], list(report.cases(night))).encode())
        except StoreError as error:
            problems.append(str(error))
    for problem in filter(None, problems):
        tell(f"loadgen: {problem}")
