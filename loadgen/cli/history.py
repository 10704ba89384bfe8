"""What nights have said: ``history``, ``baseline show|accept|pin``, ``blame``, ``reindex``."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loadgen.cli.flags import Store, period
from loadgen.cli.screen import printable, tell, width

if TYPE_CHECKING:
    from loadgen.nights.history import History

commands = typer.Typer()
baselines = typer.Typer(
    help="Show, accept or pin what nights are held against.",
    no_args_is_help=True,
    epilog="Example: loadgen baseline show moe output_tok_s",
)
commands.add_typer(baselines, name="baseline")

SeriesWords = Annotated[
    list[str],
    typer.Argument(metavar="SERIES...", help="A key, or words of its name: moe output_tok_s."),
]
Note = Annotated[str, typer.Option("--note", help="Why; it is kept.")]


@commands.command(epilog="Example: loadgen history --stale 36h")
def history(
    series: Annotated[
        str | None, typer.Option("--series", metavar="SERIES", help="Every night of it: a key, or words of its name.")
    ] = None,
    stale: Annotated[
        str | None, typer.Option("--stale", metavar="TIME", help="Exit with 5 if the last good night is older: 36h.")
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="One row a night and series, for other programs.")] = False,
    store: Store = None,
) -> None:
    """Show how the series of all nights stand, or the nights of one.

    A night is good if it was measured and is no regression. Exit codes: 0, or 5 with --stale.
    """
    from loadgen.errors import EXIT_INVALID
    from loadgen.reports import history as report

    limit = period(stale) if stale is not None else None
    known = _history(store)
    keys = known.find(series) if series is not None else known.live()
    if as_csv:
        print(report.render_csv(known, keys if series is not None else known.entries), end="")
    elif series is not None:
        for key in keys:
            print(printable(report.nights(known, key, width(sys.stdout))))
            print()
    else:
        print(printable(report.overview(known, _primary(known, keys), width(sys.stdout))))
    late = known.stale(time.time(), limit, keys) if limit is not None else []
    for sentence in late:
        tell(f"loadgen: {sentence}")
    raise typer.Exit(EXIT_INVALID if late else 0)


@baselines.command(epilog="Example: loadgen baseline show moe output_tok_s")
def show(
    words: Annotated[list[str] | None, typer.Argument(metavar="[SERIES...]", help="Default: all primary ones.")] = None,
    store: Store = None,
) -> None:
    """Show what the next night of a series will be held against."""
    from loadgen.reports import history as report

    known = _history(store)
    for key in known.find(" ".join(words)) if words else _primary(known, known.live()):
        print(printable(report.baseline(known, key, width(sys.stdout))))
        print()


@baselines.command(epilog='Example: loadgen baseline accept moe output_tok_s --note "new prompts"')
def accept(
    words: SeriesWords,
    since: Annotated[
        str | None,
        typer.Option("--from", metavar="RUN", help="The first night of the new normal (default: that of the alert)."),
    ] = None,
    note: Note = "",
    store: Store = None,
) -> None:
    """Take what a series measures now as the new normal.

    Its alert ends, and an epoch begins with that night: nights before it are no measure of later ones.
    """
    from loadgen.nights.events import Accepted, append

    known = _history(store)
    by_run: dict[str, list[str]] = {}
    for key in known.find(" ".join(words)):
        by_run.setdefault(known.night_of(key, since), []).append(key)
    append(known.root, [Accepted(at=_utc(), series=tuple(keys), run=run, note=note) for run, keys in by_run.items()])
    for run, keys in by_run.items():
        for key in keys:
            print(printable(f"{known.series[key].name}: normal is what was measured from {run} on."))


@baselines.command(epilog="Example: loadgen baseline pin moe output_tok_s --from 20261101T041656")
def pin(
    words: SeriesWords,
    since: Annotated[
        str | None, typer.Option("--from", metavar="RUN", help="The first of the nights (default: the epoch's first).")
    ] = None,
    note: Note = "",
    store: Store = None,
) -> None:
    """Measure slow drift against these nights from now on.

    They are the first 14 good ones from --from on, and their request lines are never deleted.
    """
    from loadgen.nights.events import Pinned, append

    known = _history(store)
    keys = known.find(" ".join(words))
    chosen = {key: known.good_from(key, since) for key in keys}
    append(known.root, [Pinned(at=_utc(), series=(key,), runs=runs, note=note) for key, runs in chosen.items()])
    for key, runs in chosen.items():
        print(
            printable(f"{known.series[key].name}: slow drift is measured against {len(runs)} nights from {runs[0]} on.")
        )


@commands.command(epilog="Example: loadgen blame moe output_tok_s")
def blame(words: SeriesWords, store: Store = None) -> None:
    """Show what changed since the last good night of a series.

    Versions, the image, the driver, the model's revision, what the GPUs are held to, the words of the scenario: all
    that both runs wrote, as far as it differs.
    """
    from loadgen.reports import history as report

    known = _history(store)
    for key in known.find(" ".join(words)):
        print(printable(report.blame(known, key, known.changes(key), width(sys.stdout))))
        print()


@commands.command(epilog="Example: loadgen reindex --store /srv/loadgen")
def reindex(store: Store = None) -> None:
    """Make the index (loadgen.db) anew from the store's files."""
    from loadgen.nights import index

    runs, nights = index.reindex(_root(store), lambda text: tell(f"loadgen: {text}"))
    print(f"{runs} runs, {nights} of them nights.")


def _root(store: Path | None) -> Path:
    from loadgen.errors import UsageError
    from loadgen.store import store_root

    root = store_root(store)
    if not root.is_dir():
        raise UsageError(f"there is no store at {root}; name one with --store.")
    return root


def _history(store: Path | None) -> History:
    from loadgen.nights.history import read_history

    return read_history(_root(store), lambda text: tell(f"loadgen: {text}"))


def _primary(known: History, keys: Sequence[str]) -> list[str]:
    return [key for key in keys if known.entries[key][-1].point.primary]


def _utc() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
