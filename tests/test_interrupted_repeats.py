"""An interrupted repeat says what there is where nothing else does, and counts for nothing beside whole ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_runner import loadgen, write_scenario
from fakes import FakeServer

from loadgen.assemble import RunReport, assemble
from loadgen.store import Run

TWO = """
targets:
  a: {{endpoint: '{url}', model: m}}
  b: {{endpoint: '{url}', model: n}}
workload: {{prompts: natural, output: {{exact: 4}}}}
load: {{concurrency: 2, warmup_s: 0, window_s: 0.4}}
repeats: 2
comparison: {{baseline: a}}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted")
    with FakeServer(ttft_ms=5, gap_ms=1) as server:
        done = loadgen(folder, "run", str(write_scenario(folder, TWO.format(url=server.url))))
    assert done.code in (0, 5), done.err
    return done.run


@pytest.fixture
def cut(finished: Path, tmp_path: Path) -> Callable[..., RunReport]:
    """The report of the run if these repeats had been interrupted, before anything of their windows was there."""
    place = tmp_path / finished.name
    shutil.copytree(finished, place)

    def report(*interrupted: tuple[str, int]) -> RunReport:
        for target, rep in interrupted:
            (summary,) = place.glob(f"cells/*/{target}/rep-{rep:03d}/attempt-1/summary.json")
            said: dict[str, Any] = json.loads(summary.read_bytes())
            said["interrupted"] = True
            said["summary"] |= {"state": "failed", "requests": 0, "ok": 0, "output_tok_s": 0.0}
            summary.with_name("interrupted.json").write_text(json.dumps(said))
            summary.unlink()
        return assemble(Run(place))

    return report


def test_beside_whole_repeats_an_interrupted_one_is_missing_and_its_pair_left_out(
    cut: Callable[..., RunReport],
) -> None:
    report = cut(("a", 2))
    (cell,) = report.cells
    a, b = cell.targets
    assert [result is not None for result in a.results] == [True, False]
    assert a.state != "failed"
    assert [result is not None for result in b.results] == [True, True]
    (compared,) = report.comparisons[0].cells
    assert compared.primary.ratio is None or compared.primary.ratio.n == 1
    assert "no request succeeded" not in str(compared)


def test_what_an_interrupted_repeat_measured_is_shown_where_nothing_is_whole_and_compared_with_nothing(
    cut: Callable[..., RunReport],
) -> None:
    report = cut(("a", 1), ("a", 2))
    a, _ = report.cells[0].targets
    assert [result is not None and result.interrupted for result in a.results] == [True, True]
    assert a.whole == [None, None]
    assert report.comparisons[0].cells[0].primary.ratio is None
