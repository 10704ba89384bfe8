"""What is invalid is measured again, in whole blocks, and nothing else is; what is left of a run, and how long.

The faults of the fake server make a repeat fail; a busy machine may make others invalid. Either way those blocks, and
no others, have a second attempt."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from cli_runner import Done, command, environment, hear_signals, loadgen, write_scenario
from fakes import FakeServer
from made_runs import made_run, scenario_of, summary, write

from loadgen.assemble import assemble
from loadgen.fair.fingerprint import PROBES
from loadgen.needless import rest_of, set_aside, spared, what_is_left, whole
from loadgen.plan import Plan, make_plan
from loadgen.reports import rows
from loadgen.reports.left import lines
from loadgen.scenario import expand, load
from loadgen.statistics import Verdict
from loadgen.store import Run

REQUESTS = 5
LINE = "The client sent late."
PAIRED = "repeats: 4\ncomparison: {scope: instance}\n"


def made(folder: Path, more: str = PAIRED, cells: str = "") -> tuple[Run, Plan]:
    """A run of two targets in which everything is well but the second repeat of a, which is invalid."""
    scenario = scenario_of(folder, ("a", "b"), more + cells)
    values = (1000.0, None, 1002.0, 1001.0)
    run = made_run(folder / "store", scenario, {"a": values, "b": [1200.0, 1204.0, 1196.0, 1201.0]})
    cell = expand(scenario)[0].id
    write(run, (cell, "a", 2), summary(400.0, state="invalid"))
    return run, make_plan(scenario, expand(scenario))


def again(run: Run, plan: Plan, paired: bool = True) -> list[tuple[str, str, int]]:
    """The repeats that are to be measured again: cell, target, number."""
    left = what_is_left(run, plan, paired, retry=True)
    found = [plan.steps[old.number] for block in left.again for old in block]
    assert {number for number in range(len(plan.steps)) if number not in left.idle} >= {
        old.number for block in left.again for old in block
    }
    return sorted((step.cell, step.target, step.rep) for step in found)


def test_an_invalid_repeat_is_measured_again_with_its_whole_block_and_with_nothing_else(tmp_path: Path) -> None:
    run, plan = made(tmp_path)
    assert again(run, plan) == [("all", target, rep) for target in "ab" for rep in (1, 2)]


def test_the_blocks_of_other_cells_stay_as_they_are(tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path, ("a", "b"), PAIRED + "matrix: {timeout_s: [100, 200]}\n")
    values = [1000.0] * 4
    run = made_run(tmp_path / "store", scenario, {"a": values, "b": values})
    write(run, ("timeout_s=200", "b", 4), summary(4.0, state="failed"))  # a later attempt, which counts
    found = again(run, make_plan(scenario, expand(scenario)))
    assert found == [("timeout_s=200", target, rep) for target in "ab" for rep in (3, 4)]


def test_half_a_block_at_the_end_is_measured_again_as_it_was(tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path, ("a", "b"), PAIRED.replace("4", "3"))
    run = made_run(tmp_path / "store", scenario, {"a": [1.0, 1.0], "b": [1.0, 1.0, 1.0]})
    write(run, ("all", "a", 3), summary(1.0, state="invalid"))
    assert again(run, make_plan(scenario, expand(scenario))) == [("all", "a", 3), ("all", "b", 3)]


def test_where_nothing_is_compared_a_repeat_is_measured_again_alone(tmp_path: Path) -> None:
    run, plan = made(tmp_path, "repeats: 4\n")
    assert again(run, plan, paired=False) == [("all", "a", 2)]


def test_a_repeat_that_lost_a_worker_is_measured_again_too(tmp_path: Path) -> None:
    run, plan = made(tmp_path, "repeats: 4\n")
    write(run, ("all", "b", 3), summary(900.0), lost=("worker 1 was killed",))
    assert again(run, plan, paired=False) == [("all", "a", 2), ("all", "b", 3)]
    said = lines(run, plan, what_is_left(run, plan, paired=False, retry=True))
    assert "all: repeat 3 of b: to be measured again; attempt 2 was degraded: worker 1 was killed" in said


def test_without_being_asked_for_it_nothing_whole_is_measured_again(tmp_path: Path) -> None:
    run, plan = made(tmp_path)
    left = what_is_left(run, plan, paired=True, retry=False)
    assert (left.idle, list(left.again)) == (set(range(8)), [])
    assert lines(run, plan, left) == [f"{run.id}: 8 repeats whole; nothing is left"]


def test_a_repeat_whose_partner_is_missing_is_among_those_that_are_measured_again(tmp_path: Path) -> None:
    run, plan = made(tmp_path)
    (run.repeat("all", "b", 4).attempts()[0] / "summary.json").unlink()
    left = what_is_left(run, plan, paired=True, retry=False)
    assert left.idle == set(range(6))
    (said,) = lines(run, plan, left)
    assert said.startswith(f"{run.id}: 7 repeats whole (1 of them to be measured again); left: 2 repeats, ")


def test_attempts_that_were_set_aside_count_no_longer_and_stay_in_the_store(tmp_path: Path) -> None:
    run, plan = made(tmp_path)
    left = what_is_left(run, plan, paired=True, retry=True)
    set_aside(left.beside(0))
    assert whole(run, plan, paired=True) == {4, 5, 6, 7}
    assert all((old.attempt / "summary.json").exists() for old in left.beside(0))
    assert what_is_left(run, plan, paired=True, retry=False).idle == {4, 5, 6, 7}  # --resume alone goes on with it
    assert left.beside(4) == ()


@pytest.mark.parametrize("written", [1, 2, 3])
def test_a_kill_while_a_block_is_set_aside_leaves_it_to_be_found_again(tmp_path: Path, written: int) -> None:
    run, plan = made(tmp_path)
    block = what_is_left(run, plan, paired=True, retry=True).beside(0)
    order: list[Path] = []
    set_aside(block)
    marks = sorted(run.folder.glob("cells/*/*/*/*/set_aside.json"), key=lambda path: path.stat().st_mtime_ns)
    order += [path for path in marks if json.loads(path.read_text())["why"] == ""]
    order += [path for path in marks if path not in order]
    for path in order[written:]:
        path.unlink()
    left = what_is_left(run, plan, paired=True, retry=True)
    assert {0, 1, 2, 3} & left.idle == set()
    assert [old.said.state for block in left.again for old in block if old.said.why] == ["invalid"]


def test_the_report_says_which_attempt_counts_and_why_the_one_before_does_not(tmp_path: Path) -> None:
    run, plan = made(tmp_path)
    before = assemble(run)
    assert before.comparisons[0].cells[0].primary.verdict is Verdict.INVALID
    set_aside(what_is_left(run, plan, paired=True, retry=True).beside(0))
    waiting = rows.notes(assemble(run))
    assert f"all: repeat 2 of a: to be measured again; attempt 1 was invalid: {LINE}" in waiting
    for target, value in (("a", 1000.0), ("b", 1200.0)):
        for rep in (1, 2):
            write(run, ("all", target, rep), summary(value))
    report = assemble(run)
    found = report.comparisons[0].cells[0].primary
    assert found.verdict is Verdict.FASTER
    assert found.baseline_values[:2] == (1000.0, 1000.0)
    notes = rows.notes(report)
    assert notes[0].startswith("all: repeat 2 of a: attempt ")
    assert notes[0].endswith(f"attempt 1 was invalid: {LINE}")
    assert notes[1].endswith("since a block (ABBA) is measured in one stretch: repeat 1 of a, repeats 1 and 2 of b")
    assert {target.state for cell in report.cells for target in cell.targets} == {"ok"}


def test_a_second_attempt_that_is_invalid_as_well_counts_and_is_measured_again(tmp_path: Path) -> None:
    run, plan = made(tmp_path, "repeats: 4\n")
    set_aside(what_is_left(run, plan, paired=False, retry=True).beside(1))
    write(run, ("all", "a", 2), summary(300.0, state="invalid"))
    left = what_is_left(run, plan, paired=False, retry=True)
    assert [(old.step.rep, old.said.attempt) for block in left.again for old in block] == [(2, 2)]
    assert assemble(run).cells[0].targets[0].state == "invalid"


# A run that adds repeats until its interval is narrow -----------------------------------------------------------------


def test_until_is_judged_after_the_last_block_that_is_measured_again(tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path, ("a", "b"), "comparison: {scope: instance, until: 1%}\n")
    wide = (1000.0, 1100.0, 900.0, 1050.0, 950.0, 1080.0)
    run = made_run(tmp_path / "store", scenario, {"a": [1000.0] * 6, "b": wide})
    plan = make_plan(scenario, expand(scenario))
    for rep in (2, 6):
        write(run, ("all", "a", rep), summary(400.0, state="invalid"))
    assert what_is_left(run, plan, paired=True, retry=False).idle == set(range(60))  # no repeat could make it valid
    left = what_is_left(run, plan, paired=True, retry=True)
    assert left.idle == {4, 5, 6, 7}
    said = lines(run, plan, left)
    assert said[-1].startswith(f"{run.id}: 12 repeats whole (8 of them to be measured again); left: 8 to 56 repeats, ")
    for block, (first, second) in ((0, (1, 2)), (8, (5, 6))):
        set_aside(left.beside(block))
        for target in "ab":
            for rep in (first, second):
                write(run, ("all", target, rep), summary(1000.0 * (1 if target == "a" else 1 + rep / 50)))
        after = plan.steps[block + 3]
        pending = set(range(block + 4, 60)) - left.idle
        assert spared(run, plan, pending, after, lambda _: None) == set()  # first the other block, then it is wide
    for rep in range(1, 7):
        for target, value in (("a", 1000.0), ("b", 1200.0 + rep)):
            write(run, ("all", target, rep), summary(value))
    assert spared(run, plan, set(range(12, 60)), plan.steps[11], lambda _: None) == set(range(12, 60))


# How long it takes ----------------------------------------------------------------------------------------------------


def test_what_is_left_takes_as_long_as_what_was_measured_took(tmp_path: Path) -> None:
    ends_by_count = load(Path(scenario(tmp_path, "http://127.0.0.1:8", "http://127.0.0.1:9"))).scenario
    run = made_run(tmp_path / "store", ends_by_count, {"a": [1000.0, 1000.0], "b": [1000.0, 1000.0]}, window_s=7)
    plan = make_plan(ends_by_count, expand(ends_by_count))
    assert plan.cells[0].assumed.startswith("replies of 4 tokens at 50 a second")
    rest = rest_of(run, plan, what_is_left(run, plan, paired=True, retry=False))
    assert [(step.target, step.rep) for step in rest.steps] == [("a", 3), ("b", 3), ("b", 4), ("a", 4)]
    assert (rest.estimate_s, rest.cells[0].assumed) == (4 * 8, "")  # a second of warm-up, and the window


# Real runs ------------------------------------------------------------------------------------------------------------


def scenario(folder: Path, a: str, b: str) -> str:
    """The path of one whose repeats end by a count."""
    text = (
        f"targets: {{a: {{endpoint: '{a}', model: m}}, b: {{endpoint: '{b}', model: m}}}}\n"
        "workload: {prompts: natural, output: {exact: 4}}\n"
        f"load: {{concurrency: 1, warmup_s: 0, requests: {REQUESTS}}}\n"
        "repeats: 4\ncomparison: {scope: instance}\n"
    )
    return str(write_scenario(folder, text))


def failing(rep: int) -> dict[str, object]:
    """A fault of every request of a repeat: those before it are the first of all, the greedy probes, and its own."""
    first = 1 + PROBES + REQUESTS * (rep - 1)
    return {"kind": "http", "status": 500, "nth": list(range(first, first + REQUESTS))}


def states(done: Done) -> dict[tuple[str, int], list[str]]:
    """By target and repeat: how its attempts came out, oldest first."""
    found: dict[tuple[str, int], list[str]] = {}
    for result in done.results():
        found.setdefault((result.target, result.rep), []).append(result.summary.state)
    return found


def test_a_failed_repeat_is_measured_again_with_its_block_and_the_verdict_is_there(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=5, gap_ms=1, faults=[failing(3)]) as a, FakeServer(ttft_ms=5, gap_ms=1) as b:
        path = scenario(tmp_path, a.url, b.url)
        first = loadgen(tmp_path, "run", path)
        before = states(first)
        assert before["a", 3] == ["failed"]
        assert f"run {path} --resume {first.run.name} --retry-invalid`, with the same flags, measures" in first.err
        bad = {(rep + 1) // 2 for (_, rep), (state,) in before.items() if state != "ok"}
        planned = loadgen(tmp_path, "plan", path, "--resume", "last", "--retry-invalid")
        said = " ".join(planned.out.split())
        assert "all: repeat 3 of a: to be measured again; attempt 1 was failed: " in said
        assert f"8 repeats whole ({4 * len(bad)} of them to be measured again); left: {4 * len(bad)} repeats" in said
        assert states(planned) == before  # a plan measures nothing
        done = loadgen(tmp_path, "run", path, "--resume", "last", "--retry-invalid")
    assert done.run == first.run
    assert {rep for (_, rep), found in states(done).items() if len(found) == 2} == {
        rep for rep in range(1, 5) if (rep + 1) // 2 in bad
    }
    assert states(done)["a", 3][0] == "failed"
    assert "all: repeat 3 of a: attempt 2; attempt 1 was failed: " in " ".join(done.out.split())
    assert "to be measured again" in done.err
    assert "failed" not in {found[-1] for found in states(done).values()}


def test_a_kill_in_the_middle_of_measuring_again_costs_the_repeat_in_flight(tmp_path: Path) -> None:
    block = ("--set", "repeats=2")
    with FakeServer(ttft_ms=30, gap_ms=30, faults=[failing(1)]) as a, FakeServer(ttft_ms=5, gap_ms=1) as b:
        path = scenario(tmp_path, a.url, b.url)
        loadgen(tmp_path, "run", path, *block)
        process = begin(tmp_path, path, "--resume", "last", "--retry-invalid", *block)
        wait_for(tmp_path, "store/runs/*/*/cells/all/a/rep-001/attempt-2/requests-*")
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        done = loadgen(tmp_path, "run", path, "--resume", "last", *block)
    run = Run(done.run)
    for target in "ab":
        for rep in (1, 2):
            attempt = run.repeat("all", target, rep).whole()
            assert attempt is not None
            assert not (attempt / "set_aside.json").exists()
    first = [run.repeat("all", target, rep).attempts()[0] for target in "ab" for rep in (1, 2)]
    assert all((attempt / "set_aside.json").exists() for attempt in first)
    assert done.description()["status"] == "complete"


def test_a_report_of_a_run_that_goes_on_says_what_is_running_and_what_waits(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=5, gap_ms=200) as a, FakeServer(ttft_ms=5, gap_ms=1) as b:
        path = scenario(tmp_path, a.url, b.url)
        process = begin(tmp_path, path, "--set", "load.requests=null", "--set", "load.window_s=60")
        wait_for(tmp_path, "store/runs/*/*/cells/all/a/rep-001/attempt-1/requests-*")
        during = [loadgen(tmp_path, "report", "last", *words) for words in ((), ("--format", "csv"))]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
        after = loadgen(tmp_path, "report", "last")
    table = [line.split() for line in during[0].out.splitlines()]
    assert [(line[0], line[1], line[-1]) for line in table if line[:1] == ["all"]] == [
        ("all", "a", "running"),
        ("all", "b", "waiting"),
    ]
    assert "SKIPPED" not in during[0].out
    assert during[1].out.count(",running") == 1
    assert during[1].out.count(",waiting") == 7
    assert "running" not in after.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--retry-invalid",), "--retry-invalid: belongs to --resume RUN"),
        (("--resume", "last", "--retry-invalid"), "no run 'last' in "),
    ],
)
def test_what_cannot_be_measured_again_is_refused(tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    path = scenario(tmp_path, "http://127.0.0.1:9", "http://127.0.0.1:9")
    for name in ("run", "plan"):
        done = loadgen(tmp_path, name, path, *words)
        assert done.code == 2
        assert sentence in done.err


@pytest.mark.parametrize("flag", [("--commands",), ("--preview",), ("--layout", "published"), ("--gpu", "24GB")])
def test_a_plan_shows_what_is_left_or_something_else(tmp_path: Path, flag: tuple[str, ...]) -> None:
    path = scenario(tmp_path, "http://127.0.0.1:9", "http://127.0.0.1:9")
    done = loadgen(tmp_path, "plan", path, "--resume", "last", *flag)
    assert done.code == 2
    assert f"{flag[0]}: shows something else than what a run has left (--resume)" in done.err


def begin(folder: Path, path: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("run", path, *words), cwd=folder, env=environment(folder / "store"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_signals,
    )  # fmt: skip


def wait_for(folder: Path, pattern: str) -> None:
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size for path in folder.glob(pattern)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
