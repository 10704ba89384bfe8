"""What is kept of runs that are over: ``gc``, ``rejudge``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from loadgen.cli.flags import Runs, Store, period
from loadgen.cli.screen import printable, tell

if TYPE_CHECKING:
    from loadgen.retention import Kept

commands = typer.Typer()


@commands.command(epilog="Example: loadgen gc --keep-requests 30d --dry-run")
def gc(
    keep_requests: Annotated[
        str, typer.Option("--keep-requests", metavar="TIME", help="Delete request lines of runs that are older.")
    ] = "90d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    store: Store = None,
) -> None:
    """Compress request lines, and delete those of old runs.

    Summaries, histograms and reports stay for ever. So do the request lines of nights that a baseline stands on or that
    were pinned.
    """
    from loadgen.nights.history import read_history
    from loadgen.retention import collect
    from loadgen.store import store_root

    root, keep_s = store_root(store), period(keep_requests)
    done = []
    for one in collect(root, read_history(root, tell).kept(), keep_s, dry_run=dry_run):
        done.append(one)
        if one.failed is not None:
            tell(f"loadgen: {one.run}: {one.failed}")
        elif one.packed or one.deleted:
            print(_line(one, dry_run))
    print(_sum(done, dry_run, keep_requests))
    raise typer.Exit(1 if any(one.failed for one in done) else 0)


@commands.command(epilog="Example: loadgen rejudge last")
def rejudge(which: Runs, store: Store = None) -> None:
    """Judge stored runs again, by the rules of this version.

    It goes by their request lines; nothing is measured anew. What has changed is said; nights know of it after loadgen
    reindex.
    """
    from loadgen.rejudging import rejudge as judged
    from loadgen.store import find_run, store_root

    codes = []
    for run in [find_run(store_root(store), one) for one in which]:
        report, changed = judged(run)
        codes.append(report.exit_code)
        for line in changed:
            print(printable(line))
        print(f"{run.id}: {len(changed)} repeats are judged otherwise now; {report.path}/report.html")
    raise typer.Exit(max(codes))


def _line(one: Kept, dry_run: bool) -> str:
    if one.deleted:
        return f"{one.run}  {'delete' if dry_run else 'deleted'} {_files(one.deleted)}, {_size(one.deleted_bytes)}"
    if one.saved_bytes is None:
        return f"{one.run}  compress {_files(one.packed)}, {_size(one.packed_bytes)}"
    return f"{one.run}  compressed {_files(one.packed)}, {_size(one.saved_bytes)} of {_size(one.packed_bytes)} saved"


def _sum(done: list[Kept], dry_run: bool, keep: str) -> str:
    deleted, packed = sum(one.deleted_bytes for one in done), sum(one.packed_bytes for one in done)
    spared = sum(one.spared for one in done)
    if not any(one.packed or one.deleted for one in done):
        said = "There is nothing to do."
    elif dry_run:
        said = f"{_size(deleted)} would be deleted, {_size(packed)} compressed."
    else:
        said = f"{_size(deleted + sum(one.saved_bytes or 0 for one in done))} freed."
    if spared:
        whose = (
            "1 run that is older than that keeps its" if spared == 1 else f"{spared} runs older than that keep their"
        )
        said += f" Request lines are kept {keep}; {whose} own: a baseline stands on them, or they were pinned."
    return said


def _files(count: int) -> str:
    return f"{count} file" if count == 1 else f"{count} files"


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
