"""``loadgen calibrate`` and ``loadgen compare`` as a user runs them, against a scripted server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_runner import loadgen, write_scenario
from fakes import FakeServer
from made_runs import A, B, made_run, scenario_of
from typer.testing import CliRunner

from loadgen.cli import app
from loadgen.errors import UsageError


def scenario(folder: Path, url: str) -> Path:
    """One request a repeat: one that was sent late does not make it invalid."""
    text = (
        f"targets:\n  slow: {{endpoint: '{url}', model: m}}\n  fast: {{endpoint: '{url}', model: m}}\n"
        "workload: {prompts: natural, output: {exact: 6}}\nload: {concurrency: 1, warmup_s: 0, requests: 1}\n"
        "repeats: 3\ncomparison: {baseline: slow, scope: instance, factor: []}\n"
    )
    return write_scenario(folder, text)


def test_a_calibration_is_kept_for_later_runs_of_the_same_load_on_this_machine(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=100, gap_ms=5) as server:
        path = str(scenario(tmp_path, server.url))
        done = loadgen(tmp_path, "calibrate", path, "--repeats", "3", "--quiet", "--json", "--target", "fast")
        assert done.good, done.err + done.out
        found = json.loads(done.out)
        later = loadgen(tmp_path, "run", path, "--quiet")
        assert later.good, later.err + later.out
    assert found["floor"]["target"] == "fast"
    assert found["comparisons"][0]["cells"][0]["primary"]["ratio"]["n"] == 3
    (kept,) = done.store.glob("noise/*/s-fast-*.json")
    assert str(kept).endswith(found["path"])
    assert kept.stat().st_mode & 0o077 == 0
    known = later.description()["noise"]["known"]["all"]
    assert (known["cv"], known["run"]) == (found["floor"]["cells"][0]["cv"]["output_tok_s"], found["floor"]["run"])


def two_runs(folder: Path) -> tuple[str, str]:
    one, two = (made_run(folder / "store", scenario_of(folder, ("dense",)), {"dense": values}) for values in (A, B))
    return one.id, two.id


def test_runs_of_the_store_are_named_as_for_report(tmp_path: Path) -> None:
    one, two = two_runs(tmp_path)
    (folder,) = tmp_path.glob(f"store/runs/*/{two}")
    found = loadgen(tmp_path, "compare", one.rpartition("-")[2], str(folder))
    assert found.code == 0, found.err
    assert "serves 1.43 times the output tok/s" in found.out
    assert "[1.41, 1.45]: faster" in " ".join(found.out.split())  # wherever the line is broken


@pytest.mark.parametrize(
    ("words", "start"), [(["--json"], "{"), (["--format", "json"], "{"), (["--format", "markdown"], "# ")]
)
def test_every_form_goes_to_standard_output_alone(tmp_path: Path, words: list[str], start: str) -> None:
    found = loadgen(tmp_path, "compare", *two_runs(tmp_path), *words)
    assert found.code == 0
    assert found.out.startswith(start)
    assert found.err == ""


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--metric", "ttfd"], "did you mean"),
        (["--metric", "in_tok"], "neither more nor less of it is better"),
        (["--margin", "3"], "--margin 3: is no share"),
        (["--margin", "-1%"], "is no share"),
        (["--margin", "nan"], "is no share"),
        (["--format", "pdf"], "text, markdown and json"),
        (["--factor", "modle"], "did you mean 'model'"),
        (["--baseline", "x"], "has no such target"),
        (["nowhere"], "no run 'nowhere'"),
    ],
)
def test_flags_that_cannot_be_used_are_sentences(tmp_path: Path, words: list[str], sentence: str) -> None:
    done = CliRunner().invoke(app, ["compare", *two_runs(tmp_path), *words, "--store", str(tmp_path / "store")])
    assert isinstance(done.exception, UsageError)
    assert sentence in str(done.exception)
    assert done.output == ""


def test_a_calibration_of_a_target_that_does_not_exist_is_refused_before_anything_runs(tmp_path: Path) -> None:
    done = loadgen(tmp_path, "calibrate", str(scenario(tmp_path, "http://127.0.0.1:9")), "--target", "slwo")
    assert done.code == 2
    assert done.err.startswith("loadgen: --target slwo")
    assert "did you mean 'slow'" in done.err
    assert not list(done.store.glob("runs/*/*"))
