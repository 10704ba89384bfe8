"""A chart as a picture: PNG for slides, SVG for documents. In: a chart of ``chart.py``. Out: bytes of a file.

matplotlib (extra ``png``) is imported here and nowhere else, inside the functions, and without its global state.
Colours, order and dashes are those of the page; markers tell series apart where colours do not print. Names come from
outside, so no text is read as mathematics.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from loadgen.errors import UsageError
from loadgen.plots.chart import Axis, Bars, Chart, Heat, Lines, Panel, Series
from loadgen.shown import brief

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#008a62", "#b0559c", "#9a6b00", "#3f7fa8", "#6b6b6b")
"""By number, those of the page. They differ in lightness too."""

MARKERS = "o^sDPvX"
BAD, SOFT = "#a3261d", "#5b6570"
PHASES = {"queue": COLOURS[6], "prefill": COLOURS[4], "decode": COLOURS[0]}

_NINES = (0.0, math.log10(2), math.log10(4), 1.0, math.log10(20), 2.0, 3.0, 4.0, 5.0)
_MANY = 60
_LONGEST = 70
_STYLE: Any = {
    "text.parse_math": False,
    "svg.hashsalt": "loadgen",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.35,
    "axes.titlesize": "medium",
    "axes.titlelocation": "left",
    "font.size": 11,
}


def draw(chart: Chart, form: Literal["png", "svg"], dpi: int = 150) -> bytes:
    """The picture, 10 inches wide. Raises UsageError where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError as error:
        raise UsageError("a picture needs matplotlib; install it with: pip install 'loadgen[png]'") from error
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in another script: boxes, and the rest is good
        held = io.BytesIO()
        figure_of(chart).savefig(held, format=form, dpi=dpi, metadata={"Date": None} if form == "svg" else None)
    return _smaller(held) if form == "png" else held.getvalue()


def _smaller(png: io.BytesIO) -> bytes:
    """The same picture in 256 colours, a third of the bytes: it has few beside those of smoothed edges."""
    from PIL import Image  # matplotlib cannot be without it

    held = io.BytesIO()
    Image.open(png).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(held, "PNG", optimize=True)
    return held.getvalue()


def figure_of(chart: Chart) -> Figure:
    """The chart as matplotlib's figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, _height(chart)), layout="constrained")
    figure.suptitle(_text(chart.title), x=0.01, ha="left", fontweight="bold")
    if isinstance(chart, Lines):
        _lines(figure, chart)
    elif isinstance(chart, Heat):
        _heat(figure, figure.add_subplot(), chart)
    else:
        _bars(figure, figure.add_subplot(), chart)
    return figure


def _height(chart: Chart) -> float:
    """Inches."""
    return 5.6 if not isinstance(chart, Lines) or len(chart.panels) < 3 else 1.2 + 1.7 * len(chart.panels)


def _lines(figure: Figure, chart: Lines) -> None:
    rows = figure.subplots(len(chart.panels), 1, sharex=True, squeeze=False)
    for (axes,), panel in zip(rows, chart.panels, strict=True):
        for one in panel.series:
            _series(axes, one)
        _marks(axes, panel)
        levels = [level.y for level in panel.levels if level.y is not None]
        _axis(axes, "y", panel.y, [*levels, *(y for one in panel.series for y in _heights(one))])
        axes.set_title(_text(panel.name))
    xs = [level.x for panel in chart.panels for level in panel.levels if level.x is not None]
    xs += [point[0] for panel in chart.panels for one in panel.series for point in one.points]
    _axis(rows[-1][0], "x", chart.x, xs)
    if chart.legend:
        _legend(figure)


def _series(axes: Axes, one: Series) -> None:
    colour, many = COLOURS[one.colour % len(COLOURS)], len(one.points) > _MANY
    xs, ys = [x for x, *_ in one.points], [math.nan if y is None else y for _, y, *_ in one.points]
    style: dict[str, Any] = {"color": colour, "label": _text(one.name), "linewidth": 1.6}
    style["linestyle"] = ("--" if one.dashed else "-") if one.joined else "none"
    if not many and not one.step and not one.bare and not (one.dashed and one.joined):
        style["marker"] = MARKERS[one.colour % len(MARKERS)]
    elif one.lone:
        style |= {"marker": "o", "markersize": 4, "markevery": list(one.lone)}
    axes.plot(xs, ys, drawstyle="steps-post" if one.step else "default", **style)
    bars = [(x, y, low, high) for x, y, low, high, _ in one.known if low is not None and high is not None]
    if bars:
        reach = [[max(0.0, y - low) for _, y, low, _ in bars], [max(0.0, high - y) for _, y, _, high in bars]]
        at, middles = [x for x, *_ in bars], [y for _, y, *_ in bars]
        axes.errorbar(at, middles, yerr=reach, fmt="none", ecolor=colour, elinewidth=1.3, capsize=4)
    for x, y, _, _, label in one.known:
        if label:
            axes.annotate(_text(label), (x, y), xytext=(5, 5), textcoords="offset points", color=colour)


def _heights(one: Series) -> list[float]:
    return [value for point in one.points for value in point[1:4] if isinstance(value, float | int)]


def _marks(axes: Axes, panel: Panel) -> None:
    """Levels and bands, each named where it lies."""
    for level in panel.levels:
        look: dict[str, Any] = {"color": BAD, "linestyle": ":", "linewidth": 1.4, "label": _text(level.name)}
        if level.x is not None:
            axes.axvline(level.x, **look)
        elif level.y is not None:
            axes.axhline(level.y, **look)
    for band in panel.bands:
        axes.axvspan(band.low, band.high, color=SOFT, alpha=0.15, linewidth=0, label=_text(band.name))


def _legend(figure: Figure) -> None:
    """Every name of the figure once, below it."""
    once: dict[str, Any] = {}
    for axes in figure.axes:
        handles, names = axes.get_legend_handles_labels()
        once |= dict(zip(names, handles, strict=True))
    if len(once) > 1:
        columns = max(1, min(len(once), 5, 110 // (max(map(len, once)) + 6)))
        figure.legend(once.values(), once, loc="outside lower center", ncols=columns, frameon=False, fontsize="small")


def _axis(axes: Axes, side: Literal["x", "y"], said: Axis, values: Sequence[float]) -> None:
    """Scale, ends, ticks and name of an axis for these values."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axis = axes.xaxis if side == "x" else axes.yaxis
    (axes.set_xlabel if side == "x" else axes.set_ylabel)(_text(said.name))
    limits = axes.set_xlim if side == "x" else axes.set_ylim
    above = [value for value in values if value > 0]
    if said.scale in ("log", "log2") and above:
        (axes.set_xscale if side == "x" else axes.set_yscale)("log", base=2 if said.scale == "log2" else 10)
        axis.set_minor_locator(NullLocator())
        ticks = (
            sorted(set(above)) if said.scale == "log2" and len(set(above)) < 12 else log_ticks(min(above), max(above))
        )
        axis.set_major_locator(FixedLocator(ticks))
    elif said.scale == "nines":
        axis.set_major_locator(FixedLocator([tick for tick in _NINES if tick <= max(values, default=0.0) + 0.5]))
    elif said.scale == "names":
        names = [_text(name, 18) for name in said.names or ()]
        every = max(1, math.ceil(len(names) / 12))
        axis.set_ticks(list(range(0, len(names), every)), names[::every])
        return
    axis.set_major_formatter(FuncFormatter(_nines if said.scale == "nines" else _number))
    if said.zero and said.scale == "linear":
        limits(0, max(1e-9, *values, 0.0) * 1.08)
    if said.low is not None or said.high is not None:
        limits(said.low, said.high)


