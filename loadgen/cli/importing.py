"""Results of other load generators: ``import``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from loadgen.cli.flags import Store
from loadgen.cli.screen import put, speaks_unicode, width

commands = typer.Typer()

Files = Annotated[
    list[Path], typer.Argument(metavar="FILE [FILE...]", help="What the tool wrote; of AIPerf its output folder.")
]


@commands.command(name="import", epilog="Example: loadgen import vllm-run-1.json vllm-run-2.json --target dense")
def import_(
    files: Files,
    store: Store = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the run (default: the tool's).")] = None,
    target: Annotated[
        str | None, typer.Option("--target", help="Name of what was measured (default: the model's).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Take results of vllm bench, GuideLLM or AIPerf into the store.

    They become a run that can be reported and compared like any other, and says with every number where that tool's
    definitions differ. Several files of one tool make one run: those of one load are its repeats.
    """
    from loadgen.importing.keep import import_files
    from loadgen.reports import json as json_report
    from loadgen.reports import text as text_report
    from loadgen.store import store_root

    report = import_files(files, store_root(store), name, target)
    if as_json:
        put(json_report.render(report))
    else:
        print(text_report.render(report, width(sys.stdout), unicode=speaks_unicode(sys.stdout)), end="")
