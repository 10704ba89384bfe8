"""Engines by themselves: ``launch`` starts one and keeps it, ``engines`` says which there are and what is missing."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from loadgen.cli import launching
from loadgen.cli.flags import Profile, Store, Wait, waiting
from loadgen.cli.screen import printable, put, tell, width

commands = typer.Typer()

Engine = Annotated[
    str | None,
    typer.Argument(metavar="ENGINE", help="A recipe (`loadgen engines` lists them), or the path of one."),
]
Model = Annotated[
    str | None, typer.Option("--model", help="Id or path; the path of a config.json gets random weights.")
]
Options = Annotated[
    list[str] | None, typer.Option("--set", "-o", help="A word of the recipe: -o tensor_parallel=2. May be repeated.")
]
Python = Annotated[str | None, typer.Option("--python", help="Interpreter of the environment that has the engine.")]
Image = Annotated[str | None, typer.Option("--image", help="Container image.")]
Devices = Annotated[str | None, typer.Option("--devices", help="GPUs by index or UUID: 0,1.")]
ServedName = Annotated[str | None, typer.Option("--served-name", help="Name of the model in requests.")]
Tokenizer = Annotated[str | None, typer.Option("--tokenizer", help="Id or path (default: the model's).")]
Port = Annotated[int | None, typer.Option("--port", min=1, max=65535, help="Port on loopback (default: a free one).")]
Env = Annotated[list[str] | None, typer.Option("--env", help="NAME=VALUE for the server. May be repeated.")]
Args = Annotated[list[str] | None, typer.Option("--args", help="Flags for the engine, as they are: --args '--foo 1'.")]
Target = Annotated[
    str | None, typer.Option("--target", metavar="FILE:NAME", help="Take this target of a scenario file.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the command for a shell, and start nothing.")]


@commands.command(epilog="Example: loadgen launch hf --model scenarios/models/tiny_dense.json -o seed=1")
def launch(
    engine: Engine = None,
    model: Model = None,
    options: Options = None,
    python: Python = None,
    image: Image = None,
    devices: Devices = None,
    served_name: ServedName = None,
    tokenizer: Tokenizer = None,
    port: Port = None,
    env: Env = None,
    args: Args = None,
    target: Target = None,
    profile: Profile = None,
    store: Store = None,
    wait: Wait = None,
    dry_run: DryRun = False,
) -> None:
    """Start one server and keep it until Ctrl-C.

    Prints its endpoint once it is ready; at the end it proves that nothing of it is left. Exit codes: 130 after Ctrl-C
    and 143 after SIGTERM; 6 if it does not get ready or dies; 75 if a run has the GPUs, which it would disturb.
    """
    flags = launching.Flags(
        engine=engine,
        model=model,
        target=target,
        profile=profile,
        options=options or (),
        env=env or (),
        args=args or (),
        devices=devices,
        python=python,
        image=image,
        served_name=served_name,
        tokenizer=tokenizer,
    )
    from loadgen.store import store_root

    _launch(flags, port, None if dry_run else store_root(store), waiting(wait))


def _launch(flags: launching.Flags, port: int | None, store: Path | None, wait_s: float) -> None:
    """Starts the server and keeps it; prints its command instead where there is no ``store``."""
    from loadgen import standing
    from loadgen.alone import wait_for_runs
    from loadgen.launch import OptionError, Server, dry_run_text, free_port
    from loadgen.reports import standing as standing_report

    spec, made = launching.spec_of(flags)
    standing.check_port(port)
    spec = standing.with_model(spec, made, tell, make=store is not None)

    def announce(server: Server) -> None:
        tell(f"{spec.name} is ready after {server.describe()['startup_s']:.1f} s")
        print(standing_report.render(server.command, spec, os.getpid(), server.log_path), end="", flush=True)

    try:
        command = standing.command_of(spec, port or free_port(), "launch")
        for note in command.notes:
            tell(note)
        if store is None:
            print(printable(dry_run_text(command)))
            return
        wait_for_runs(spec, f"the start of {spec.name}", wait_s, tell)
        tell(f"starting {spec.engine}: {spec.model}")
        stood = standing.stand(spec, store, port, announce)
    except OptionError as error:
        raise launching.in_flags(error, flags) from error
    tell("\n".join(stood.problems) or f"{spec.name} is stopped, and nothing of it is left")
    raise typer.Exit(stood.exit_code)


@commands.command(epilog="Example: loadgen engines vllm")
def engines(
    name: Annotated[
        str | None, typer.Argument(metavar="ENGINE", help="One engine, by name or path: its words and what they do.")
    ] = None,
    pythons: Annotated[
        list[str] | None, typer.Option("--python", help="NAME=PATH: the interpreter that has this engine. Repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show the engines, which are here, and how to get the others."""
    import msgspec

    from loadgen import engines as survey
    from loadgen.launch import load_recipe
    from loadgen.reports import engines as report

    recipes = [load_recipe(name, Path.cwd())] if name is not None else survey.shipped()
    found = survey.survey(recipes, launching.pythons_of(pythons or (), [recipe.name for recipe in recipes]))
    if as_json:
        listed = [msgspec.to_builtins(one) for one in found]
        value = {**listed[0], "recipe": recipes[0].model_dump(mode="json")} if name is not None else listed
        put(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
    elif name is not None:
        print(report.render_one(recipes[0], found[0], width(sys.stdout)), end="")
    else:
        print(report.render(found, width(sys.stdout)), end="")
