"""Scenarios and what comes of them: ``run``, ``report``, ``schema``."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loadgen.cli.flags import (
    Cells,
    Endpoint,
    Model,
    Profile,
    Runs,
    ScenarioPath,
    Sets,
    Store,
    Targets,
    Wait,
    chosen,
    known_formats,
    waiting,
)
from loadgen.cli.fleets import Address, FleetKind, Share, StartAt, Workers, elsewhere, settings
from loadgen.cli.resuming import Resume, Retry, begun, hints
from loadgen.cli.screen import Screen, put, speaks_unicode, tell, width

if TYPE_CHECKING:
    from loadgen.assemble import RunReport
    from loadgen.scenario import Loaded

commands = typer.Typer()

AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


@commands.command(epilog="Example: loadgen run scenarios/moe_vs_dense.yaml --set repeats=2")
def run(
    scenario: ScenarioPath,
    store: Store = None,
    profile: Profile = None,
    sets: Sets = None,
    endpoint: Endpoint = None,
    model: Model = None,
    targets: Targets = None,
    cells: Cells = None,
    resume: Resume = None,
    retry: Retry = False,
    fleet: FleetKind = None,
    workers: Workers = None,
    address: Address = None,
    share: Share = None,
    start_at: StartAt = None,
    wait: Wait = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the servers up, and say how to end them.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on standard error.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a scenario from launch to report.

    Servers that it starts have their GPUs alone, or the cores where there are no GPUs: exit code 75 if another run is
    at it.
    """
    from loadgen.fleet.shard import check
    from loadgen.ownership import close_abandoned
    from loadgen.run import Request, execute
    from loadgen.scenario import expand
    from loadgen.store import store_root

    root, patience = store_root(store), waiting(wait)
    place = elsewhere(address, share, start_at)
    sets = [*(sets or ()), *settings(fleet, workers, place, resume)]
    loaded = load(scenario, sets, profile, endpoint, model, targets)
    only = [cell.id for cell in chosen(expand(loaded.scenario), cells)] if cells else None
    run_begun = begun(store, resume, retry, loaded.scenario)
    close_abandoned(root, tell)
    name_leftovers(root)
    if place.shard is not None:
        check(place.shard, [cell.scenario for cell in expand(loaded.scenario)])
    request = Request(loaded, root, run_begun, keep, only, elsewhere=place, wait_s=patience, retry=retry)
    with Screen(quiet) as screen:
        report = execute(request, screen.progress)
    _print_report(report, as_json)
    for line in hints(report, scenario, quiet):
        tell(line)
    raise typer.Exit(report.exit_code)


@commands.command(epilog="Example: loadgen report last --format markdown")
def report(
    which: Runs,
    store: Store = None,
    form: Annotated[
        str,
        typer.Option("--format", help="text, markdown, csv, json, junit or html.", autocompletion=known_formats),
    ] = "text",
    layout: Annotated[
        str | None,
        typer.Option("--layout", help="published: the columns of the published table that the runs measure again."),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Write the page anew, and show it in the browser.")] = False,
    plain: Annotated[
        bool, typer.Option("--no-charts", help="With html: tables alone, small enough for a mail.")
    ] = False,
) -> None:
    """Rebuild the report of a run from its records.

    Several runs are shown side by side. Every format but text is UTF-8, whatever the locale.
    """
    from loadgen.assemble import assemble
    from loadgen.errors import StoreError, UsageError
    from loadgen.ownership import close_if_abandoned
    from loadgen.reports import html
    from loadgen.reports.formats import check, render
    from loadgen.store import find_run, store_root

    if plain and (form != "html" or show):
        raise UsageError("--no-charts: goes with --format html, and with nothing else.")
    if layout is not None and show:
        raise UsageError("--layout: a page has a layout of its own; leave one of --layout and --open out.")
    runs = {run.folder: run for run in (find_run(store_root(store), one) for one in which)}
    found = list(runs.values())  # one that is named twice is shown once
    check(form, len(found), layout)
    for one in found:
        with contextlib.suppress(StoreError):  # a store that is only to be read has its reports as well
            close_if_abandoned(one)
    built = [assemble(one) for one in found]
    if show:
        for each in built:
            _open(each)
    elif plain:
        put(html.render(built[0], charts=False))
    elif form == "text":
        print(render(form, built, width(sys.stdout), speaks_unicode(sys.stdout), layout), end="")
    else:
        put(render(form, built, layout=layout))


@commands.command(epilog="Example: loadgen schema > scenario-v1.json")
def schema(
    of_report: Annotated[bool, typer.Option("--report", help="That of `loadgen report --format json`.")] = False,
) -> None:
    """Print the JSON schema of scenario files, for editors."""
    from loadgen.reports import json as json_report
    from loadgen.scenario import json_schema

    print(json_report.schema() if of_report else json_schema(), end="")


def load(
    path: Path,
    sets: list[str] | None,
    profile: str | None,
    endpoint: str | None,
    model: str | None,
    targets: list[str] | None = None,
) -> Loaded:
    """The scenario that the flags mean on this machine. Raises ScenarioError."""
    from loadgen import host, scenario

    return scenario.load(
        path,
        sets=sets or (),
        profile=profile,
        machine=host.machine(),
        endpoint=endpoint,
        model=model,
        targets=targets or (),
    )


def name_leftovers(root: Path) -> None:
    """Servers that a killed run left behind are named; they hold memory and cores that this run would miss."""
    from loadgen.launch import leftovers

    found = leftovers(root)
    for left in found:
        tell(f"loadgen: {left.sentence()}")
    if found:
        tell("loadgen: `loadgen doctor --stop` ends what is left, and proves it.")


def _open(built: RunReport) -> None:
    """Writes the page of a run and shows it; where there is no browser, says where it lies."""
    import webbrowser

    from loadgen.reports import html
    from loadgen.store import write_bytes

    page = (Path(built.path) / "report.html").absolute()
    write_bytes(page, html.render(built).encode())
    if not webbrowser.open(page.as_uri()):
        tell("loadgen: there is no browser here to show it.")
    print(page)


def _print_report(built: RunReport, as_json: bool) -> None:
    from loadgen.reports import json as json_report
    from loadgen.reports import text as text_report

    if as_json:
        put(json_report.render(built))
        return
    print(text_report.render(built, width(sys.stdout), unicode=speaks_unicode(sys.stdout)), end="")
