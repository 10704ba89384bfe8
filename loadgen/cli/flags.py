"""Flags and arguments that several commands have, so that they mean the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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


def period(text: str) -> float:
    """A flag's length of time in seconds: ``2h``, ``90d``. Raises typer's BadParameter with a sentence."""
    from loadgen.scenario.words import period as seconds

    try:
        return seconds(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.") from error
