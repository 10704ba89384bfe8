"""Pictures of a run, for slides: ``plot``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loadgen.cli.flags import Store
from loadgen.cli.screen import tell

if TYPE_CHECKING:
    from loadgen.plots.chart import Chart

commands = typer.Typer()

_KINDS = "pareto, ratio, roofline, latency, search; of a cell: ttft, percentiles, gaps, timeline, gantt; history"


@commands.command(epilog="Example: loadgen plot last --kind ratio -o ratio.svg")
def plot(
    which: Annotated[str, typer.Argument(metavar="RUN", help="A run's name, a part of it, its folder, or `last`.")],
    kind: Annotated[str, typer.Option("--kind", help=f"{_KINDS}.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="The picture: FILE.png or FILE.svg.")],
    cell: Annotated[
        str | None, typer.Option("--cell", help="Of this cell (default: the one that matters most).")
    ] = None,
    target: Annotated[str | None, typer.Option("--target", help="Of this target alone.")] = None,
    series: Annotated[
        str | None, typer.Option("--series", help="history: words of a series (default: the run's first).")
    ] = None,
    store: Store = None,
) -> None:
    """Draw one chart of a run, as the HTML report has it.

    Needs matplotlib: pip install 'loadgen[png]'. How each is read, and how it misleads, is in docs/reading-a-report.md.
    """
    from loadgen.errors import StoreError, UsageError
    from loadgen.plots.draw import draw

    form = out.suffix.lower()
    if form not in (".png", ".svg"):
        raise UsageError(f"-o {out}: a picture ends in .png or .svg.")
    chart = _chart(which, store, (kind, cell, target, series))
    picture = draw(chart, "png" if form == ".png" else "svg")
    try:
        out.write_bytes(picture)
    except OSError as error:
        raise StoreError(f"cannot write {out}: {error.strerror}; name another file with -o.") from error
    tell(f"{chart.title}: {out}")


def _chart(which: str, store: Path | None, asked: tuple[str, str | None, str | None, str | None]) -> Chart:
    from loadgen.assemble import assemble
    from loadgen.plots import kinds
    from loadgen.store import find_run, store_root

    kind, cell, target, series = asked
    report = assemble(find_run(store_root(store), which))
    if kind == "history":
        return kinds.history(report, series)
    return kinds.chart(report, kind, cell, target)
