"""Runs made of what others measured: ``import`` of other tools' results, ``merge`` of shards and of cells."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loadgen.cli.flags import Runs, Store
from loadgen.cli.runs import AsJson
from loadgen.cli.screen import put, speaks_unicode, width

if TYPE_CHECKING:
    from loadgen.assemble import RunReport

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
    as_json: AsJson = False,
) -> None:
    """Take results of vllm bench, GuideLLM or AIPerf into the store.

    They become a run that can be reported and compared like any other, and says with every number where that tool's
    definitions differ. Several files of one tool make one run: those of one load are its repeats.
    """
    from loadgen.importing.keep import import_files
    from loadgen.store import store_root

    _print(import_files(files, store_root(store), name, target), as_json)


@commands.command(epilog="Example: loadgen merge last")
def merge(runs: Runs, store: Store = None, as_json: AsJson = False) -> None:
    """Make one run of shards, or of runs of different cells.

    Of a single shard (--shard) the others are looked for in the store; one that is missing leaves a degraded run. Runs
    of different cells (--cell) become one table with its crossings: each cell is of the newest run that measured it as
    the newest scenario says.
    """
    from loadgen.joining import join
    from loadgen.merging import merge as merged
    from loadgen.store import find_run, store_root

    root = store_root(store)
    found = [find_run(root, one) for one in dict.fromkeys(runs)]
    of_cells = len(found) > 1 and not all(run.read("run.json").get("shard") for run in found)
    report = join(found, root) if of_cells else merged(found, root)
    _print(report, as_json)
    raise typer.Exit(report.exit_code)


def _print(report: RunReport, as_json: bool) -> None:
    from loadgen.reports import json as json_report
    from loadgen.reports import text as text_report

    if as_json:
        put(json_report.render(report))
    else:
        print(text_report.render(report, width(sys.stdout), unicode=speaks_unicode(sys.stdout)), end="")
