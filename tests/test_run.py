"""The main job through the command line, against scripted servers: what it prints, writes, exits with."""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli_runner import command, environment, hear_signals, loadgen, punctual, write_scenario
from fakes import FakeServer

from loadgen.record import STATUSES, Record

SHORT = "load: {{concurrency: {n}, warmup_s: 0.2, window_s: 0.8}}\n"


def one_target(url: str, load: str = SHORT.format(n=4), more: str = "") -> str:
    return (
        f"targets: {{a: {{endpoint: '{url}', model: m}}}}\n"
        f"workload: {{prompts: natural, output: {{exact: 12}}}}\n{load}repeats: 1\n{more}"
    )


def two_targets(fast: str, slow: str, repeats: int = 3) -> str:
    return (
        f"targets:\n  slow: {{endpoint: '{slow}', model: m}}\n  fast: {{endpoint: '{fast}', model: m}}\n"
        "workload: {prompts: natural, output: {exact: 12}}\n"
        "load: {warmup_s: 0.1, window_s: 0.6}\n"
        f"matrix: {{load.concurrency: [1, 4]}}\nrepeats: {repeats}\n"
        "comparison: {baseline: slow, scope: instance}\n"
        "objectives: ['p50 ttft < 0.5 s', 'error_rate < 1 %']\n"
    )


def least_late(records: list[Record]) -> float:
    """How late the most punctual send was, in seconds. A busy machine makes many late and never all; a client that is
    late by itself is so with each."""
    return min((record.t_send or 0) - record.t_sched for record in records)


@pytest.mark.parametrize("concurrency", [1, 16])
def test_reported_times_are_those_of_the_servers_own_log(tmp_path: Path, concurrency: int) -> None:
    with FakeServer(ttft_ms=50, gap_ms=10) as server:
        # slots start apart, so that requests do not wait for each other inside the (single-threaded) server
        load = f"load: {{concurrency: {concurrency}, ramp_s: 0.25, warmup_s: 0.3, window_s: 1.5}}\n"
        text = one_target(server.url, load).replace("exact: 12", "exact: 21")
        done = loadgen(tmp_path, "run", str(write_scenario(tmp_path, text)))
        assert done.good, done.err + done.out
        ((summary, start_ns),) = [(result.summary, result.start_ns) for result in done.results()]
        truth = {entry["id"]: entry for entry in server.truth()}
    records = done.records(done.attempts()[0])
    assert least_late(records) < 2e-3
    ttft, tpot = [], []
    for record in (record for record in records if record.phase == "measure"):
        written = truth[record.request_id()]
        tokens = [write for write in written["writes"] if write[3] == "token"]
        assert len(tokens) == 21
        sent = start_ns + (record.t_send or 0) * 1e9
        assert sent <= written["t_request_read"]  # whatever time the server, or this machine, took to read it
        ttft.append(tokens[0][0] - sent)
        tpot.append((tokens[-1][0] - tokens[0][0]) / 20)
    assert summary.ttft_s.p50 == pytest.approx(statistics.median(ttft) / 1e9, abs=1e-3)
    assert summary.tpot_s.p50 == pytest.approx(statistics.median(tpot) / 1e9, abs=0.2e-3)


def test_two_targets_are_compared_with_an_interval(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=60, gap_ms=8) as fast, FakeServer(ttft_ms=120, gap_ms=16) as slow:
        path = str(write_scenario(tmp_path, two_targets(fast.url, slow.url)))
        for _ in range(3):  # three repeats say nothing certain where one server was held up in one of them
            done = punctual(tmp_path, "run", path)
            assert done.code == 0, done.err + done.out
            cells = json.loads((done.run / "report.json").read_text())["comparisons"][0]["cells"]
            if all(cell["primary"]["verdict"] == "faster" for cell in cells):
                break
    assert "fast" in done.out
    assert done.out.count("met in all 4 places") == 2
    assert [cell["axes"]["concurrency"] for cell in cells] == [1, 4]
    speeds: dict[tuple[str, str], list[float]] = {}
    for result in done.results():
        speeds.setdefault((result.cell, result.target), []).append(result.summary.output_tok_s or 0.0)
    for cell in cells:
        ratio, name = cell["primary"]["ratio"], f"concurrency={cell['axes']['concurrency']}"
        fast_, slow_ = (statistics.geometric_mean(speeds[name, target]) for target in ("fast", "slow"))
        assert ratio["value"] == pytest.approx(fast_ / slow_)  # 2 where nothing holds the servers up
        assert ratio["low"] <= ratio["value"] <= ratio["high"]
        assert cell["primary"]["verdict"] == "faster"
    assert (done.run / "report.md").read_text().count("times the output tok/s of slow") == 2


