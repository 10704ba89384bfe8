"""Other people's clients as drivers: the same records, the same numbers up to what the client adds."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from cli_runner import Done, loadgen, write_scenario
from fakes import FakeServer

from loadgen.record import Record

NO_OPENAI = pytest.mark.skipif(
    importlib.util.find_spec("openai") is None, reason="the openai package is not installed (extra openai)"
)
DRIVERS = ["httpx", pytest.param("openai", marks=NO_OPENAI)]


def run(
    folder: Path, url: str, driver: str, load: str = "concurrency: 3, warmup_s: 0, window_s: 0.8", more: str = ""
) -> Done:
    text = (
        f"targets: {{a: {{endpoint: '{url}', model: m}}}}\n"
        f"workload: {{prompts: natural, output: {{exact: 12}}{more}}}\nload: {{{load}, driver: {driver}}}\nrepeats: 1\n"
    )
    return loadgen(folder, "run", str(write_scenario(folder, text)))


def delays(record: Record, written: dict[str, Any], start_ns: int) -> list[float]:
    """How long after the server wrote each token it was stamped, in ms."""
    tokens = [write[0] for write in written["writes"] if write[3] == "token"]
    stamps = [start_ns + (record.t_send or 0) * 1e9 + us * 1e3 for us in record.chunk_us]
    return [(stamp - at) / 1e6 for stamp, at in zip(stamps, tokens, strict=True)]


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_clients_records_are_those_of_our_driver_but_for_the_clock(tmp_path: Path, driver: str) -> None:
    with FakeServer(ttft_ms=20, gap_ms=5, token_ids=True) as server:
        done = run(tmp_path, server.url, driver)
        assert done.good, done.err + done.out
        truth = {entry["id"]: entry for entry in server.truth()}
    records = done.records(done.attempts()[0])
    assert len(records) >= 3
    (start_ns,) = [result.start_ns for result in done.results()]
    found = [delays(record, truth[record.request_id()], start_ns) for record in records]
    assert min(map(min, found)) > 0
    assert min(map(max, found)) < 20  # ms; at its best the client and this machine take less for each of twelve tokens
    for record in records:
        assert (record.status, record.driver, record.clock) == ("ok", driver, "user"), record.err
        assert (record.out_tok, len(record.chunk_us), record.tok_source) == (12, 12, "usage")
        assert record.ttft_s is not None
        assert record.ttft_s >= 0.019
        assert record.out_sha == records[0].out_sha
    assert "user" in str(done.results()[0].summary.audit.clocks)


@pytest.mark.parametrize("driver", DRIVERS)
def test_whole_replies_have_no_ttft(tmp_path: Path, driver: str) -> None:
    with FakeServer(ttft_ms=10, gap_ms=1) as server:
        done = run(tmp_path, server.url, driver, more=", stream: false")
    records = done.records(done.attempts()[0])
    assert {record.status for record in records} == {"ok"}, records[0].err
    assert all(record.ttft_s is None and record.e2e_s is not None and record.out_tok == 12 for record in records)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    ("fault", "statuses"),
    [
        ({"kind": "http", "status": 500}, {"http_error"}),
        ({"kind": "http", "status": 429}, {"rate_limited"}),
        ({"kind": "error_event", "after": 2}, {"error_event"}),
        ({"kind": "reset", "after": 2}, {"reset"}),
        ({"kind": "hangup"}, {"reset", "connect_error"}),
    ],
)
def test_failures_have_names_with_every_client(
    tmp_path: Path, driver: str, fault: dict[str, object], statuses: set[str]
) -> None:
    with FakeServer(ttft_ms=5, gap_ms=1, faults=[{**fault, "nth": 4}]) as server:
        done = run(tmp_path, server.url, driver)
    found = {record.status for record in done.records(done.attempts()[0])} if done.attempts() else set()
    assert found <= statuses | {"ok"}
    assert found & statuses, done.err


def test_the_courtesy_cap_bounds_the_rate(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=1, gap_ms=0.1) as server:
        done = run(tmp_path, server.url, "httpx", "concurrency: 8, warmup_s: 0, window_s: 2, max_rps: 10")
    sent = [record.t_send for record in done.records(done.attempts()[0]) if record.t_send is not None]
    assert 10 <= len(sent) <= 31  # asyncio-throttle lets a whole second's worth out at once


def test_a_backend_that_a_client_does_not_speak_is_a_sentence(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=1, gap_ms=1) as server:
        text = (
            f"targets: {{a: {{endpoint: '{server.url}', model: m}}}}\n"
            "workload: {prompts: natural, output: {max: 5}}\n"
            "load: {concurrency: 1, window_s: 1, driver: tgi}\nrepeats: 1\n"
        )
        done = loadgen(tmp_path, "run", str(write_scenario(tmp_path, text)))
    assert done.code == 2
    assert "driver: tgi speaks tgi_generate, not openai_chat" in done.err
