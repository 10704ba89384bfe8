"""Flags and arguments that several commands have, so that they mean the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from loadgen.scenario import Cell

ScenarioPath = Annotated[
    Path, typer.Argument(metavar="SCENARIO", help="A scenario file, such as scenarios/moe_vs_dense.yaml.")
]
Store = Annotated[
    Path | None, typer.Option("--store", help="Results folder (default: $LOADGEN_HOME, else ./loadgen-results).")
]
Profile = Annotated[
    str | None, typer.Option("--profile", help="Take this profile of the scenario, whatever the machine has.")
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", help="Override a value: --set load.window_s=10. May be repeated.")
]
Endpoint = Annotated[
    str | None, typer.Option("--endpoint", help="Load a server that exists, at this URL, and launch nothing.")
]
Model = Annotated[str | None, typer.Option("--model", help="Name of the model at --endpoint.")]
Targets = Annotated[
    list[str] | None,
    typer.Option("--target", help="Only this target, or those of a pattern: 'qwen2-7b*'. May be repeated."),
]
Cells = Annotated[
    list[str] | None,
    typer.Option("--cell", help="Only this cell of the matrix, or those of a pattern: 'size=7B*'. May be repeated."),
]
Wait = Annotated[
    str | None,
    typer.Option("--wait", metavar="TIME", help="Wait for another run that has the GPUs (or cores) needed: 2h."),
]


def chosen(cells: list[Cell], patterns: list[str] | None) -> list[Cell]:
    """The cells whose id fits a pattern, all without one. Raises UsageError for a pattern that fits none."""
    from fnmatch import fnmatchcase

    from loadgen.errors import UsageError
    from loadgen.scenario.override import did_you_mean

    ids = [cell.id for cell in cells]
    for one in patterns or ():
        if not any(fnmatchcase(name, one) for name in ids):
            raise UsageError(f"--cell {one}: there is no such cell{did_you_mean(one, ids)}.")
    return [cell for cell in cells if not patterns or any(fnmatchcase(cell.id, one) for one in patterns)]


def known_runs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of runs, newest first, for a shell that completes one: whole, or the end that tells it from the others."""
    from loadgen.store import store_root

    names = sorted((path.name for path in store_root(ctx.params.get("store")).glob("runs/*/*")), reverse=True)
    ends = [name.rpartition("-")[2] for name in names] if incomplete else []
    return [name for name in ("last", *names, *ends) if name.startswith(incomplete)]


def known_formats(incomplete: str) -> list[str]:
    """Formats of reports, likewise."""
    from loadgen.reports import FORMATS

    return [form for form in FORMATS if form.startswith(incomplete)]


Runs = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN [RUN...]", help="Runs: a name, a part of it, a folder, or `last`.", autocompletion=known_runs
    ),
]


def waiting(text: str | None) -> float:
    """Seconds of ``--wait``; 0 where nothing is said."""
    return 0.0 if text is None else period(text)


def period(text: str) -> float:
    """A flag's length of time in seconds: ``2h``, ``90d``. Raises typer's BadParameter with a sentence."""
    from loadgen.scenario.words import period as seconds

    try:
        return seconds(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.") from error