def test_the_run_folder_is_the_contracts(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=5, gap_ms=1) as server:
        path = write_scenario(tmp_path, one_target(server.url))
        done = loadgen(tmp_path, "run", str(path))
    assert {entry.name for entry in done.run.iterdir()} == {
        "run.json", "plan.json", "scenario.yaml", "cells", "report.json", "report.md", "report.html",
    }  # fmt: skip
    assert (done.run / "scenario.yaml").read_bytes() == path.read_bytes()
    (attempt,) = done.attempts()
    host = socket.gethostname()
    assert {entry.name for entry in attempt.iterdir()} == {
        f"requests-{host}-w0.jsonl", "ticks.jsonl", "latency.hlog", "summary.json",
    }  # fmt: skip
    fields = set(
        msgspec.json.decode(msgspec.json.encode(Record(seq=0, session=0, phase="measure", t_sched=0, status="ok")))
    )
    lines = (attempt / f"requests-{host}-w0.jsonl").read_text().splitlines()
    assert lines
    for line in lines:
        found = json.loads(line)
        assert set(found) == fields
        assert found["status"] in STATUSES
        assert found["v"] == 1
        assert found["out_tok"] == 12
    described = done.description()
    assert described["status"] == "complete"
    assert described["versions"]["loadgen"]
    (result,) = done.results()
    assert (result.summary.window.w0, result.summary.window.w1) == (0.2, pytest.approx(1.0))
    (used,) = result.summary.audit.worker_cpu
    assert 0 < used < 1.1


def test_json_is_the_report_and_nothing_else(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=5, gap_ms=1) as server:
        path = write_scenario(tmp_path, one_target(server.url))
        done = loadgen(tmp_path, "run", str(path), "--json", "--quiet")
    assert json.loads(done.out)["exit_code"] in (0, 5)
    assert done.err == ""


def test_an_open_loop_goes_through_the_same_path(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=5, gap_ms=1) as server:
        load = "load: {rate_rps: 50, arrival: constant, warmup_s: 0, window_s: 1}\n"
        done = loadgen(tmp_path, "run", str(write_scenario(tmp_path, one_target(server.url, load))))
    assert done.good, done.err + done.out
    records = done.records(done.attempts()[0])
    assert len(records) == 50
    assert sorted(record.t_sched for record in records) == pytest.approx([i / 50 for i in range(50)])
    assert least_late(records) < 2e-3


def test_what_the_server_counts_is_of_the_window_and_not_of_the_warm_up(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=20, gap_ms=5) as server:
        load = "load: {concurrency: 2, warmup_s: 3, window_s: 2}\n"
        text = one_target(server.url, load).replace("model: m", "model: m, engine: vllm")  # which has a page of metrics
        done = loadgen(tmp_path, "run", str(write_scenario(tmp_path, text)))
    (result,), records = done.results(), done.records(done.attempts()[0])
    everything = sum(record.out_tok or 0 for record in records)
    assert result.seen.generation_tokens is not None
    assert 0.1 * everything < result.seen.generation_tokens < 0.75 * everything  # 0.4, but for what a look is late


