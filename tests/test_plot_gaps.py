"""Lines over time: they break where nothing is known, and what stands alone is still seen."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.long.intervals import Interval
from loadgen.long.over_time import OverTime
from loadgen.nights.baseline import Entry
from loadgen.nights.series import Point as Night
from loadgen.nights.series import Series as NightSeries
from loadgen.plots.chart import Axis, Known, Lines, Panel, Point, apart, line, thinned
from loadgen.plots.nights import nights
from loadgen.plots.over_time import chart
from loadgen.reports.html.figures import data_block, figure
from loadgen.summary import Window

NONE = (None, None, None)


def points(ys: Sequence[float | None]) -> list[Point]:
    return [(float(i), y, *NONE) for i, y in enumerate(ys)]


def values(known: Sequence[Known]) -> list[tuple[float, float]]:
    return [(x, y) for x, y, *_ in known]


def test_a_value_between_two_gaps_is_marked_and_neighbours_are_not() -> None:
    assert line("a", points([1, None, 2, None, 3, 4])).lone == (0, 2)
    assert line("a", points([1, 2, 3])).lone == ()
    assert line("a", points([1])).lone == ()


def test_a_step_is_drawn_up_to_the_gap_after_it_and_is_one_value_in_the_table() -> None:
    made = line("a", points([5, None, 6, 7, None]), step=True)
    assert [(x, y) for x, y, *_ in made.points] == [(0, 5), (1, 5), (1, None), (2, 6), (3, 7)]
    assert values(made.known) == [(0, 5), (2, 6), (3, 7)]
    assert made.lone == (0,)


def test_points_that_are_too_far_apart_have_a_gap_between_them() -> None:
    found = apart([(0.0, 1.0, *NONE), (1.0, 1.0, *NONE), (9.0, 2.0, *NONE)], most=2)
    assert [y for _, y, *_ in found] == [1.0, 1.0, None, 2.0]


@given(st.lists(st.none() | st.floats(-1e6, 1e6), max_size=300), st.integers(2, 60))
def test_thinning_keeps_what_is_highest_and_lowest_and_invents_no_value(ys: list[float | None], most: int) -> None:
    kept = thinned(points(ys), most)
    known = [y for y in ys if y is not None]
    assert set(kept) <= set(points(ys))
    assert [x for x, *_ in kept] == sorted(x for x, *_ in kept)
    assert sum(y is not None for _, y, *_ in kept) <= max(most, len(known) if len(ys) <= most else 0)
    assert not known or {min(known), max(known)} <= {y for _, y, *_ in kept}
    assert (None in ys) == any(y is None for _, y, *_ in kept)


def over_time(p99s: Sequence[float | None]) -> Lines:
    intervals = [
        Interval(start_s=10.0 * i, length_s=10.0, output_tok_s=100.0, ttft_p50_s=0.05, ttft_p99_s=p99)
        for i, p99 in enumerate(p99s)
    ]
    window = Window(0, 10.0 * len(p99s))
    one = OverTime(
        cell="c", target="t", rep=1, attempt=1, window=window, ended=True, intervals=tuple(intervals), drifts=()
    )
    return chart(one)


def test_the_course_of_a_repeat_breaks_where_an_interval_has_no_percentile() -> None:
    made = over_time([0.2, 0.2, None, None, 0.3, None, 0.2])
    (p99,) = [one for panel in made.panels for one in panel.series if one.name == "t p99"]
    (p50,) = [one for panel in made.panels for one in panel.series if one.name == "t p50"]
    gaps = [i for i, (_, y, *_) in enumerate(p99.points) if y is None]
    assert len(gaps) == 3
    assert [p99.points[i][0] for i in p99.lone] == pytest.approx([40 / 60, 60 / 60])
    assert all(y is not None for _, y, *_ in p50.points)
    shown = figure("course", made)
    rows = [row for row in shown.table.rows if row[0] == "t p99"]
    assert [row[3] for row in rows] == ["200.0", "200.0", "300.0", "200.0"]
    assert "[0.333333]" in data_block([shown]), "a gap has a place and no value"


def entry(day: int, value: float | None) -> Entry:
    series = NightSeries(key="k", scenario="s", cell="c", target="t", measure="output_tok_s")
    point = Night(
        series=series, run=f"r{day}", at=f"2026-11-{day:02d}T02:00:00Z", state="invalid" if value is None else "ok",
        y=None if value is None else math.log(value), reps=1, primary=True, facts={},
    )  # fmt: skip
    return Entry(point=point, epoch="r1", verdict=None)


def test_a_line_of_nights_breaks_at_one_that_came_to_nothing_and_at_one_that_is_missing() -> None:
    made = nights([entry(1, 100.0), entry(2, None), entry(3, 99.0), entry(4, 98.0), entry(7, 97.0), entry(8, 97.0)])
    assert made is not None
    (series,) = made.panels[0].series
    heights = [y if y is None else round(y) for _, y, *_ in series.points]
    assert heights == [100, None, 99, 98, None, 97, 97]
    assert made.x.names == tuple(f"2026-11-0{day}" for day in (1, 2, 3, 4, 7, 8))


def test_a_picture_breaks_the_line_and_marks_what_stands_alone() -> None:
    pytest.importorskip("matplotlib")
    from loadgen.plots.draw import figure_of

    series = line("a", points([1, 2, None, 1, None, 3, 2]), step=True)
    panel = Panel(y=Axis(name="y"), series=(series,))
    axes = figure_of(Lines(title="t", reading="", x=Axis(name="x"), panels=(panel,))).axes[0]
    (drawn,) = axes.get_lines()
    heights = drawn.get_ydata()
    assert [i for i, y in enumerate(heights) if math.isnan(y)] == [
        i for i, (_, y, *_) in enumerate(series.points) if y is None
    ]
    assert [series.points[i][1] for i in drawn.get_markevery()] == [1]
