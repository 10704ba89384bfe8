"""The main scenario against the real Hugging Face server, driven by the command line: what the README promises."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest
from cli_runner import Done, loadgen

SCENARIO = Path(__file__).parents[1] / "scenarios" / "moe_vs_dense.yaml"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None,
    reason="torch and transformers are not installed (extra hf)",
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """One repeat of the demo, its window shortened; both servers real."""
    folder = tmp_path_factory.mktemp("demo")
    done = loadgen(folder, "run", str(SCENARIO), "--profile", "cpu", "--set", "repeats=1", "--set", "load.window_s=3")
    assert done.code in (0, 3, 5), done.err + done.out  # a busy machine may be late or slow; what it counted is right
    return done


def test_it_prints_both_targets_at_every_concurrency_and_the_path(demo: Done) -> None:
    rows = [line.split()[:2] for line in demo.out.splitlines()]
    for concurrency in ("1", "4", "16"):
        for target in ("dense", "moe"):
            assert [concurrency, target] in rows
    assert "no interval: fewer than 3 repeats" in (demo.run / "report.md").read_text()
    assert str(demo.run.name) in demo.out


def test_every_reply_has_exactly_the_tokens_asked_for_each_in_its_own_event(demo: Done) -> None:
    ok = [record for attempt in demo.attempts() for record in demo.records(attempt) if record.status == "ok"]
    assert len(ok) > 20
    for record in ok:
        assert record.out_tok == record.ask_tok == 32
        assert record.tok_source == "usage"
        assert len(record.chunk_us) == 32  # one event a token, each with its id
        assert record.chunk_tok is None


def test_the_servers_own_metrics_show_real_batches_from_concurrency_4_on(demo: Done) -> None:
    for result in demo.results():
        concurrency = int(result.cell.partition("=")[2])
        assert result.seen.batch_source == "histogram"
        assert result.seen.batch_seen is not None
        if concurrency == 1:
            assert result.seen.batch_seen == pytest.approx(1.0)
        else:
            assert result.seen.batch_seen > 1.5


def test_the_report_says_that_the_weights_are_random_and_the_windows_short(demo: Done) -> None:
    assert "random" in demo.out
    assert "The window lasted 3 s, less than 30 s." in demo.out


def test_the_run_says_which_profile_it_took_and_what_it_started(demo: Done) -> None:
    described = demo.description()
    assert described["profile"] == "cpu"
    assert set(described["servers"]) == {"dense-1", "moe-1"}
    for server in described["servers"].values():
        assert server["engine"] == "hf"
        assert server["facts"]["version"]
        assert server["proof"]["ok"] is True


def test_no_server_outlives_the_run(demo: Done) -> None:
    for path in demo.run.glob("servers/*/server.json"):
        server = json.loads(path.read_text())
        for process in server["processes"]:
            with pytest.raises(ProcessLookupError):
                os.kill(process["pid"], 0)