def test_a_file_of_prompts_is_looked_for_beside_the_scenario(tmp_path: Path) -> None:
    beside = tmp_path / "elsewhere"
    beside.mkdir()
    (beside / "asked.jsonl").write_text('{"prompt": "Why is the sea salty?"}\n')
    with FakeServer(ttft_ms=5, gap_ms=1) as server:
        text = one_target(server.url, "load: {concurrency: 1, warmup_s: 0, requests: 2}\n")
        path = write_scenario(beside, text.replace("prompts: natural", "prompts: jsonl, path: asked.jsonl"))
        done = loadgen(tmp_path, "run", str(path))
    (result,) = done.results()
    assert (result.summary.ok, result.summary.prompts) == (2, 1)


def test_a_burst_sends_all_at_once_and_measures_all(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=20, gap_ms=1) as server:
        load = "load: {burst: 30}\n"
        done = loadgen(tmp_path, "run", str(write_scenario(tmp_path, one_target(server.url, load))))
    (result,) = done.results()
    assert result.summary.ok == 30
    assert all(record.t_sched == 0 for record in done.records(done.attempts()[0]))


def test_two_workers_together_are_the_schedule_of_one(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=5, gap_ms=1) as server:
        load = "load: {rate_rps: 40, warmup_s: 0, window_s: 1, workers: WORKERS}\n"
        seen = []
        for workers in ("1", "2"):
            text = one_target(server.url, load.replace("WORKERS", workers))
            done = loadgen(tmp_path, "run", str(write_scenario(tmp_path, text)))
            assert len(list(done.attempts()[0].glob("requests-*.jsonl"))) == int(workers)
            assert [len(result.summary.audit.worker_cpu) for result in done.results()] == [int(workers)]
            records = done.records(done.attempts()[0])
            seen.append(sorted((record.seq, record.t_sched, record.prompt_sha) for record in records))
    assert seen[0] == seen[1]


def test_a_missed_objective_is_exit_3_with_a_cross(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=250, gap_ms=1) as server:
        text = one_target(server.url, more="objectives: ['p50 ttft < 5 ms']\n")
        done = punctual(tmp_path, "run", str(write_scenario(tmp_path, text)))
    assert done.code == 3
    assert "✗" in done.out


def test_endpoint_and_model_on_the_command_line_replace_the_targets(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=5, gap_ms=1) as server:
        text = (
            "targets: {a: {engine: vllm, model: nothing/here}, b: {engine: vllm, model: nothing/here}}\n"
            "workload: {prompts: natural, output: {max: 5}}\n"
            + SHORT.format(n=2)
            + "repeats: 1\ncomparison: {baseline: a}\n"
        )
        path = write_scenario(tmp_path, text)
        done = loadgen(tmp_path, "run", str(path), "--endpoint", server.url + "/v1", "--model", "m")
    assert done.good, done.err + done.out
    assert {record.target for record in done.records(done.attempts()[0])} == {"endpoint"}


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ({"status": 401}, "HTTP 401.*api_key_env"),
        ({"status": 404}, "HTTP 404.*/v1/models"),
        ({"status": 429, "retry_after": 1}, "HTTP 429.*max_rps"),
        ({"status": 500}, "HTTP 500.*log"),
        ({"status": 200, "type": "text/html", "body": "<html>hello</html>"}, "with HTML instead of openai_chat"),
        ({"status": 302, "location": "http://127.0.0.1:9/"}, "HTTP 302"),
    ],
)
def test_an_endpoint_that_does_not_answer_right_is_a_sentence(
    tmp_path: Path, script: dict[str, Any], words: str
) -> None:
    with FakeServer(faults=[{"kind": "http", "every": 1, **script}]) as server:
        done = loadgen(tmp_path, "run", str(write_scenario(tmp_path, one_target(server.url))))
    assert done.code == 6
    last = done.err.strip().splitlines()[-1]
    assert last.startswith("loadgen: target a: http://127.0.0.1:")
    assert __import__("re").search(words, last), last


def test_an_endpoint_that_refuses_is_a_sentence(tmp_path: Path) -> None:
    done = loadgen(tmp_path, "run", str(write_scenario(tmp_path, one_target("http://127.0.0.1:9"))))
    assert done.code == 6
    assert "cannot be reached" in done.err
    assert done.description()["status"] == "failed"


