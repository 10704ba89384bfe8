"""TGI's own client as a driver, the real package: it cannot be installed beside transformers 5, so it has a place of
its own (scripts/make-engines text-generation)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cli_runner import Done, environment, write_scenario
from cpu_engines import ENGINES
from fakes import FakeServer

pytestmark = pytest.mark.engines
PYTHON = ENGINES / "text-generation" / "bin" / "python"


def run(folder: Path, url: str, more: str = "") -> Done:
    """A run of loadgen in the environment of that package."""
    if not PYTHON.exists():
        pytest.skip(f"there is no {PYTHON}; scripts/make-engines text-generation makes it")
    text = (
        f"targets: {{a: {{endpoint: '{url}', model: m, backend: tgi_generate}}}}\n"
        f"workload: {{prompts: synthetic, kind: words, words: 20, raw: true, output: {{max: 12}}{more}}}\n"
        "load: {concurrency: 3, warmup_s: 0, window_s: 1, driver: tgi}\nrepeats: 1\n"
    )
    argv = [str(PYTHON), "-m", "loadgen", "run", str(write_scenario(folder, text))]
    store = folder / "store"
    done = subprocess.run(argv, cwd=folder, env=environment(store), capture_output=True, text=True, timeout=120)
    return Done(done.returncode, done.stdout, done.stderr, store)


def test_streams_through_tgis_own_client_are_records_like_others(tmp_path: Path) -> None:
    with FakeServer(dialect="tgi", ttft_ms=20, gap_ms=5) as server:
        done = run(tmp_path, server.url)
        truth = server.truth()
    records = done.records(done.attempts()[0])
    assert len(records) >= 3, done.err
    for record in records:
        assert (record.status, record.driver, record.clock) == ("ok", "tgi", "user"), record.err
        assert (record.out_tok, len(record.chunk_us)) == (12, 12)
        assert record.ttft_s is not None
        assert record.ttft_s >= 0.019
    assert len(truth) >= len(records)


def test_whole_replies_through_it_have_no_ttft(tmp_path: Path) -> None:
    with FakeServer(dialect="tgi", ttft_ms=10, gap_ms=1) as server:
        done = run(tmp_path, server.url, ", stream: false")
    records = done.records(done.attempts()[0])
    assert {record.status for record in records} == {"ok"}, records[0].err
    assert all(record.ttft_s is None and record.out_tok == 12 for record in records)


def test_a_server_that_is_overloaded_is_named(tmp_path: Path) -> None:
    with FakeServer(dialect="tgi", ttft_ms=5, gap_ms=1, faults=[{"kind": "http", "status": 429, "nth": 4}]) as server:
        done = run(tmp_path, server.url)
    statuses = {record.status for record in done.records(done.attempts()[0])}
    assert "ok" in statuses
    assert statuses - {"ok"}, "the fault is one of the records"
