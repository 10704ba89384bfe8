"""Shards: programs that do not talk send one schedule together, and their runs become one."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cli_runner import Done, command, environment, loadgen, write_scenario
from fakes import FakeServer
from scenario_text import scenario

from loadgen.errors import UsageError
from loadgen.fleet import Shard
from loadgen.fleet.shard import check, parse, slot_s
from loadgen.long.intervals import read_intervals
from loadgen.merging import merge
from loadgen.offered import shape_of
from loadgen.record import Record
from loadgen.store import Run

SCENARIO = """
targets: {{a: {{endpoint: '{url}', model: m}}}}
workload: {{prompts: natural, output: {{exact: 4}}}}
load: {{rate_rps: 30, warmup_s: 0.3, window_s: 2, drain_s: 2, interval_s: 1}}
repeats: 1
"""


def at(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def shard(folder: Path, path: Path, share: str, start: str) -> subprocess.Popen[str]:
    words = command("run", str(path), "--shard", share, "--start-at", start, "--quiet")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, cwd=folder, env=environment(folder / "store"), **pipes)  # type: ignore[call-overload, no-any-return]


def sent(records: list[Record]) -> list[tuple[int, str | None, float]]:
    return sorted((one.session, one.prompt_sha, round(one.t_sched, 6)) for one in records)


class Sharded:
    """A run by three shards, and the same scenario by one worker."""

    def __init__(self, folder: Path) -> None:
        with FakeServer(ttft_ms=5, gap_ms=2, log_body=False) as server:
            path = write_scenario(folder, SCENARIO.format(url=server.url))
            (folder / "whole").mkdir()
            self.whole = loadgen(folder / "whole", "run", str(path), "--workers", "1", "--quiet")
            for ahead_s in (8, 20, 60):  # as long as three programs take to start here
                self.folder = folder = folder / f"in-{ahead_s}-s"
                folder.mkdir()
                start = at(ahead_s)
                shards = [shard(folder, path, f"{index}/3", start) for index in range(3)]
                said = [process.communicate(timeout=300) for process in shards]
                if self.began_in_time():
                    break
        assert all(process.returncode in (0, 5) for process in shards), said
        self.runs = sorted(path.parent for path in (folder / "store").glob("runs/*/*/run.json"))

    def began_in_time(self) -> bool:
        files = [json.loads(path.read_text()) for path in self.folder.glob("store/runs/*/*/cells/*/*/*/*/summary.json")]
        return len(files) == 3 and not any(clock["late_us"] for one in files for clock in one["clocks"])

    def run_of(self, index: int) -> Path:
        return next(run for run in self.runs if json.loads((run / "run.json").read_text())["shard"]["index"] == index)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Sharded:
    return Sharded(tmp_path_factory.mktemp("shards"))


def records_of(run: Path) -> list[Record]:
    done = Done(0, "", "", run.parents[2])
    return [one for path in run.glob("cells/*/*/*/*") for one in done.records(path)]


def test_each_shard_sends_the_sessions_of_its_number_at_the_time_of_all(sharded: Sharded) -> None:
    for index in range(3):
        records = records_of(sharded.run_of(index))
        assert {record.session % 3 for record in records} == {index}
        assert {record.worker for record in records} == {index}
        described = json.loads((sharded.run_of(index) / "run.json").read_text())
        assert described["shard"]["of"] == described["fleet"]["workers"] == 3


def test_a_shard_is_judged_by_its_own_share_of_the_schedule(sharded: Sharded) -> None:
    (path,) = sharded.run_of(0).glob("cells/*/*/*/*/summary.json")
    audit = json.loads(path.read_text())["summary"]["audit"]
    assert audit["offered_rps"] == audit["achieved_rps"] > 0


def test_all_shards_become_the_run_of_one_worker(sharded: Sharded) -> None:
    done = loadgen(sharded.folder, "merge", sharded.run_of(1).name)  # the others are found by their start
    assert done.good, done.out + done.err
    described = done.description()
    assert (described["status"], described["shard"]) == ("complete", None)
    assert [one["run"] for one in described["fleet"]["shards"]] == [sharded.run_of(i).name for i in range(3)]
    (attempt,) = done.attempts()
    assert sent(done.records(attempt)) == sent(sharded.whole.records(sharded.whole.attempts()[0]))
    (result,) = done.results()
    assert (result.lost, [audit.worker for audit in result.workers]) == ((), [0, 1, 2])
    assert result.summary.requests == sum(one.phase == "measure" for one in done.records(attempt))
    assert (attempt / "ticks.jsonl").read_text().count("\n") > 3
    intervals = read_intervals(attempt)
    assert sum(sum(one.ended.values()) for one in intervals) == len(done.records(attempt))
    assert "Over time: all, a, repeat 1" in done.out
    assert "a test needs 40" in done.out, "drift is looked for in all shards together"


def test_a_missing_shard_makes_the_run_degraded(sharded: Sharded) -> None:
    done = loadgen(sharded.folder, "merge", sharded.run_of(0).name, sharded.run_of(1).name)
    assert done.code == 5, done.err
    assert done.description()["status"] == "degraded"
    (result,) = done.results()
    assert result.lost == ("shard 2 of 3 is missing",)
    assert {one.worker for one in done.records(done.attempts()[0])} == {0, 1}
    assert "shard 2 of 3 is missing" in done.out


def test_what_is_no_shard_or_of_another_run_is_not_merged(sharded: Sharded, tmp_path: Path) -> None:
    later = shutil.copytree(sharded.run_of(2), tmp_path / "later")
    described = json.loads((later / "run.json").read_text())
    described["shard"]["start_at"] += 3600
    (later / "run.json").write_text(json.dumps(described))
    with pytest.raises(UsageError, match="differ in their number or their start"):
        merge([Run(sharded.run_of(0)), Run(later)], tmp_path)
    with pytest.raises(UsageError, match="shard 2 is there twice"):
        merge([Run(sharded.run_of(2)), Run(shutil.copytree(sharded.run_of(2), tmp_path / "twice"))], tmp_path)
    with pytest.raises(UsageError, match="is no shard"):
        merge([Run(sharded.whole.run)], tmp_path)


@pytest.mark.parametrize("share", ["2", "2/2", "-1/2", "a/b", "0/0", "1/"])
def test_a_share_that_is_none_is_refused(share: str) -> None:
    with pytest.raises(UsageError, match="write INDEX/N"):
        parse(share, "2026-11-21T12:00:00Z")


def test_a_share_needs_a_start_and_reads_it_as_utc() -> None:
    with pytest.raises(UsageError, match="needs --start-at TIME"):
        parse("0/2", None)
    with pytest.raises(UsageError, match="write a time such as"):
        parse("0/2", "noon")
    assert parse("1/4", "1970-01-01T01:00:00") == Shard(index=1, of=4, start_at=3600.0)
    assert parse("1/4", "1970-01-01T01:00:00+01:00").start_at == 0.0


ENDPOINT = (
    "schema: loadgen/v1\ntargets: {a: {endpoint: 'http://h:1', model: m}, b: {endpoint: 'http://h:2', model: m}}\n"
)
CANNOT = {
    "launched": ("targets: {a: {engine: hf, model: m}}\nload: {concurrency: 2, window_s: 1}", "would launch 'a'"),
    "count": ("load: {concurrency: 2, requests: 9}", "needs a length that all shards know"),
    "auto": ("load: {concurrency: 2, window_s: 9, warmup_s: auto}", "needs a length that all shards know"),
    "until": ("load: {concurrency: 2, window_s: 9}\ncomparison: {until: 1%}", "of which a shard knows only its own"),
    "search": (
        "load: {window_s: 9}\nsearch: max_rate\nobjectives: [p99 ttft < 0.5 s]",
        "a search chooses its next load",
    ),
    "ray": ("load: {concurrency: 2, window_s: 9, fleet: ray}", "take one or the other"),
}


@pytest.mark.parametrize(("words", "said"), CANNOT.values(), ids=CANNOT)
def test_what_shards_cannot_do_together_is_refused_before_anything_is_sent(
    tmp_path: Path, words: str, said: str
) -> None:
    head = ENDPOINT if "targets" not in words else "schema: loadgen/v1\n"
    text = head + "workload: {prompts: natural, output: {exact: 8}}\n" + words
    with pytest.raises(UsageError, match=said):
        check(Shard(index=0, of=2, start_at=time.time() + 60), [scenario(tmp_path, text)])


def test_a_start_that_has_passed_is_refused(tmp_path: Path) -> None:
    text = ENDPOINT + "workload: {prompts: natural, output: {exact: 8}}\nload: {concurrency: 2, window_s: 9}"
    good = scenario(tmp_path, text)
    check(Shard(index=0, of=2, start_at=time.time() + 60), [good])
    with pytest.raises(UsageError, match="has passed"):
        check(Shard(index=0, of=2, start_at=time.time() - 1), [good])
    assert slot_s(shape_of(good.load)) == 5 + 9 + 30 + 15  # warm-up, window, drain, and time to write it down


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--shard", "0/2", "--start-at", "2126-01-01", "--workers", "3"), "--workers 3: does not go with --shard"),
        (("--shard", "0/2", "--start-at", "2126-01-01", "--resume", "last"), "--resume last: does not go with"),
        (("--start-at", "2126-01-01"), "belongs to --shard I/N"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(tmp_path: Path, flags: tuple[str, ...], said: str) -> None:
    path = write_scenario(tmp_path, SCENARIO.format(url="http://127.0.0.1:9"))
    done = loadgen(tmp_path, "run", str(path), *flags)
    assert done.code == 2
    assert said in done.err
