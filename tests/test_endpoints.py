"""Several endpoints as one target, as a user has them: who got what, what the report says, what one that dies costs."""

from __future__ import annotations

import csv
import io
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from cli_runner import Done, loadgen, write_scenario
from fakes import FakeServer
from scenario_text import SMALLEST, complaints, scenario

from loadgen.assemble import assemble
from loadgen.errors import UsageError
from loadgen.fair.fingerprint import read_fingerprints
from loadgen.nightly.preflight import endpoint_findings
from loadgen.reports import formats
from loadgen.scenario import expand
from loadgen.store import Run
from loadgen.telemetry.prometheus import Seen, counters, merged
from loadgen.telemetry.required import check_required
from loadgen.telemetry.sampler import Sampler

CLOSED = "concurrency: 4, warmup_s: 0, requests: 40"


def run(folder: Path, urls: list[str], load: str = CLOSED, workload: str = "prompts: natural", more: str = "") -> Done:
    text = (
        f"targets: {{a: {{endpoints: [{', '.join(repr(url) for url in urls)}], model: m{more}}}}}\n"
        f"workload: {{{workload}, output: {{exact: 6}}}}\nload: {{{load}, timeout_s: 20}}\nrepeats: 1\n"
    )
    return loadgen(folder, "run", str(write_scenario(folder, text)))


def counted(done: Done) -> Counter[str]:
    return Counter(record.endpoint for record in done.records(done.attempts()[0]))


def test_in_turn_both_get_half_of_two_workers_and_every_report_shows_each(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=20, gap_ms=1) as one, FakeServer(ttft_ms=60, gap_ms=1) as two:
        done = run(tmp_path, [one.url, two.url + "/v1"], CLOSED + ", workers: 2")
        assert done.good, done.err + done.out
        assert (len(one.truth(21)), len(two.truth(21))) == (21, 21)  # the probe before the run is one of them
    assert counted(done) == {one.url: 20, two.url: 20}
    (result,) = done.results()
    parts = result.parts["endpoint"]
    assert [(name, part.requests, part.failed) for name, part in parts.items()] == sorted(
        [(one.url, 20, 0), (two.url, 20, 0)]
    )
    fast, slow = parts[one.url].ttft_s.p50 or 0, parts[two.url].ttft_s.p50 or 0
    assert 0.02 <= fast < slow
    assert slow >= 0.06
    whole = result.summary.output_tok_s or 0
    assert sum(part.output_tok_s or 0 for part in parts.values()) == pytest.approx(whole)
    report = assemble(Run(done.run))
    for form in ("text", "markdown", "html", "csv", "json"):
        shown = formats.render(form, [report])
        assert one.url in shown, form
        assert two.url in shown, form
    rows = list(csv.DictReader(io.StringIO(formats.render("csv", [report]))))
    assert [row["part"] for row in rows] == ["", *(f"endpoint {name}" for name in parts)]
    assert [row["requests"] for row in rows] == ["40", "20", "20"]


def test_least_in_flight_leaves_a_slow_endpoint_alone(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=10, gap_ms=1) as fast, FakeServer(ttft_ms=400, gap_ms=1) as slow:
        done = run(tmp_path, [slow.url, fast.url], more=", balance: least_in_flight")
    found = counted(done)
    assert found[fast.url] + found[slow.url] == 40
    assert found[slow.url] <= 8


@pytest.mark.parametrize(("balance", "homes"), [("sticky", 1), ("round_robin", 2)])
def test_sticky_keeps_a_conversation_on_one_endpoint(tmp_path: Path, balance: str, homes: int) -> None:
    talk = "prompts: conversation, turns: 4, first: {words: 5}"
    with FakeServer(ttft_ms=5, gap_ms=1) as one, FakeServer(ttft_ms=5, gap_ms=1) as two:
        # in turn, one slot alternates; several may fall into step, and then each conversation stays by chance
        load = CLOSED if homes == 1 else CLOSED.replace("concurrency: 4", "concurrency: 1")
        done = run(tmp_path, [one.url, two.url], load, workload=talk, more=f", balance: {balance}")
    places: dict[int, list[str]] = {}
    for record in sorted(done.records(done.attempts()[0]), key=lambda record: record.turn):
        places.setdefault(record.session, []).append(record.endpoint)
    whole = [urls for urls in places.values() if len(urls) == 4]
    assert len(whole) >= 6
    if homes == 1:
        assert all(len(set(urls)) == 1 for urls in whole)
        assert len({urls[0] for urls in whole}) == 2
    else:
        assert all(len(set(urls)) == 2 for urls in whole)


def test_an_endpoint_that_dies_costs_its_share_and_the_run_is_degraded(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=30, gap_ms=1) as one, FakeServer(ttft_ms=30, gap_ms=1) as two:
        killer = threading.Thread(target=_kill_when_busy, args=(two,))
        killer.start()
        done = run(tmp_path, [one.url, two.url], "rate_rps: 40, arrival: constant, warmup_s: 0, window_s: 2")
        killer.join()
    assert done.code == 5, done.err + done.out
    assert done.description()["status"] == "degraded"
    (result,) = done.results()
    parts = result.parts["endpoint"]
    assert parts[one.url].failed == 0
    assert parts[one.url].requests == parts[two.url].requests == 40
    assert 0 < parts[two.url].failed < 40
    assert any(text.startswith(f"Gone at the end: {two.url};") for text in result.lost)
    assert "endpoint_lost" in [doubt.code for doubt in result.summary.doubts]
    assert "sends" not in [doubt.code for doubt in result.summary.invalid]


