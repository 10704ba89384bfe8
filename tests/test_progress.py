"""What is shown while a run goes on: the live block at every width, and the lines of a pipe."""

from __future__ import annotations

import io
import re
import threading
from pathlib import Path

import pytest
from cli_runner import command, environment, loadgen, write_scenario
from fakes import FakeServer
from rich.console import Console
from terminal import in_terminal

from loadgen.cli.block import Block
from loadgen.plan import make_plan
from loadgen.progress import Progress, flowed
from loadgen.repeat import Second
from loadgen.scenario import expand
from loadgen.scenario import load as load_scenario
from loadgen.store import Run

CLOSED = (
    "schema: loadgen/v1\nname: shown\n"
    "targets: {dense: {endpoint: 'http://h:1', model: d}, moe: {endpoint: 'http://h:2', model: m}}\n"
    "workload: {prompts: natural, output: {exact: 11}}\nload: {warmup_s: 5, window_s: 30}\n"
    "matrix: {concurrency: [16]}\nrepeats: 1\n"
)
OPEN = CLOSED.replace("matrix: {concurrency: [16]}", "matrix: {rate_rps: [20]}")
SERVER = {
    "running": 15.0,
    "waiting": 3.0,
    "kv_use": 0.345,
    "gpu_watts": 412.4,
    "gpu_bytes": 61.2e9,
    "gpu_bytes_total": 141e9,
}


class Shown:
    """A `Progress` and what it has written and shown."""

    def __init__(self, folder: Path, text: str = CLOSED, width: int | None = 80) -> None:
        self.lines: list[str] = []
        self.width = width
        path = folder / "shown.yaml"
        path.write_text(text)
        loaded = load_scenario(path)
        self.plan = make_plan(loaded.scenario, expand(loaded.scenario))
        self.progress = Progress(self.lines.append, live=width is not None)
        self.progress.planned(self.plan, Run(folder), loaded)
        self.progress.began(self.plan.steps[0], 0)
        self.progress._began += 0.4  # seconds are rounded: until 0.9 s have passed it is 0 s

    @property
    def block(self) -> list[str]:
        return self.progress.lines(self.width or 0)

    def tick(self, **fields: object) -> None:
        tick = {"worker": 0, "t": 12.0, "sent": 20, "in_flight": 16, "tokens": 640, "ended": {"ok": 20}}
        tick |= {"ttft_ms": [50.0, 60.0, 70.0], "late_us_max": 120, "cpu": 0.12}
        self.progress.ticked(Second(**{**tick, **fields}))  # type: ignore[arg-type]


def test_the_block_says_where_we_are_what_is_asked_and_what_comes_of_it(tmp_path: Path) -> None:
    shown = Shown(tmp_path, width=200)
    shown.tick(server=SERVER)
    shown.tick(ended={"ok": 18, "http_error": 2, "timeout": 1})
    first, counts, numbers = shown.block
    assert first == "[1/2] concurrency=16 dense repeat 1  0 s gone, about 1 min 11 s left"
    assert counts == "  12 s of about 36 s  in flight 16 of 16  done 38  2 http_error, 1 timeout"
    assert numbers == ("  output 640 tok/s  TTFT p50 60.0 ms p95 70.0 ms  latest send 0.12 ms late  client CPU 12 %")
    shown.tick(server=SERVER)
    assert shown.block[3] == "  server: 15 running, 3 waiting  KV cache 34 %  GPU 412 W  GPU memory 61.2 of 141 GB"


def test_an_open_loop_shows_the_rate_that_was_asked_for(tmp_path: Path) -> None:
    shown = Shown(tmp_path, OPEN)
    shown.tick(sent=19, in_flight=7)
    assert "in flight 7  sent 19.0 of 20 req/s" in shown.block[1]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_of_the_block_is_wider_than_the_terminal_and_nothing_is_lost(tmp_path: Path, width: int) -> None:
    shown = Shown(tmp_path, width=width)
    shown.tick(server=SERVER, ended={"ok": 3, "http_error": 1})
    assert max(map(len, shown.block)) <= width
    assert "\n".join(shown.block).isascii()
    said = " ".join(line.strip() for line in shown.block)
    for words in ("in flight 16 of 16", "1 http_error", "TTFT p50 60.0 ms p95 70.0 ms", "KV cache 34 %", "GPU 412 W"):
        assert words in said


def test_several_workers_add_up(tmp_path: Path) -> None:
    shown = Shown(tmp_path, width=200)
    for worker in (0, 1):
        shown.tick(worker=worker, in_flight=8, tokens=300)
    assert "in flight 16 of 16" in shown.block[1]
    assert "output 600 tok/s" in shown.block[2]
    assert "client CPU 24 %" in shown.block[2]


def test_time_goes_by_while_a_server_starts_and_nothing_ticks(tmp_path: Path) -> None:
    shown = Shown(tmp_path)
    assert "0 s gone" in shown.block[0]
    shown.progress._began -= 65
    assert "1 min 5 s gone" in shown.block[0]
    assert "in flight 0 of 16" in shown.block[1]


def test_the_block_may_be_asked_for_while_workers_tick(tmp_path: Path) -> None:
    shown, over = Shown(tmp_path), threading.Event()
    found: list[int] = []

    def look() -> None:
        while not over.is_set():
            found.append(len(shown.block))

    looking = threading.Thread(target=look)
    looking.start()
    for _ in range(2000):
        shown.tick(server=SERVER)
    over.set()
    looking.join()
    assert set(found) <= {2, 4, 5, 6}
    assert "done 40,000" in shown.block[1]


