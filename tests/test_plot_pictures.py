"""``loadgen plot``: every kind of chart as a picture, whatever names are in it, and what is refused."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_nights import made_scenario, nights
from made_runs import made_run, scenario_of
from plotted_run import plotted_run

from loadgen.assemble import RunReport
from loadgen.cli import plotting
from loadgen.errors import LoadgenError, StoreError, UsageError
from loadgen.nights.history import read_history
from loadgen.plots import kinds
from loadgen.plots.chart import Axis, Band, Bars, Heat, Level, Lines, Panel, Phase, Point, Series
from loadgen.plots.draw import draw, figure_of, log_ticks
from loadgen.plots.nights import nights as nights_chart
from loadgen.plots.trace import traces
from loadgen.store import Run, request_files

HOSTILE = "a $x^{ & <script>alert(1)</script> \x1b[31m \u202e 模型 " + "long" * 40


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> RunReport:
    return plotted_run(tmp_path_factory.mktemp("plotted"))


def ran(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The command as a user gives it."""
    argv = [sys.executable, "-m", "loadgen", "plot", *args]
    return subprocess.run(argv, capture_output=True, text=True, env=os.environ | env, check=False)


def size(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return int(width), int(height)


@pytest.mark.parametrize("kind", [*kinds.OF_RUNS, *kinds.OF_CELLS])
def test_every_kind_of_chart_becomes_a_picture(report: RunReport, kind: str) -> None:
    chart = kinds.chart(report, kind)
    assert size(draw(chart, "png", dpi=50))[0] == 500
    assert ET.fromstring(draw(chart, "svg")).tag.endswith("svg")


def test_a_picture_has_every_point_of_every_series_and_every_bar(report: RunReport) -> None:
    chart = kinds.chart(report, "ratio")
    assert isinstance(chart, Lines)
    series = chart.panels[0].series[0]
    axes = figure_of(chart).axes[0]
    assert axes.lines[0].get_xydata().tolist() == [list(point[:2]) for point in series.points]
    drawn = [end for bars in axes.collections for path in bars.get_paths() for end in path.vertices[:, 1].tolist()]
    assert drawn[: 2 * len(series.points)] == pytest.approx([end for point in series.points for end in point[2:4]])


def charts(text: str) -> Iterator[Lines | Heat | Bars]:
    """One chart of each form, with this text wherever a name can stand."""
    x, points = Axis(name=text), ((1.0, 2.0, 1.5, 2.5, text), (2.0, 3.0, None, None, None))
    series = (Series(name=text, points=points, joined=True), Series(name=text + "2", points=points, colour=9))
    marks = {"levels": (Level(name=text, y=1.0), Level(name=text, x=1.0)), "bands": (Band(name=text, low=1, high=2),)}
    panel = Panel(y=Axis(name=text, scale="log"), series=series, name=text, **marks)
    yield Lines(title=text, reading=text, x=x, panels=(panel, panel))
    named = Axis(name=text, scale="names", names=(text, text))
    yield Heat(title=text, reading=text, x=named, y=named, cells=((0, 1, 5),), count=text)
    yield Bars(title=text, reading=text, x=x, y=x, phases=(Phase(name=text, spans=((0, 0.0, 1.0),), bad=True),))


def test_names_from_outside_are_drawn_as_text_and_nothing_else() -> None:
    for chart in charts(HOSTILE):
        assert size(draw(chart, "png", dpi=50))[0] == 500
        names = {element.tag.rpartition("}")[2] for element in ET.fromstring(draw(chart, "svg")).iter()}
        assert "script" not in names


def test_the_same_chart_gives_the_same_picture() -> None:
    for chart in charts("a"):
        assert draw(chart, "svg") == draw(chart, "svg")


@settings(deadline=None, max_examples=12)
@given(
    st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)), max_size=5),
    st.sampled_from(["linear", "log", "log2", "nines"]),
)
def test_no_values_stop_a_picture(values: list[tuple[float, float]], scale: str) -> None:
    points: tuple[Point, ...] = tuple((x, y, None, None, None) for x, y in values)
    y = Axis(name="y", scale=scale, zero=True)  # type: ignore[arg-type]
    panel = Panel(y=y, series=(Series(name="a", points=points, joined=True),))
    assert size(draw(Lines(title="t", reading="", x=y, panels=(panel,)), "png", dpi=20))[0] == 200


@settings(deadline=None)
@given(st.floats(1e-6, 1e6), st.floats(1, 1e9))
def test_a_logarithmic_axis_has_a_few_round_ticks(low: float, times: float) -> None:
    ticks = log_ticks(low, low * times)
    assert 1 <= len(ticks) <= 10
    assert ticks == sorted(set(ticks))
    assert all(tick > 0 for tick in ticks)


