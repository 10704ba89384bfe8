"""Held against each other: ``compare`` stored runs, ``calibrate`` what a comparison on this machine can tell."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from loadgen.cli import runs
from loadgen.cli.flags import Endpoint, Model, Profile, ScenarioPath, Sets, Store
from loadgen.cli.screen import Screen, width

commands = typer.Typer()


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

    root = store_root(store)
    loaded = runs.load(scenario, sets, profile, endpoint, model)
    name = chosen(loaded.scenario, target)
    twice = against_itself(loaded, name, repeats)
    runs.name_leftovers(root)
    with Screen(quiet) as screen:
        report = execute(Request(twice, root), screen.progress)
    floor = floor_of(report, loaded.scenario.name, name)
    path = str(write_floor(root, floor)) if floor.cells else ""
    if as_json:
        print(json.dumps(calibration.values(floor, report, path), indent=1, ensure_ascii=False))
    else:
        print(calibration.render(floor, report, path, width(sys.stdout)), end="")
    raise typer.Exit(report.exit_code)
