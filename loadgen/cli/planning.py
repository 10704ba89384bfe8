"""What a run, or a model, would take, before anything is started: ``plan``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loadgen.cli.flags import Cells, Endpoint, Model, Profile, Sets, Store, Targets, chosen
from loadgen.cli.resuming import Resume, Retry, alone, begun, left_of
from loadgen.cli.runs import load
from loadgen.cli.screen import printable, put, speaks_unicode, tell, width

if TYPE_CHECKING:
    from loadgen.scenario import Cell, Loaded
    from loadgen.store import Run

commands = typer.Typer()

MOST, MOST_GPUS = 10**9, 1024
"""The largest length or batch, and the most GPUs."""

MOST_PARAMETERS = 10**15
"""What is larger is no model, but a mistake in its config.json."""

_FOR = "With --memory: "


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
    with_commands: Annotated[
        bool, typer.Option("--commands", help="Print the command of every server instead, for a shell.")
    ] = False,
    with_preview: Annotated[
        bool,
        typer.Option("--preview", help="Show what would be sent instead: counts, rates, lengths, shared prefixes."),
    ] = False,
    layout: Annotated[
        str | None,
        typer.Option("--layout", help="published: the published table that is measured again, with planned memory."),
    ] = None,
    memory: Annotated[
        Path | None,
        typer.Option("--memory", metavar="MODEL", help="Show what this model (a folder, a config.json) takes."),
    ] = None,
    gpu: Annotated[str | None, typer.Option("--gpu", help=_FOR + "24GB, 80GiB, or a name such as a100.")] = None,
    input_tokens: Annotated[int, typer.Option("--input", min=1, max=MOST, help=_FOR + "tokens of a prompt.")] = 1000,
    output_tokens: Annotated[int, typer.Option("--output", min=1, max=MOST, help=_FOR + "tokens of a reply.")] = 100,
    batch: Annotated[int, typer.Option("--batch", min=1, max=MOST, help=_FOR + "requests at once.")] = 1,
    tp: Annotated[int, typer.Option("--tp", min=1, max=MOST_GPUS, help=_FOR + "GPUs that share it.")] = 1,
    dtype: Annotated[str | None, typer.Option("--dtype", help=_FOR + "bf16, fp8, int8, int4, mxfp4.")] = None,
    quantization: Annotated[
        str | None, typer.Option("--quantization", help=_FOR + "gptq-int8, gptq-int4, awq, fp8, mxfp4.")
    ] = None,
    prompt_logits: Annotated[
        str, typer.Option("--prompt-logits", help=_FOR + "all (as transformers 4.38 did) or last.")
    ] = "last",
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show cells, order, starts, time and memory; start nothing.

    With --resume, what of that a run has left. With --memory, no scenario: what a model takes on GPUs of a size, and
    how few of them do.
    """
    others = {
        "--commands": with_commands,
        "--preview": with_preview,
        "--layout": layout,
        "--memory": memory,
        "--gpu": gpu,
    }
    alone(resume, retry, others)
    if scenario is not None and memory is None and gpu is None:
        if layout is not None:
            _laid_out(load(scenario, sets, profile, endpoint, model, targets), only_cells, layout)
            return
        loaded = load(scenario, sets, profile, endpoint, model, targets)
        begun_run = begun(store, resume, retry, loaded.scenario)
        if with_preview:
            _preview(loaded, only_cells, as_json)
        elif begun_run is not None:
            _left(loaded, only_cells, (begun_run, retry), as_json)
        else:
            _scenario(loaded, only_cells, with_commands, as_json)
        return
    _check(scenario, memory, gpu)
    lengths = {"input": input_tokens, "output": output_tokens, "batch": batch, "tp": tp}
    _model(str(memory), str(gpu), (dtype, quantization), (lengths, prompt_logits), as_json)