def _kill_when_busy(server: FakeServer) -> None:
    server.truth(8)
    server.kill()


def test_the_clients_of_others_are_balanced_alike(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=5, gap_ms=1) as one, FakeServer(ttft_ms=5, gap_ms=1) as two:
        done = run(tmp_path, [one.url, two.url], CLOSED + ", driver: httpx")
        assert (len(one.truth(21)), len(two.truth(21))) == (21, 21)
    assert counted(done) == {one.url: 20, two.url: 20}


NAMES = {"generation_tokens": "vllm:generation_tokens", "running": "vllm:num_requests_running"}


def test_counters_are_those_of_all_endpoints_together_and_what_a_dead_one_had_counted_stays() -> None:
    with FakeServer(ttft_ms=1, gap_ms=1) as one, FakeServer(ttft_ms=1, gap_ms=1) as two:
        _ask(one, 100)
        began = time.monotonic_ns()
        with Sampler([f"{one.url}/metrics", f"{two.url}/metrics"], NAMES) as sampler:
            _until(lambda: "running" in sampler.now)
            _ask(one, 5)
            _ask(two, 7)
            _until(lambda: sampler.seen(began, time.monotonic_ns()).generation_tokens == 5 + 7)
            two.kill()
            _ask(one, 11)
        found = sampler.seen(began, time.monotonic_ns())
    assert found.generation_tokens == 5 + 7 + 11


def test_where_one_page_cannot_be_had_from_the_start_nothing_is_said() -> None:
    with FakeServer() as one:
        began = time.monotonic_ns()
        with Sampler([f"{one.url}/metrics", "http://127.0.0.1:9/metrics"], NAMES) as sampler:
            pass
    assert sampler.seen(began, time.monotonic_ns()) == Seen()


def test_pages_of_several_servers_are_summed_and_shares_are_averaged() -> None:
    names = {"running": "r", "kv_use": "k", "generation_tokens": "g"}
    pages = [{"r": 2.0, "k": 0.5, "g_total": 10.0}, {"r": 1.0, "k": 0.25, "g_total": 5.0}, {"g_total": 1.0}]
    assert merged(names, pages) == {"r": 3.0, "k": 0.375, "g_total": 16.0}
    assert counters(names, pages[0]) == {"g_total": 10.0}


def _ask(server: FakeServer, tokens: int) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": tokens}
    httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60, trust_env=False)


def _until(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + 120
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_every_endpoint_must_listen_and_must_have_the_page_that_is_required(tmp_path: Path) -> None:
    with FakeServer() as one:
        words = f"endpoints: ['{one.url}', 'http://127.0.0.1:9'], engine: vllm, model: m"
        text = SMALLEST.replace("engine: hf, model: a", words) + "telemetry: {require: [engine]}\n"
        cells = expand(scenario(tmp_path, text))
        (found,) = endpoint_findings(cells)
        assert found.text == "target dense: http://127.0.0.1:9 cannot be reached: Connection refused"
        with pytest.raises(
            UsageError, match=r"engine of target dense will not be known: http://127\.0\.0\.1:9/metrics"
        ):
            check_required(cells, tmp_path)


def test_each_endpoint_that_is_compared_is_probed(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=2, gap_ms=1) as one, FakeServer(ttft_ms=2, gap_ms=1) as two:
        text = (
            f"targets:\n  a: {{endpoints: ['{one.url}', '{two.url}'], model: m}}\n"
            f"  b: {{endpoint: '{one.url}', model: m}}\ncomparison: {{factor: [endpoint]}}\n"
            "workload: {prompts: natural, output: {exact: 4}}\n"
            "load: {concurrency: 2, warmup_s: 0, requests: 10}\nrepeats: 1\n"
        )
        done = loadgen(tmp_path, "run", str(write_scenario(tmp_path, text)))
    found = [one.target for one in read_fingerprints(Run(done.run))]
    assert sorted(found) == ["a", "a", "b"]
    assert "2 endpoints, round_robin" not in done.out  # declared, so no difference


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("endpoint: 'http://h:1', endpoints: ['http://h:2']", "stands beside endpoint; name all servers here"),
        ("endpoints: ['http://h:1', 'http://h:1/v1/']", "names http://h:1 twice"),
        ("endpoint: 'http://h:1', balance: sticky", "means nothing without several endpoints"),
        ("endpoints: []", "endpoints"),
        ("endpoints: ['http://me:secret@h:1']", "holds credentials"),
        ("endpoints: ['http://h:1', 'http://h:2'], balance: random", "balance"),
        ("endpoints: ['http://h:1', 'http://h:2'], args: [--x]", "means nothing beside endpoint"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_sentence(tmp_path: Path, words: str, sentence: str) -> None:
    (line, *_) = complaints(tmp_path, SMALLEST.replace("engine: hf, model: a", f"model: m, {words}"))
    assert sentence in line
    assert "secret" not in line


def test_an_endpoint_on_the_command_line_takes_the_place_of_all(tmp_path: Path) -> None:
    words = "endpoints: ['http://h:1', 'http://h:2'], balance: sticky, model: m"
    text = SMALLEST.replace("engine: hf, model: a", words)
    assert scenario(tmp_path, text).targets["dense"].urls == ("http://h:1", "http://h:2")
    target = scenario(tmp_path, text, endpoint="http://h:3").targets["dense"]
    assert (target.urls, target.balance, target.model) == (("http://h:3",), None, "m")