def test_what_a_server_does_not_say_is_not_shown(tmp_path: Path) -> None:
    shown = Shown(tmp_path)
    shown.tick(server={"running": 0.0})
    assert shown.block[-1] == "  server: 0 running"
    shown.tick(server={})
    assert not any("server" in line for line in shown.block)


def test_a_pipe_gets_one_line_and_then_none_for_ten_seconds(tmp_path: Path) -> None:
    shown = Shown(tmp_path, width=None)
    before = len(shown.lines)
    shown.tick()
    shown.tick()
    assert len(shown.lines) == before
    shown.progress._last_line -= 11
    shown.tick(server=SERVER)
    assert len(shown.lines) == before + 1
    assert shown.lines[-1].count("\n") == 0
    assert "in flight 16 of 16" in shown.lines[-1]


@pytest.mark.parametrize("width", [10, 30])
def test_parts_are_never_broken_and_never_lost(width: int) -> None:
    parts = ["one two", "three", "a part that is wider than anything", "four"]
    lines = flowed(parts, width)
    assert [part.strip() for line in lines for part in line.split(",") if part.strip()] == parts
    assert all(len(line) <= width or "wider" in line for line in lines)


# -- a window that changes --------------------------------------------------------------------------------------------


class Window:
    """A block in a terminal of a given width, and how many rows it goes up to draw itself anew."""

    def __init__(self, lines: list[str], columns: int) -> None:
        self.lines = lines
        self.file = io.StringIO()
        self.console = Console(file=self.file, force_terminal=True, width=columns, height=30)
        self.block = Block(lambda: self.lines, self.console)
        self.block.auto_refresh = False

    def rows_up(self, columns: int) -> int:
        self.console.width = columns
        before = len(self.file.getvalue())
        self.block.refresh()
        return self.file.getvalue()[before:].count("\u001b[1A")


def test_the_block_finds_its_first_row_when_the_window_gets_narrower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMUX", "1")
    window = Window(["a" * 90, "b" * 35, "c" * 61], 100)
    with window.block:
        window.rows_up(100)
        assert window.rows_up(100) == 2
        window.lines = ["d" * 30, "e" * 29]
        assert window.rows_up(30) == 3 + 2 + 3 - 1, "three lines took eight rows"
        assert window.rows_up(30) == 1
        window.block.console.print("a line that stays")
        assert window.rows_up(100) == 1
    assert "\u001b[?25h" in window.file.getvalue(), "the cursor is shown again"


def test_where_a_terminal_cuts_lines_off_no_row_above_the_block_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMUX", raising=False)
    monkeypatch.setenv("XTERM_VERSION", "XTerm(379)")
    window = Window(["a" * 90, "b" * 35], 100)
    with window.block:
        window.rows_up(100)
        assert window.rows_up(30) == 1


# -- a real run -------------------------------------------------------------------------------------------------------


def test_a_run_in_a_terminal_shows_the_block_and_leaves_the_report_alone(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=20, gap_ms=5) as server:
        write_scenario(tmp_path, scenario(server.url))
        env = {**environment(tmp_path / "store"), "TERM": "xterm", "LC_ALL": "C.UTF-8"}
        env.pop("COLUMNS", None)
        code, seen = in_terminal(command("run", "s.yaml"), tmp_path, env, 80)
    assert code in (0, 5), seen  # 5: this machine was late
    assert "in flight 2 of 2" in seen
    assert re.search(r"output \d+ tok/s", seen)
    assert not re.search("\u001b\\[[0-9;]*m", seen)  # NO_COLOR: cursor movements, but no colour
    report = seen.rpartition("\u001b")[2]  # behind the last movement there is the report and nothing else
    assert "s of about" not in report
    assert "report: " in report


def test_a_run_in_a_pipe_writes_lines_without_escapes(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=20, gap_ms=5) as server:
        write_scenario(tmp_path, scenario(server.url))
        done = loadgen(tmp_path, "run", "s.yaml")
    assert done.good, done.err + done.out
    assert "\u001b" not in done.err + done.out
    assert "[1/1] concurrency=2 a repeat 1" in done.err


def test_an_ascii_locale_gets_ascii_while_a_run_goes_on_and_after_it(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=20, gap_ms=5) as server:
        write_scenario(
            tmp_path,
            scenario(server.url)
            .replace("concurrency: [2]}", "served_name: [µ]}")
            .replace("2.2}", "2.2, concurrency: 2}"),
        )
        env = {**environment(tmp_path / "store"), "TERM": "xterm", "LC_ALL": "C"}
        del env["PYTHONIOENCODING"]
        env.pop("COLUMNS", None)
        code, seen = in_terminal(command("run", "s.yaml"), tmp_path, env, 80)
    assert code in (0, 5), seen
    assert seen.isascii()
    assert "\n?            a " in seen  # the table's row of an axis whose value has no like in ASCII


def test_quiet_says_nothing_while_a_run_goes_on(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=20, gap_ms=5) as server:
        write_scenario(tmp_path, scenario(server.url))
        done = loadgen(tmp_path, "run", "s.yaml", "--quiet")
    assert done.good, done.err + done.out
    assert done.err == ""


def scenario(url: str) -> str:
    return (
        f"targets: {{a: {{endpoint: '{url}', model: m}}}}\nworkload: {{prompts: natural, output: {{exact: 8}}}}\n"
        "load: {warmup_s: 0.2, window_s: 2.2}\nmatrix: {concurrency: [2]}\nrepeats: 1\n"
    )