def _check(scenario: Path | None, memory: Path | None, gpu: str | None) -> None:
    """Raises UsageError for what is neither a scenario nor a model with its GPU."""
    from loadgen.errors import UsageError

    if scenario is not None:
        raise UsageError(f"plan {scenario}: --memory and --gpu are for a model without a scenario; leave one out.")
    if memory is None:
        raise UsageError("plan: name a scenario, or a model and its GPU: --memory MODEL --gpu 24GB.")
    if gpu is None:
        raise UsageError("plan --memory: say on which GPU: --gpu 24GB, or a name such as --gpu a100.")


def _laid_out(loaded: Loaded, only_cells: list[str] | None, layout: str) -> None:
    from loadgen.host import nvml_gpus
    from loadgen.limits.planned_memory import needs_of_cells
    from loadgen.reports import formats, published_plan
    from loadgen.scenario import expand

    formats.check("text", 1, layout)
    cells = chosen(expand(loaded.scenario), only_cells)
    needs = needs_of_cells(cells, loaded.path.parent.absolute(), nvml_gpus())
    _show(published_plan.render(loaded, needs, width(sys.stdout)))


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

    cells = chosen(expand(loaded.scenario), only_cells)
    made = make_plan(loaded.scenario, cells, loaded.path.parent)
    if with_commands:
        for name, command in planned_commands(loaded, cells, tell):
            print(f"# {name}\n{printable(dry_run_text(command))}")
    elif as_json:
        put(msgspec.json.format(msgspec.json.encode(made), indent=1).decode() + "\n")
    else:
        needs = planned_memory(cells, loaded.path.parent.absolute(), nvml_gpus())
        _show(plan_report.render(made, loaded, needs, width(sys.stdout)))
        _say_what_run_refuses(loaded, cells)
        for short in shortages(cells, room()):
            tell(f"loadgen: {'not enough room here' if short.certain else 'perhaps not enough room'}: {short.text}")


def _say_what_run_refuses(loaded: Loaded, cells: list[Cell]) -> None:
    """The first thing that `run` would refuse on this machine; a plan may be made for another one."""
    from loadgen.alone import gpus_for, stand_apart
    from loadgen.errors import LoadgenError
    from loadgen.targets import check

    try:
        check(loaded, cells, ask=False)
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
        _show(plan_report.rest(made, loaded, said, width(sys.stdout)))


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


def _model(
    model: str,
    gpu: str,
    stored: tuple[str | None, str | None],
    asked: tuple[dict[str, int], str],
    as_json: bool,
) -> None:
    """``stored``: dtype and quantization. ``asked``: lengths, and whose logits are made."""
    import json

    from loadgen.errors import UsageError
    from loadgen.reports import memory as report
    from loadgen.shapes.memory_plan import MemoryPlan, gpu_bytes, stored_as
    from loadgen.shapes.model_config import read_shape

    lengths, logits = asked
    if logits not in ("all", "last"):
        raise UsageError(f"--prompt-logits {logits!r}: all or last belongs here.")
    shape = read_shape(Path(model).expanduser(), stored_as(*stored))
    if shape.total > MOST_PARAMETERS:
        raise UsageError(f"{model}: more than {MOST_PARAMETERS:.0e} parameters: no model has; mend the file.")
    if shape.attention.heads % lengths["tp"]:
        raise UsageError(f"--tp {lengths['tp']}: {shape.name} has {shape.attention.heads} heads; take a divisor.")
    plan = MemoryPlan(
        shape=shape,
        input_tokens=lengths["input"],
        output_tokens=lengths["output"],
        batch=lengths["batch"],
        gpus=lengths["tp"],
        prompt_logits="all" if logits == "all" else "last",
    )
    if as_json:
        put(json.dumps(report.values(plan, gpu_bytes(gpu)), indent=1, ensure_ascii=False) + "\n")
    else:
        _show(report.render(plan, gpu_bytes(gpu), width(sys.stdout)))


def _show(text: str) -> None:
    """The sign of multiplication gives way on a screen that has none; a model's name may hold what a terminal obeys."""
    print(printable(text if speaks_unicode(sys.stdout) else text.replace("×", "x")))
