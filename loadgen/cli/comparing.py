"""Held against each other: ``compare`` stored runs, ``calibrate`` what a comparison on this machine can tell."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from loadgen.cli import runs
from loadgen.cli.flags import Endpoint, Model, Profile, Runs, ScenarioPath, Sets, Store, Wait, waiting
from loadgen.cli.screen import Screen, put, speaks_unicode, width

commands = typer.Typer()

Factor = Annotated[
    list[str] | None, typer.Option("--factor", metavar="WORD", help="What is meant to differ: engine. May be repeated.")
]


@commands.command(epilog="Example: loadgen compare 3f9a01 last --factor engine_version")
def compare(
    which: Runs,
    baseline: Annotated[
        str | None, typer.Option("--baseline", metavar="TARGET", help="A target of the first run.")
    ] = None,
    candidate: Annotated[
        list[str] | None,
        typer.Option("--candidate", metavar="TARGET", help="A target of the later runs. May be repeated."),
    ] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", help="Decides the verdict: output_tok_s, 'p99 ttft' (default: the run's).")
    ] = None,
    margin: Annotated[str | None, typer.Option("--margin", help="Smaller differences in it do not matter: 3%.")] = None,
    factor: Factor = None,
    store: Store = None,
    form: Annotated[str, typer.Option("--format", help="text, markdown or json.")] = "text",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Hold stored runs against each other, or the targets of one.

    The first run is the baseline; of each later one the cells with the same axes are compared, targets by their names.
    Nothing else than what --factor names may differ. Exit codes: 0, or 5 where a side is invalid.
    """
    from loadgen.across import across
    from loadgen.assemble import assemble
    from loadgen.errors import UsageError
    from loadgen.matching import Asked
    from loadgen.noise import noise_of
    from loadgen.reports import across as report
    from loadgen.store import find_run, store_root

    if form not in ("text", "markdown", "json"):
        raise UsageError(f"--format {form}: there are text, markdown and json.")
    root = store_root(store)
    asked = Asked(
        baseline=baseline,
        candidates=tuple(candidate or ()),
        metric=_metric(metric),
        margin=_margin(margin),
        factor=None if factor is None else tuple(factor),
    )
    found = across(
        [assemble(find_run(root, one)) for one in which],
        asked,
        lambda machine, scope, load, measure: noise_of(root, machine, scope, load, measure),
    )
    if as_json or form == "json":
        put(report.render_json(found))
    elif form == "markdown":
        put(report.render_markdown(found))
    else:
        print(report.render(found, width(sys.stdout), speaks_unicode(sys.stdout)), end="")
    raise typer.Exit(found.exit_code)


@commands.command(epilog="Example: loadgen calibrate scenarios/moe_vs_dense.yaml --target dense")
def calibrate(
    scenario: ScenarioPath,
    target: Annotated[
        str | None, typer.Option("--target", help="The target (default: the comparison's baseline, else the first).")
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=3, help="Repeats of each side; best an even number.")] = 6,
    store: Store = None,
    profile: Profile = None,
    sets: Sets = None,
    endpoint: Endpoint = None,
    model: Model = None,
    wait: Wait = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on standard error.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Measure the noise of this machine: a target against itself.

    What its repeats differ by is kept in the store; later comparisons under the same load say when they claim less.
    """
    from loadgen.calibrate import against_itself, chosen, floor_of
    from loadgen.noise import write_floor
    from loadgen.reports import calibrate as calibration
    from loadgen.run import Request, execute
    from loadgen.store import store_root

    root, patience = store_root(store), waiting(wait)
    loaded = runs.load(scenario, sets, profile, endpoint, model)
    name = chosen(loaded.scenario, target)
    twice = against_itself(loaded, name, repeats)
    runs.name_leftovers(root)
    with Screen(quiet) as screen:
        report = execute(Request(twice, root, wait_s=patience), screen.progress)
    floor = floor_of(report, loaded.scenario.name, name)
    path = str(write_floor(root, floor)) if floor.cells else ""
    if as_json:
        put(json.dumps(calibration.values(floor, report, path), indent=1, ensure_ascii=False) + "\n")
    else:
        print(calibration.render(floor, report, path, width(sys.stdout)), end="")
    raise typer.Exit(report.exit_code)


def _metric(text: str | None) -> str | None:
    """A measure by its own name. Raises UsageError."""
    from loadgen.errors import UsageError
    from loadgen.metrics import METRICS
    from loadgen.scenario.objective import parse_measure

    if text is None:
        return None
    try:
        what = parse_measure(text)
    except ValueError as error:
        raise UsageError(f"--metric {text}: {error}.") from error
    if METRICS[what.metric].better is None:
        raise UsageError(f"--metric {text}: neither more nor less of it is better; take another.")
    return str(what)


def _margin(text: str | None) -> float | None:
    """``3%`` or ``0.03`` as a share. Raises UsageError."""
    from loadgen.errors import UsageError
    from loadgen.scenario.words import share

    if text is None:
        return None
    try:
        value = float(share(text))
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise UsageError(f"--margin {text}: is no share between 0 and 1; write it like 3% or 0.03.")
    return value