def log_ticks(low: float, high: float, most: int = 9) -> list[float]:
    """Round values in [low, high] for a logarithmic axis: evenly spaced inside a decade, 1, 2, 5 or powers of ten over
    several."""
    from matplotlib.ticker import MaxNLocator

    if high < low * 10:
        even = MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        return sorted({float(f"{tick:.6g}") for tick in even if tick > 0})
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1,)):
        ticks = [float(f"{step * 10.0**power:.6g}") for power in powers for step in steps]
        inside = [tick for tick in ticks if low * 0.93 <= tick <= high * 1.07]
        if len(inside) <= most:
            return inside
    return inside[:: math.ceil(len(inside) / most)]


def _heat(figure: Figure, axes: Axes, chart: Heat) -> None:
    import numpy as np
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    columns, rows = len(chart.x.names or ()), len(chart.y.names or ())
    counts = np.full((rows, columns), np.nan)
    for column, row, count in chart.cells:
        counts[row, column] = count
    most = max((count for _, _, count in chart.cells), default=1)
    axes.grid(visible=False)
    drawn = axes.imshow(
        counts, origin="lower", aspect="auto", interpolation="nearest", cmap="YlGnBu", norm=LogNorm(1, max(2, most))
    )
    _axis(axes, "x", chart.x, range(columns))
    _axis(axes, "y", chart.y, range(rows))
    bar = figure.colorbar(drawn, ax=axes, label=_text(chart.count))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.yaxis.set_major_locator(FixedLocator(log_ticks(1, max(2, most))))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(_number))


def _bars(figure: Figure, axes: Axes, chart: Bars) -> None:
    for number, phase in enumerate(chart.phases):
        colour = BAD if phase.bad else PHASES.get(phase.name, COLOURS[number % len(COLOURS)])
        rows, starts, ends = zip(*phase.spans, strict=True) if phase.spans else ((), (), ())
        lengths = [end - start for start, end in zip(starts, ends, strict=True)]
        axes.barh(rows, lengths, left=starts, height=0.85, color=colour, label=_text(phase.name), linewidth=0)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    _axis(axes, "x", chart.x, [span[2] for phase in chart.phases for span in phase.spans])
    axes.set_ylabel(_text(chart.y.name))
    _legend(figure)


def _text(text: str, longest: int = _LONGEST) -> str:
    """Printable, and short enough for a picture."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    return plain if len(plain) <= longest else plain[: longest - 1] + "…"


def _number(value: float, _: Any = None) -> str:
    return brief(value) if abs(value) < 1e7 else f"{value:.4g}"


def _nines(value: float, _: Any = None) -> str:
    return f"{100 * (1 - 10**-value):.6g} %"
