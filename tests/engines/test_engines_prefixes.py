"""A Mooncake trace against vLLM's CPU build: what comes from its prefix cache is what the trace implies."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cli_runner import Done, command, environment, write_scenario
from cpu_engines import CPU_ENGINES
from made_traces import conversations, put

pytestmark = pytest.mark.engines

LIMIT = 0.03


def test_vllms_counters_say_what_the_trace_implies(tmp_path: Path) -> None:
    spec = CPU_ENGINES["vllm"].spec(tmp_path)
    put(tmp_path, conversations(60, gap_ms=500))
    options = {**spec.options, "max_model_len": 4096, "prefix_caching": True, "kv_block": 32}
    text = (
        f"targets:\n  vllm:\n    engine: vllm\n    python: {spec.python}\n    model: {spec.model}\n"
        f"    backend: openai_completions\n    options: {options}\n"
        "workload: {prompts: trace, path: t.jsonl, format: mooncake, max_model_len: 4096, too_long: drop, "
        "output: {exact: trace}}\nload: {arrival: trace, warmup_s: 0, drain_s: 200, workers: 1}\nrepeats: 1\n"
    )
    path = write_scenario(tmp_path, text.replace("True", "true"))
    done = subprocess.run(
        command("run", str(path)), env=environment(tmp_path / "store"), capture_output=True, text=True, timeout=500
    )
    run = Done(done.returncode, done.stdout, done.stderr, tmp_path / "store")
    (result,) = run.results()
    assert result.summary.failed == 0, done.stdout
    assert result.implied is not None
    assert result.implied.high > 0.3
    print(result.implied, result.summary.cached_share, result.seen.cached_share)
    assert result.seen.cached_share == pytest.approx(result.implied.high, abs=LIMIT)
    assert result.summary.cached_share == pytest.approx(result.implied.high, abs=LIMIT)
