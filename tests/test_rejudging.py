"""A stored run judged again: by the rules of today, from its request lines, and with what the lines cannot say."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from cli_runner import loadgen, write_scenario
from fakes import FakeServer

from loadgen.errors import UsageError
from loadgen.record import read_records, to_line
from loadgen.rejudging import cpu_shares, rejudge
from loadgen.repeat import Result, fail
from loadgen.store import Run, find_run, request_files, write_json
from loadgen.summary import Doubt, Window


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a run against a fake server."""
    folder = tmp_path_factory.mktemp("measured")
    with FakeServer(ttft_ms=5, gap_ms=2, tokens=4, log_body=False) as server:
        write_scenario(
            folder,
            f"targets: {{a: {{endpoint: '{server.url}', model: m}}}}\n"
            "workload: {prompts: natural, output: {exact: 4}}\n"
            "load: {concurrency: 2, requests: 12, warmup_s: 0.2}\nrepeats: 2\n",
        )
        done = loadgen(folder, "run", "s.yaml", "--quiet")
    assert done.store.exists(), done.err
    run = find_run(done.store, "last")
    for attempt in attempts(run):  # a busy machine may have been late: here it was not
        (path,) = request_files(attempt)
        records = [msgspec.structs.replace(one, t_sched=one.t_send or one.t_sched) for one in read_records([path])]
        path.write_bytes(b"".join(map(to_line, records)))
    rejudge(run)
    return done.store


def attempts(run: Run) -> list[Path]:
    return [found for repeat in run.repeats() if (found := repeat.whole()) is not None]


def read(attempt: Path) -> Result:
    return msgspec.json.decode((attempt / "summary.json").read_bytes(), type=Result)


def test_a_run_that_is_judged_again_by_the_same_rules_is_the_same(measured: Path) -> None:
    run = find_run(measured, "last")
    before = [read(attempt) for attempt in attempts(run)]
    assert len(before) == 2
    _, changed = rejudge(run)
    assert changed == []
    assert [read(attempt) for attempt in attempts(run)] == before


def test_what_a_better_rule_finds_changes_the_state_and_is_said(measured: Path) -> None:
    run = find_run(measured, "last")
    attempt = attempts(run)[0]
    good = read(attempt)
    audits = tuple(msgspec.structs.replace(audit, cpu_share=0.1) for audit in good.workers)
    wrong = (Doubt("cpu", "Worker 0 used 99 % of a core."),)
    summary = msgspec.structs.replace(good.summary, state="invalid", invalid=wrong)
    write_json(attempt / "summary.json", msgspec.structs.replace(good, summary=summary, workers=audits))
    done = loadgen(measured.parent, "rejudge", run.id)
    assert "repeat 1: invalid before, now ok. Worker 0 used 99 % of a core." in done.out
    assert "1 repeats are judged otherwise now" in done.out
    assert read(attempt).summary.state == "ok"


def test_what_the_lines_cannot_say_stays(measured: Path) -> None:
    run = find_run(measured, "last")
    attempt = attempts(run)[1]
    good = read(attempt)
    doubts = (Doubt("gpu_clock", "The SM clock moved."), *good.summary.doubts)
    summary = msgspec.structs.replace(good.summary, doubts=doubts)
    write_json(attempt / "summary.json", msgspec.structs.replace(good, summary=summary))
    fail(attempt, "left_behind", "The server left a process.")
    rejudge(run)
    again = read(attempt).summary
    assert again.state == "failed"
    assert [doubt.code for doubt in again.invalid] == ["left_behind"]
    assert again.doubts == doubts
    write_json(attempt / "summary.json", good)


def test_a_run_without_its_request_lines_is_refused_before_anything_is_changed(measured: Path) -> None:
    run = find_run(measured, "last")
    before = [(attempt / "summary.json").read_bytes() for attempt in attempts(run)]
    (lines,) = request_files(attempts(run)[1])
    kept = lines.read_bytes()
    lines.unlink()
    with pytest.raises(UsageError, match="has no request lines any more"):
        rejudge(run)
    assert [(attempt / "summary.json").read_bytes() for attempt in attempts(run)] == before
    lines.write_bytes(kept)


def test_the_share_of_a_core_is_that_of_whole_seconds_in_the_window(tmp_path: Path) -> None:
    tick = {"sent": 0, "ended": {}, "tokens": 0, "in_flight": 0, "backlog": 0, "ttft_ms": [], "late_us_max": 0}
    seconds = [(1.0, 0.9), (2.0, 0.8), (3.0, 0.1), (4.0, 0.3), (5.0, 0.7)]
    lines = [
        msgspec.json.encode({**tick, "worker": worker, "t": t, "loop_us_max": 0, "cpu": cpu})
        for worker, of in ((0, seconds), (1, seconds[:3]))
        for t, cpu in of
    ]
    (tmp_path / "ticks.jsonl").write_bytes(b"\n".join([*lines, b'{"worker":0,"t":']))
    assert cpu_shares(tmp_path, Window(1.5, 4.5)) == {0: pytest.approx(0.2)}
    assert cpu_shares(tmp_path / "none", Window(1.5, 4.5)) == {}


def test_the_parts_of_a_repeat_are_made_again_with_it(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=5, gap_ms=2, tokens=4, log_body=False) as server:
        other = server.url.replace("127.0.0.1", "localhost")
        write_scenario(
            tmp_path,
            f"targets: {{a: {{endpoints: ['{server.url}', '{other}'], model: m}}}}\n"
            "workload: {prompts: natural, output: {exact: 4}}\n"
            "load: {concurrency: 2, requests: 8, warmup_s: 0}\nrepeats: 1\n",
        )
        done = loadgen(tmp_path, "run", "s.yaml", "--quiet")
    run = find_run(done.store, "last")
    (attempt,) = attempts(run)
    good = read(attempt)
    assert len(good.parts["endpoint"]) == 2
    write_json(attempt / "summary.json", msgspec.structs.replace(good, parts={}))
    rejudge(run)
    assert read(attempt).parts == good.parts
