"""What a run, or a model, would take, before anything is started: ``plan``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from loadgen.cli.flags import Cells, Endpoint, Model, Profile, Sets, Store, Targets, chosen
from loadgen.cli.memory import (
    Asked,
    Batch,
    Dtype,
    Gpu,
    Input,
    Logits,
    Memory,
    Output,
    Quantization,
    Tp,
    named,
    plan_memory,
)
from loadgen.cli.resuming import Resume, Retry, begun, left_of, refuse_beside
from loadgen.cli.runs import load
from loadgen.cli.screen import printable, put, show, speaks_unicode, tell, width

if TYPE_CHECKING:
    from loadgen.scenario import Cell, Loaded
    from loadgen.store import Run

commands = typer.Typer()

Commands = Annotated[bool, typer.Option("--commands", help="Print the command of every server instead, for a shell.")]
Preview = Annotated[
    bool, typer.Option("--preview", help="Show what would be sent instead: counts, rates, lengths, shared prefixes.")
]
Layout = Annotated[
    str | None,
    typer.Option("--layout", help="published: the published table that is measured again, with planned memory."),
]


@commands.command(epilog="Example: loadgen plan scenarios/moe_vs_dense.yaml --profile gpu")
def plan(
    scenario: Annotated[
        Path | None, typer.Argument(metavar="[SCENARIO]", help="A scenario file; or give --memory.")
    ] = None,
    profile: Profile = None,
    sets: Sets = None,
    endpoint: Endpoint = None,
    model: Model = None,
    targets: Targets = None,
    only_cells: Cells = None,
    store: Store = None,
    resume: Resume = None,
    retry: Retry = False,
    with_commands: Commands = False,
    with_preview: Preview = False,
    layout: Layout = None,
    memory: Memory = None,
    gpu: Gpu = None,
    input_tokens: Input = 1000,
    output_tokens: Output = 100,
    batch: Batch = 1,
    tp: Tp = 1,
    dtype: Dtype = None,
    quantization: Quantization = None,
    prompt_logits: Logits = "last",
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show cells, order, starts, time and memory; start nothing.

    With --resume, what of that a run has left. With --memory, no scenario: what a model takes on GPUs of a size, and
    how few of them do.
    """
    ways = _Ways(with_commands, with_preview, layout, as_json)
    refuse_beside(resume, retry, {**ways.flags(), "--memory": memory, "--gpu": gpu})
    if scenario is None or memory is not None or gpu is not None:
        asked = Asked(input_tokens, output_tokens, batch, tp, dtype, quantization, prompt_logits)
        plan_memory(*named(scenario, memory, gpu), asked, as_json)
    else:
        loaded = load(scenario, sets, profile, endpoint, model, targets)
        _of_scenario(loaded, only_cells, (begun(store, resume, retry, loaded.scenario), retry), ways)


class _Ways(NamedTuple):
    """Which side of a scenario's plan is shown, and how."""

    with_commands: bool
    with_preview: bool
    layout: str | None
    as_json: bool

    def flags(self) -> dict[str, object]:
        """By flag: those that show another side than what a run has left."""
        return {"--commands": self.with_commands, "--preview": self.with_preview, "--layout": self.layout}


def _of_scenario(loaded: Loaded, only_cells: list[str] | None, of: tuple[Run | None, bool], ways: _Ways) -> None:
    """``of``: the run that is gone on with, if there is one, and whether what is invalid is measured again."""
    run, retry = of
    if ways.layout is not None:
        _laid_out(loaded, only_cells, ways.layout)
    elif ways.with_preview:
        _preview(loaded, only_cells, ways.as_json)
    elif run is not None:
        _left(loaded, only_cells, (run, retry), ways.as_json)
    else:
        _scenario(loaded, only_cells, ways.with_commands, ways.as_json)


def _laid_out(loaded: Loaded, only_cells: list[str] | None, layout: str) -> None:
    from loadgen.host import nvml_gpus
    from loadgen.limits.planned_memory import needs_of_cells
    from loadgen.reports import formats, published_plan
    from loadgen.scenario import expand

    formats.check("text", 1, layout)
    cells = chosen(expand(loaded.scenario), only_cells)
    needs = needs_of_cells(cells, loaded.path.parent.absolute(), nvml_gpus())
    show(published_plan.render(loaded, needs, width(sys.stdout)))


def _scenario(loaded: Loaded, only_cells: list[str] | None, with_commands: bool, as_json: bool) -> None:
    import msgspec

    from loadgen.host import nvml_gpus
    from loadgen.launch import dry_run_text
    from loadgen.limits.planned_memory import planned_memory
    from loadgen.plan import make_plan
    from loadgen.reports import plan as plan_report
    from loadgen.room import room, shortages
    from loadgen.scenario import expand
    from loadgen.standing import planned_commands
    from loadgen.telemetry.required import required

    cells = chosen(expand(loaded.scenario), only_cells)
    made = make_plan(loaded.scenario, cells, loaded.path.parent)
    if with_commands:
        for name, command in planned_commands(loaded, cells, tell):
            print(f"# {name}\n{printable(dry_run_text(command))}")
    elif as_json:
        put(msgspec.json.format(msgspec.json.encode(made), indent=1).decode() + "\n")
    else:
        needs = planned_memory(cells, loaded.path.parent.absolute(), nvml_gpus())
        wanted = required(cells, loaded.path.parent.absolute())
        show(plan_report.render(made, loaded, needs, width(sys.stdout), wanted))
        _say_what_run_refuses(loaded, cells)
        for short in shortages(cells, room()):
            tell(f"loadgen: {'not enough room here' if short.certain else 'perhaps not enough room'}: {short.text}")


def _say_what_run_refuses(loaded: Loaded, cells: list[Cell]) -> None:
    """The first thing that `run` would refuse on this machine; a plan may be made for another one."""
    from loadgen.alone import gpus_for, stand_apart
    from loadgen.errors import LoadgenError
    from loadgen.targets import check
    from loadgen.telemetry.required import check_required

    try:
        check(loaded, cells, ask=False)
        check_required(cells, loaded.path.parent.absolute(), ask=False)
        stand_apart(cells, gpus_for(cells))
    except LoadgenError as error:
        tell(f"loadgen: `loadgen run` would refuse this here: {error}")


def _left(loaded: Loaded, only_cells: list[str] | None, of: tuple[Run, bool], as_json: bool) -> None:
    """``of``: the run, and whether what is invalid is measured again."""
    import msgspec

    from loadgen.plan import make_plan
    from loadgen.reports import plan as plan_report
    from loadgen.scenario import expand

    run, retry = of
    cells = chosen(expand(loaded.scenario), only_cells)
    made, said = left_of(run, make_plan(loaded.scenario, cells, loaded.path.parent), loaded.scenario, retry)
    if as_json:
        put(msgspec.json.format(msgspec.json.encode(made), indent=1).decode() + "\n")
    else:
        show(plan_report.rest(made, loaded, said, width(sys.stdout)))


def _preview(loaded: Loaded, only_cells: list[str] | None, as_json: bool) -> None:
    import msgspec

    from loadgen.preview import preview
    from loadgen.reports import preview as report
    from loadgen.scenario import expand

    folder = loaded.path.parent.absolute()
    found = [preview(cell, folder) for cell in chosen(expand(loaded.scenario), only_cells)]
    if as_json:
        put(msgspec.json.format(msgspec.json.encode(found), indent=1).decode() + "\n")
    else:
        print(report.render(found, width(sys.stdout), speaks_unicode(sys.stdout)), end="")
