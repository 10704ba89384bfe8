"""The command line: parse, call, print, exit code. The only folder that prints.

One file for each group of commands; ``flags`` holds the flags that several have, ``screen`` what is done with standard
output and standard error. Results go to standard output, everything else to standard error. Modules are imported where
they are used, so that ``loadgen --help`` answers at once.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import Annotated

import typer

from loadgen import __version__
from loadgen.cli import (
    comparing,
    history,
    importing,
    keeping,
    machine,
    nightly,
    planning,
    plotting,
    runs,
    servers,
    shapes,
    site,
)
from loadgen.cli.screen import tell
from loadgen.errors import LoadgenError

_GARBAGE = 50_000
"""New objects between two looks for garbage. Python's 700 make it look through all that is imported, over and over,
which was a twentieth of a short run."""

app = typer.Typer(
    help="Launches LLM servers, loads them, measures exactly and compares fairly.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for group in (
    runs,
    planning,
    comparing,
    plotting,
    nightly,
    history,
    site,
    keeping,
    importing,
    shapes,
    servers,
    machine,
):
    app.add_typer(group.commands)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        print(f"loadgen {__version__}")
        raise typer.Exit


def main() -> None:
    """The entry point: a sentence and the contract's exit code instead of a traceback for what users can mend."""
    gc.set_threshold(_GARBAGE)
    try:
        app(prog_name="loadgen")
    except LoadgenError as error:
        tell(f"loadgen: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        tell("loadgen: interrupted")
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe is gone: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    finally:
        gc.freeze()  # the process ends: looking for garbage among all that was imported would only take time