def test_a_key_goes_out_by_reference_and_is_written_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "canary-4711")
    with FakeServer(ttft_ms=5, gap_ms=1) as server:
        text = one_target(server.url).replace("model: m", "model: m, api_key_env: MY_KEY")
        done = loadgen(tmp_path, "run", str(write_scenario(tmp_path, text)))
        assert done.good, done.err
    assert "canary" not in done.out + done.err
    for path in done.run.rglob("*"):
        assert not path.is_file() or b"canary" not in path.read_bytes(), path


def test_a_missing_key_is_named_before_anything_starts(tmp_path: Path) -> None:
    text = one_target("http://127.0.0.1:9").replace("model: m", "model: m, api_key_env: NO_SUCH_KEY")
    done = loadgen(tmp_path, "run", str(write_scenario(tmp_path, text)))
    assert done.code == 2
    assert "NO_SUCH_KEY" in done.err
    assert not done.store.exists()


def test_failing_requests_are_counted_and_shown_and_stay_out_of_the_rates(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=5, gap_ms=1, faults=[{"kind": "error_event", "fraction": 0.3, "seed": 1, "after": 2}]) as s:
        text = one_target(s.url, more="objectives: ['error_rate < 1 %']\n")
        done = loadgen(tmp_path, "run", str(write_scenario(tmp_path, text)))
    assert done.code == 3 or done.good, done.err + done.out
    if done.code == 3:
        assert "✗ error_rate < 1 %" in done.out
    else:
        assert done.code == 5  # late, and an invalid repeat is not judged; a run with failures is never good
    (result,) = done.results()
    assert result.summary.status["error_event"] > 0
    assert result.summary.ok + result.summary.failed == result.summary.requests
    assert result.summary.failed == result.summary.status["error_event"]