def test_plot_writes_the_picture_that_its_name_asks_for(report: RunReport, tmp_path: Path) -> None:
    out = tmp_path / "gaps.svg"
    done = ran(report.path, "--kind", "gaps", "--cell", report.cells[2].id, "--target", "moe", "-o", str(out))
    assert (done.returncode, done.stdout) == (0, "")
    assert f"Chunk gaps over time: moe, {report.cells[2].id}, repeat 1" in done.stderr
    assert ET.fromstring(out.read_bytes()).tag.endswith("svg")


def test_nights_are_drawn_with_what_was_expected_and_which_was_worse(tmp_path: Path) -> None:
    scenario = made_scenario(tmp_path)
    nights(tmp_path / "store", scenario, [100, 101, 99, 100.5, 98.8, 100.2, 101.3, 99.4, 100.1, 99.9, 80])
    known = read_history(tmp_path / "store")
    key = known.find("output_tok_s")[0]
    chart = nights_chart(known.entries[key])
    assert chart is not None
    panel = chart.panels[0]
    drawn = {series.name: series.points for series in panel.series}
    assert [point[1] for point in drawn["night"]][-2:] == pytest.approx([99.9, 80.0])
    low, high = drawn["expected from"][-1][1], drawn["expected to"][-1][1]
    assert 95 < low < 100 < high < 105
    assert [point[0] for point in drawn["suspect"]] == [10.0]  # nobody measured it again


def test_plot_draws_the_nights_of_a_series(tmp_path: Path) -> None:
    store = tmp_path / "store"
    run = nights(store, made_scenario(tmp_path), [100, 101, 99])[-1]
    done = ran(str(run.folder), "--kind", "history", "--series", "output_tok_s", "-o", str(tmp_path / "h.png"))
    assert done.returncode == 0, done.stderr
    assert size((tmp_path / "h.png").read_bytes())[0] == 1500


def test_a_run_that_lies_in_no_store_has_no_nights_and_gets_no_index(report: RunReport, tmp_path: Path) -> None:
    alone = tmp_path / "a" / "b" / "copy"
    shutil.copytree(report.path, alone)
    with pytest.raises(UsageError, match="is in no store"):
        plotting.plot(str(alone), "history", tmp_path / "x.png")
    assert not list(tmp_path.rglob("loadgen.db"))


@pytest.mark.parametrize(
    ("kind", "out", "more", "says"),
    [
        ("pie", "x.png", {}, "--kind pie: there are pareto, ratio,"),
        ("ratio", "x.jpg", {}, "-o x.jpg: a picture ends in .png or .svg."),
        ("gaps", "x.png", {"cell": "c9"}, "--cell c9: this run has concurrency=1"),
        ("gaps", "x.png", {"target": "t9"}, "--target t9: this run has dense, moe."),
        ("history", "x.png", {}, "no night of a series of"),
        ("pareto", "nowhere/x.png", {}, "cannot write nowhere/x.png: No such file or directory"),
    ],
)
def test_what_cannot_be_drawn_is_a_sentence(
    report: RunReport, kind: str, out: str, more: dict[str, str], says: str
) -> None:
    with pytest.raises(LoadgenError, match=re.escape(says)):
        plotting.plot(report.path, kind, Path(out), **more)


def test_a_chart_that_a_run_has_nothing_for_says_what_it_needs(tmp_path: Path) -> None:
    run = made_run(tmp_path, scenario_of(tmp_path, ("a",)), {"a": [100.0]})
    for kind, says in (("roofline", "a GPU that is known"), ("ratio", "nothing was compared"), ("gaps", "no request")):
        with pytest.raises(UsageError, match=says):
            plotting.plot(str(run.folder), kind, tmp_path / "x.png")


def test_without_matplotlib_it_is_said_how_to_get_it(report: RunReport, tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ImportError('not here')\n")
    done = ran(report.path, "--kind", "pareto", "-o", str(tmp_path / "x.png"), PYTHONPATH=str(tmp_path))
    assert (done.returncode, "pip install 'loadgen[png]'" in done.stderr) == (2, True)


def test_request_lines_that_are_gone_or_damaged_are_a_sentence(tmp_path: Path) -> None:
    found = plotted_run(tmp_path)
    cell = found.cells[0]
    for target in cell.targets:
        for rep in (1, 2, 3):
            for path in request_files(Run(Path(found.path)).repeat(cell.id, target.target, rep).folder / "attempt-1"):
                path.unlink() if target.target == "moe" else path.write_bytes(b'{"seq": \n')
    with pytest.raises(StoreError, match="its request lines cannot be read"):
        list(traces(found, cell))
    with pytest.raises(UsageError, match="there are no request lines in concurrency=1"):
        kinds.chart(found, "gantt", cell.id, "moe")
