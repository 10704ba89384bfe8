"""The pages of nights: what stands on them, where their links lead, and that what others wrote stays text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from cli_runner import loadgen
from made_nights import VECTOR, made_scenario, night, nights

from loadgen.nightly.site import write_site
from loadgen.nights.baseline import Entry, entries_of
from loadgen.nights.events import Accepted, append
from loadgen.nights.history import read_history
from loadgen.nights.series import Point, Series
from loadgen.reports.site import STYLES
from loadgen.reports.site.drawing import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, drawn
from loadgen.store import create_run

HOSTILE = "</title></script><img src=x onerror=alert(1)>{{7*7}}\x1b[31m\u202e"


class Page(HTMLParser):
    """A page's elements, links, and text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.names: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.classes: set[str] = set()
        self.text = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.links += [value or "" for name, value in attrs if name == "href"]
        self.classes |= {word for name, value in attrs if name == "class" for word in (value or "").split()}
        self.sources += [value or "" for name, value in attrs if name in ("src", "srcset", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.text += data


def store_with(folder: Path, values: tuple[float, ...]) -> Path:
    nights(folder / "store", made_scenario(folder / "scenario"), values)
    return folder / "store"


def series_page(store: Path, measure: str) -> Path:
    known = read_history(store)
    (key,) = (key for key, one in known.series.items() if one.measure == measure)
    return store / "site" / "series" / f"{key}.html"


def test_a_store_without_nights_has_a_page_that_says_so_and_lists_its_runs(tmp_path: Path) -> None:
    run = create_run(tmp_path / "store", "made")
    run.write("run.json", {"run": run.id, "status": "failed", "scenario": {"name": "made"}})
    page = Page(write_site(tmp_path / "store"))
    assert "No nights yet" in page.text
    assert run.id in page.text
    assert f"runs/{run.id}.html" not in page.links  # it has nothing to show


def test_a_regression_stands_in_the_title_and_as_the_line_that_is_printed(tmp_path: Path) -> None:
    store = store_with(tmp_path, VECTOR)
    run, _ = night(store, made_scenario(tmp_path / "scenario"), 94, again=94)
    page = Page(write_site(store))
    assert "Nights: 1 regression, 1 ok" in page.text
    assert (
        "REGRESSION made a all output_tok_s 94 vs 100 (-6.0 %), 14-night range 98.8..101.3, expected 98.35..101.7, "
        "p=1e-6, confirmed 2/2" in page.text
    )
    assert page.links.count(f"runs/{run.id}.html") >= 3  # the night, its marks, the list of runs
    assert f"measured {run.id} again" in page.text


def test_every_link_leads_to_a_file_of_the_site(tmp_path: Path) -> None:
    store = store_with(tmp_path, VECTOR[:4])
    first = write_site(store)
    pages = sorted(first.parent.glob("series/*.html"))
    assert len(pages) == 2
    for path in (first, *pages):
        links = [link for link in Page(path).links if not link.startswith("#")]
        assert links
        assert [link for link in links if not (path.parent / link).is_file()] == []


def test_a_page_asks_nobody_for_anything_and_has_no_script(tmp_path: Path) -> None:
    store = store_with(tmp_path, VECTOR[:4])
    first = write_site(store)
    for path in (first, *first.parent.glob("series/*.html")):
        page = Page(path)
        assert "script" not in page.names
        assert page.sources == []
        assert "http" not in path.read_text().replace('http-equiv="Content-Security-Policy"', "")
        assert "default-src 'none'; script-src 'none'; style-src 'sha256-" in path.read_text().replace("&#39;", "'")
        assert not re.search(r'style="|\son\w+=', path.read_text())  # the policy would not let them be


def test_every_class_that_a_page_uses_has_a_style(tmp_path: Path) -> None:
    """Half of them are those of a run's report, which may change."""
    store = store_with(tmp_path, VECTOR[:8])
    night(store, made_scenario(tmp_path / "scenario"), 94, again=94)
    first = write_site(store)
    style = "".join(path.read_text() for path in STYLES)
    for path in (first, *first.parent.glob("series/*.html")):
        plain = {"ok", "learning"}  # states that look like any text
        assert {name for name in Page(path).classes - plain if f".{name} " not in style} == set()


def test_what_others_wrote_is_text(tmp_path: Path) -> None:
    scenario = made_scenario(tmp_path / "scenario")
    store = tmp_path / "store"
    nights(store, scenario, VECTOR[:4])
    versions = {"started": HOSTILE, "versions": {"loadgen": f"2 {HOSTILE}"}, "status": HOSTILE}
    run, _ = night(store, scenario, 94, again=94, described=versions)
    known = read_history(store)
    append(store, [Accepted(at=HOSTILE, series=tuple(known.series), run=run.id, note=HOSTILE)])
    first = write_site(store)
    for path in (first, *first.parent.glob("series/*.html")):
        text = path.read_text()
        assert "img" not in Page(path).names
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "onerror=alert(1)" in Page(path).text
        assert "{{7*7}}" in Page(path).text


def test_a_series_has_its_nights_the_last_one_first_with_what_changed(tmp_path: Path) -> None:
    scenario, store = made_scenario(tmp_path / "scenario"), tmp_path / "store"
    runs = nights(store, scenario, VECTOR[:3])
    newer, _ = night(store, scenario, 100, described={"versions": {"loadgen": "2"}})
    write_site(store)
    text = Page(series_page(store, "output_tok_s")).text
    places = [text.index(run.id[-6:]) for run in (newer, *reversed(runs))]
    assert places == sorted(places)
    assert "loadgen 1 -> 2" in text
    assert "higher is better; primary" in text


def test_an_epoch_is_marked_with_its_reason(tmp_path: Path) -> None:
    store = store_with(tmp_path, VECTOR[:4])
    known = read_history(store)
    append(
        store, [Accepted(at="2026-11-21T06:00:00Z", series=tuple(known.series), run=known.nights[2].run, note="why")]
    )
    write_site(store)
    page = series_page(store, "output_tok_s").read_text()
    assert page.count('class="epoch"') == 1
    assert "new epoch: accepted: why" in page
    assert "accepted from" in (store / "site" / "index.html").read_text()


def test_old_reports_leave_the_site_and_strange_files_stay(tmp_path: Path) -> None:
    store = store_with(tmp_path, VECTOR[:3])
    folder = write_site(store).parent / "runs"
    gone = folder / "20250101T000000Z-made-abcdef.html"
    for path in (gone, folder / "mine.html"):
        path.write_text("x")
    write_site(store)
    assert not gone.exists()
    assert (folder / "mine.html").exists()
    assert len(list(folder.glob("2026*.html"))) == 3


def test_a_report_is_taken_as_it_lies_beside_the_run_and_again_when_it_is_newer(tmp_path: Path) -> None:
    store = store_with(tmp_path, VECTOR[:2])
    run = next(store.glob("runs/*/*"))
    (run / "report.html").write_text("as it was made")
    copy = write_site(store).parent / "runs" / f"{run.name}.html"
    assert copy.read_text() == "as it was made"
    (run / "report.html").write_text("made again")
    write_site(store)
    assert copy.read_text() == "made again"


def test_the_store_s_own_site_is_for_the_owner_and_a_named_one_for_everyone(tmp_path: Path) -> None:
    store = store_with(tmp_path, VECTOR[:2])
    own = write_site(store).parent
    named = write_site(store, tmp_path / "www" / "nights").parent
    for folder, modes in ((own, (0o700, 0o600)), (named, (0o755, 0o644))):
        paths = [folder, *folder.rglob("*")]
        assert {path.stat().st_mode & 0o777 for path in paths if path.is_dir()} == {modes[0]}
        assert {path.stat().st_mode & 0o777 for path in paths if path.is_file()} == {modes[1]}


def test_a_broken_run_costs_its_page_alone(tmp_path: Path) -> None:
    store = store_with(tmp_path, VECTOR[:2])
    write_site(store)
    broken = create_run(store, "made")
    (broken.folder / "run.json").write_text("{")
    said: list[str] = []
    page = Page(write_site(store, say=said.append))
    assert [text.split(" ")[0] for text in said] == [broken.id]
    assert "unreadable" in page.text


def test_the_command_prints_the_first_page_and_refuses_what_is_no_store(tmp_path: Path) -> None:
    store_with(tmp_path, VECTOR[:2])
    done = loadgen(tmp_path, "site", "-o", "www")
    assert (done.code, done.out, done.err) == (0, "www/index.html\n", "")
    assert (tmp_path / "www" / "index.html").exists()
    missing = loadgen(tmp_path, "site", "--store", "elsewhere")
    assert (missing.code, missing.out) == (2, "")
    assert "elsewhere" in missing.err
    (tmp_path / "file").write_text("x")
    taken = loadgen(tmp_path, "site", "-o", "file")
    assert taken.code == 1
    assert "choose another with -o" in taken.err


def entry(value: float | None, run: str) -> Entry:
    series = Series(key="k", scenario="s", cell="c", target="t", measure="output_tok_s")
    point = Point(
        series=series, run=run, at="2026-11-20T01:00:00Z", state="ok", y=None if value is None else value, reps=1,
        primary=True, facts={},
    )  # fmt: skip
    return entries_of([point], {}, [])[0]


def test_nothing_is_drawn_of_nights_without_a_value() -> None:
    assert drawn([entry(None, "a")]) is None


@pytest.mark.parametrize("logs", [[0.0], [0.0, 0.0], [-20.0, 12.0], [4.6, 4.61, 4.59, 4.6]])
def test_every_mark_lies_on_the_sheet_and_the_higher_value_higher(logs: list[float]) -> None:
    plot = drawn([entry(y, f"r{i}") for i, y in enumerate(logs)])
    assert plot is not None
    for mark in plot.marks:
        assert LEFT < mark.x < WIDTH - RIGHT
        assert TOP < mark.y < HEIGHT - BOTTOM
    assert [mark.x for mark in plot.marks] == sorted(mark.x for mark in plot.marks)
    highest, lowest = logs.index(max(logs)), logs.index(min(logs))
    assert plot.marks[highest].y <= plot.marks[lowest].y
    assert 1 <= len(plot.ticks) <= 8