def started(folder: Path, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("run", str(path)), cwd=folder, env=environment(folder / "store"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_signals,
    )  # fmt: skip


def wait_for_lines(folder: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        files = list(folder.glob("store/runs/*/*/cells/*/*/rep-*/attempt-*/requests-*.jsonl"))
        if sum(path.read_bytes().count(b"\n") for path in files) >= count:
            return
        time.sleep(0.05)
    raise TimeoutError


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_the_first_signal_drains_and_still_reports(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with FakeServer(ttft_ms=20, gap_ms=10) as server:
        path = write_scenario(tmp_path, one_target(server.url, "load: {concurrency: 3, warmup_s: 0, window_s: 60}\n"))
        process = started(tmp_path, path)
        wait_for_lines(tmp_path, 10)
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
        (attempt,) = sorted(tmp_path.glob("store/runs/*/*/cells/*/*/rep-*/attempt-*"))
        files = [path.read_text() for path in attempt.glob("requests-*.jsonl")]
        lines = [json.loads(line) for text in files for line in text.splitlines()]
        truth = server.truth(len(lines) + 1)
    assert process.returncode == code, err
    assert "output tok/s" in out
    assert (attempt / "interrupted.json").exists()
    assert not (attempt / "summary.json").exists()
    assert {line["status"] for line in lines} == {"ok"}
    assert len(lines) == len(truth) - 1  # the probe
    run = json.loads((attempt.parents[4] / "run.json").read_text())
    assert run["status"] == "aborted"


def test_a_second_signal_stops_at_once_and_keeps_what_ended(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=20, gap_ms=1, faults=[{"kind": "stall", "nth": 9, "after": 3}]) as server:
        path = write_scenario(tmp_path, one_target(server.url, "load: {concurrency: 2, warmup_s: 0, window_s: 60}\n"))
        process = started(tmp_path, path)
        wait_for_lines(tmp_path, 20)
        process.send_signal(signal.SIGINT)
        time.sleep(1.0)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    assert process.returncode == 130
    (file,) = sorted(tmp_path.glob("store/runs/*/*/cells/*/*/rep-*/attempt-*/requests-*.jsonl"))
    statuses = [json.loads(line)["status"] for line in file.read_text().splitlines()]
    assert statuses.count("cancelled") == 1
    assert statuses.count("ok") == len(statuses) - 1


def test_a_killed_run_is_resumed_and_whole_pairs_are_not_done_again(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=5, gap_ms=1) as fast, FakeServer(ttft_ms=5, gap_ms=2) as slow:
        path = write_scenario(tmp_path, two_targets(fast.url, slow.url))
        process = started(tmp_path, path)
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("store/runs/*/*/cells/*/*/rep-*/attempt-1/summary.json"))) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        before = {
            p: p.stat().st_mtime_ns for p in tmp_path.glob("store/runs/*/*/cells/*/*/rep-*/attempt-1/summary.json")
        }
        done = loadgen(tmp_path, "run", str(path), "--resume", "last")
    assert done.good, done.err + done.out
    summaries = list(done.run.glob("cells/*/*/rep-*/attempt-*/summary.json"))
    per_repeat = {summary.parents[1]: [] for summary in summaries}
    for summary in summaries:
        per_repeat[summary.parents[1]].append(summary.parent.name)
    assert len(per_repeat) == 12
    first = [path for path in before if "rep-001" in str(path) and "concurrency=1/" in str(path)]
    assert len(first) == 2
    for path_ in first:
        assert path_.stat().st_mtime_ns == before[path_]
        assert per_repeat[path_.parents[1]] == ["attempt-1"]
    assert any("attempt-2" in attempts for attempts in per_repeat.values())
    assert done.description()["status"] == "complete"


def test_a_report_is_rebuilt_from_what_was_written(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=5, gap_ms=1) as server:
        done = loadgen(tmp_path, "run", str(write_scenario(tmp_path, one_target(server.url))))
    assert loadgen(tmp_path, "report", "last").out == done.out
    assert loadgen(tmp_path, "report", "last", "--format", "markdown").out == (done.run / "report.md").read_text()
    rebuilt = json.loads(loadgen(tmp_path, "report", "last", "--format", "json").out)
    assert rebuilt == json.loads((done.run / "report.json").read_text())


def test_a_server_that_dies_in_the_middle_costs_its_repeat_and_the_rest_runs(tmp_path: Path) -> None:
    engine = Path(__file__).with_name("fake_server.py")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        f"command: ['{{python}}', '{engine}', --port, '{{port}}', --truth, truth.jsonl]\n"
        "options: {script: [--script, '{value}']}\nready: {path: /health, probe: false}\nbackend: openai_chat\n"
    )
    good = '{"ttft_ms": 5, "gap_ms": 1}'
    text = (
        "targets:\n"
        f"  a: {{engine: ./mine.yaml, model: m, options: {{script: '{good}'}}}}\n"
        f"  b: {{engine: ./mine.yaml, model: m, options: {{script: '{good}'}}}}\n"
        "workload: {prompts: natural, output: {exact: 12}}\n"
        "load: {concurrency: 2, warmup_s: 0, window_s: 2}\nrepeats: 2\ncomparison: {baseline: a, scope: restart}\n"
    )
    process = started(tmp_path, write_scenario(tmp_path, text))
    wait_for_lines(tmp_path, 20)
    (kept,) = tmp_path.glob("store/runs/*/*/servers/a-1/server.json")
    os.kill(json.loads(kept.read_text())["pid"], signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 6, err + out
    assert "died in the middle of the run" in err
    assert "server.log" in err
    (run,) = tmp_path.glob("store/runs/*/*")
    assert sorted(
        str(p.relative_to(run / "cells" / "all")) for p in run.glob("cells/*/*/rep-*/attempt-*/summary.json")
    ) == [
        "a/rep-002/attempt-1/summary.json",
        "b/rep-001/attempt-1/summary.json",
        "b/rep-002/attempt-1/summary.json",
    ]
    assert json.loads((run / "run.json").read_text())["status"] == "degraded"
