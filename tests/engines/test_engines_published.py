"""The published scenarios that a CPU can carry, each whole, by its profile `cpu`: every cell is measured, and stands in
the layout of its table."""

from __future__ import annotations

import csv
import io
import subprocess
from pathlib import Path

import pytest
from cli_runner import Done, command, environment, loadgen
from cpu_engines import CHECKOUT, ENGINES

from loadgen.repeat import Result

pytestmark = pytest.mark.engines

FOLDER = CHECKOUT / "scenarios" / "published"
LONGEST_S = 900


def needs_vllm() -> None:
    if not (ENGINES / "vllm" / "bin" / "python").exists():
        pytest.skip("there is no vLLM for CPUs; scripts/make-engines vllm makes it")


def run(folder: Path, name: str) -> Done:
    """The scenario by its profile, in a folder of its own."""
    words = command("run", str(FOLDER / f"{name}.yaml"), "--profile", "cpu", "--quiet")
    store = folder / "store"
    env = {**environment(store), "LOADGEN_ENGINES": str(ENGINES)}
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=LONGEST_S)
    return Done(done.returncode, done.stdout, done.stderr, store)


def layout(folder: Path) -> list[dict[str, str]]:
    """What was measured of each row, by the columns of the published table."""
    text = loadgen(folder, "report", "last", "--layout", "published", "--format", "csv").out
    return [line for line in csv.DictReader(io.StringIO(text)) if line["state"] not in ("", "not measured")]


def by_cell(done: Done) -> dict[tuple[str, str], list[Result]]:
    found: dict[tuple[str, str], list[Result]] = {}
    for result in done.results():
        found.setdefault((result.cell, result.target), []).append(result)
    return found


def test_one_request_by_engine_ends_where_the_model_ends_it_and_comes_whole(tmp_path: Path) -> None:
    needs_vllm()
    done = run(tmp_path, "engines_single_request")
    assert done.good, done.err
    found = by_cell(done)
    assert set(found) == {
        (f"output.max={most}", target) for most in (1, 64) for target in ("hf-tiny", "hf-nocache-tiny", "vllm-tiny")
    }
    for (cell, _), results in found.items():
        assert len(results) == 3
        for result in results:
            assert result.summary.ok == 1
            assert 1 <= (result.summary.out_tok.mean or 0) <= int(cell.partition("=")[2])
            assert result.summary.ttft_s.n == 0
    prompts = {result.summary.in_tok.mean for results in found.values() for result in results}
    assert len(prompts) == 1  # one question, under one template
    assert {line["engine"] for line in layout(tmp_path)} == {"huggingface", "vllm"}


def test_the_speed_benchmark_has_three_runs_of_every_length_on_both_engines(tmp_path: Path) -> None:
    needs_vllm()
    done = run(tmp_path, "qwen25_speed_benchmark")
    assert done.good, done.err
    for (cell, _), results in by_cell(done).items():
        assert [result.rep for result in results] == [1, 2, 3]
        assert {result.summary.in_tok.mean for result in results} == {float(cell.partition("=")[2])}
        assert {result.summary.out_tok.mean for result in results} == {32.0}
    lines = layout(tmp_path)
    assert {(line["engine"], line["input_tokens"]) for line in lines} == {
        (engine, tokens) for engine in ("transformers", "vllm") for tokens in ("1", "256", "1024")
    }
    assert all(float(line["tok_s_measured"]) > 0 for line in lines)


def test_memory_by_batch_grows_with_the_batch(tmp_path: Path) -> None:
    done = run(tmp_path, "yi_batch_memory")
    assert done.good, done.err
    for target in ("tiny", "tiny-bf16"):
        taken = []
        for batch in (1, 4, 16, 32):
            (result,) = by_cell(done)[f"concurrency={batch}", target]
            assert result.summary.ok == batch
            assert result.telemetry.server_rss_peak_bytes is not None
            assert result.telemetry.torch_peak_bytes is None
            taken.append(result.telemetry.server_rss_peak_bytes)
        assert taken == sorted(taken)
        assert taken[-1] - taken[0] > 30e6  # 31 rows of KV cache more
    assert {line["model"] for line in layout(tmp_path)} == {"tiny_dense", "tiny_dense-bf16"}


def test_transformers_and_vllm_are_compared_at_every_size(tmp_path: Path) -> None:
    needs_vllm()
    done = run(tmp_path, "transformers_vs_vllm")
    assert done.good, done.err
    assert set(by_cell(done)) == {(f"size={size}", t) for size in ("tiny", "smaller") for t in ("transformers", "vllm")}
    assert "vllm has" in done.out
    assert {line["tool"] for line in layout(tmp_path)} >= {"Transformers", "vLLM"}
