"""The command line: parse, call, print, exit code. The only folder that prints.

One file for each group of commands; ``flags`` holds the flags that several have, ``screen`` what is done with standard
output and standard error. Results go to standard output, everything else to standard error. Modules are imported where
they are used, so that ``loadgen --help`` answers at once.
"""

from __future__ import annotations

import contextlib
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
    _open_standard_streams()
    try:
        try:
            app(prog_name="loadgen")
        finally:
            sys.stdout.flush()
    except LoadgenError as error:
        tell(f"loadgen: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        tell("loadgen: interrupted")
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe is gone: nobody is left to tell
        _throw_the_rest_away()
        sys.exit(1)
    except OSError as error:  # a full disk, a folder that another owns, one that is gone: of the system, not of ours
        _throw_the_rest_away()
        tell(f"loadgen: cannot go on: {_reason(error)}")
        sys.exit(1)
    finally:
        gc.freeze()  # the process ends: looking for garbage among all that was imported would only take time


def _open_standard_streams() -> None:
    """Opens what whoever called us has closed (``>&-``): else the next file would become standard output."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)


def _throw_the_rest_away() -> None:
    """What standard output does not take now it will not take at the end of the process either."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _reason(error: OSError) -> str:
    """What the system says, and of which file."""
    try:
        os.getcwd()
    except OSError:
        return "the current folder was deleted; change into one that exists."
    said = error.strerror or str(error)
    return f"{error.filename}: {said}." if error.filename else f"{said}."
