"""Runs that measured different cells of one scenario become one run, in which every number is one of theirs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cli_runner import Done, loadgen

from loadgen.errors import UsageError
from loadgen.joining import join
from loadgen.rejudging import rejudge
from loadgen.store import Run

ENGINE = Path(__file__).with_name("fake_server.py")

RECIPE = f"""
command: ['{{python}}', '{ENGINE}', --port, '{{port}}', --truth, truth.jsonl]
options: {{script: [--script, '{{value}}']}}
ready: {{path: /health, probe: false}}
backend: openai_chat
"""

SCENARIO = """
schema: loadgen/v1
targets:
  a: {engine: ./mine.yaml, model: m, options: {script: '{"ttft_ms": 20, "gap_ms": 2}'}}
  b: {engine: ./mine.yaml, model: m, options: {script: '{"ttft_ms": 5, "gap_ms": 1}'}}
workload: {prompts: natural, output: {exact: 8}}
load: {warmup_s: 0.2, window_s: 0.5}
matrix:
  load.concurrency: [1, 2, 4]
  INCLUDE
repeats: 1
comparison: {baseline: a, candidates: [b], scope: restart, factor: [script]}
"""


def finished(done: Done) -> Done:
    """A busy machine makes repeats invalid, which is no matter here."""
    assert done.code in (0, 5), done.err
    return done


class Parts:
    """All cells in one run; then the last in another, with a longer window and on a core that is named."""

    def __init__(self, folder: Path) -> None:
        path = folder / "matrix.yaml"
        (folder / "mine.yaml").write_text(RECIPE)
        path.write_text(SCENARIO.replace("INCLUDE", ""))
        self.old = Run(finished(loadgen(folder, "run", str(path))).run)
        path.write_text(SCENARIO.replace("INCLUDE", "include: [{load.concurrency: 4, load.window_s: 0.8}]"))
        words = ("--cell", "concurrency=4", "--set", "targets.a.cpus=[0]", "--set", "targets.b.cpus=[0]")
        self.new = Run(finished(loadgen(folder, "run", str(path), *words)).run)

    def copy(self, run: Run, place: Path) -> Run:
        shutil.copytree(run.folder, place / run.id)
        return Run(place / run.id)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return Parts(tmp_path_factory.mktemp("joining"))


def summaries(run: Run) -> dict[str, Any]:
    found = {}
    for path in run.folder.glob("cells/*/*/rep-*/attempt-*/summary.json"):
        said = json.loads(path.read_bytes())
        found[f"{said['cell']} {said['target']}"] = said
    return found


def test_every_cell_is_of_the_newest_run_that_measured_it_as_the_newest_scenario_says(
    parts: Parts, tmp_path: Path
) -> None:
    report = join([parts.new, parts.old], tmp_path)
    assert [cell.id for cell in report.cells] == ["concurrency=1", "concurrency=2", "concurrency=4"]
    mine, old, new = summaries(Run(Path(report.path))), summaries(parts.old), summaries(parts.new)
    assert len(mine) == 6
    for name, said in mine.items():
        theirs = new if name.startswith("concurrency=4") else old
        assert {**said, "server": None} == {**theirs[name], "server": None}
    assert mine["concurrency=4 a"]["summary"]["window"] != old["concurrency=4 a"]["summary"]["window"]


def test_each_repeat_still_names_the_server_that_it_was_measured_with(parts: Parts, tmp_path: Path) -> None:
    report = join([parts.old, parts.new], tmp_path)
    joined = Run(Path(report.path))
    ports = {}
    for run in (parts.old, parts.new, joined):
        servers = run.read("run.json")["servers"]
        ports[run.id] = {name: servers[said["server"]]["base_url"] for name, said in summaries(run).items()}
    old, new = ports[parts.old.id], ports[parts.new.id]
    expected = {name: (new if name.startswith("concurrency=4") else old)[name] for name in old}
    assert ports[joined.id] == expected
    assert {step.server for step in report.plan.steps} == {*report.plan.servers} == {"a-1", "a-2", "b-1", "b-2"}
    assert {found.server for found in report.fingerprints} == {*report.plan.servers}
    assert {path.name for path in joined.folder.glob("servers/*")} == {*report.plan.servers}


def test_the_report_says_which_run_gave_which_cells_and_what_was_left_out(parts: Parts, tmp_path: Path) -> None:
    done = finished(loadgen(tmp_path, "merge", str(parts.old.folder), str(parts.new.folder)))
    said = " ".join(done.out.split())
    assert f"concurrency=1, concurrency=2: measured by {parts.old.id}" in said
    assert "its concurrency=4 left out" in said
    assert f"concurrency=4: measured by {parts.new.id}" in said


def test_a_joined_run_is_reported_and_judged_again_like_any_other(parts: Parts, tmp_path: Path) -> None:
    report = join([parts.old, parts.new], tmp_path / "loadgen-results")
    again, changed = rejudge(Run(Path(report.path)))
    assert changed == []
    assert summaries(Run(Path(again.path))).keys() == summaries(Run(Path(report.path))).keys()
    assert f"measured by {parts.old.id}" in " ".join(finished(loadgen(tmp_path, "report", report.path)).out.split())


def test_a_run_of_before_a_word_of_the_scenario_was_there_is_joined_like_any_other(
    parts: Parts, tmp_path: Path
) -> None:
    older = parts.copy(parts.old, tmp_path / "older")
    told = older.read("run.json")
    for target in told["scenario"]["targets"].values():
        assert target.pop("balance") is None
    older.write("run.json", told)
    assert [cell.id for cell in join([older, parts.new], tmp_path / "store").cells] == [
        cell.id for cell in join([parts.old, parts.new], tmp_path / "store").cells
    ]


def test_the_runs_that_were_joined_stay_as_they_are(parts: Parts, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for run in (parts.old, parts.new) for path in run.folder.rglob("*.json")}
    join([parts.old, parts.new], tmp_path)
    assert {path: path.read_bytes() for path in before} == before


def test_a_run_whose_cells_a_newer_one_measured_too_gives_none_and_is_named(parts: Parts, tmp_path: Path) -> None:
    older = parts.copy(parts.new, tmp_path / "older")
    older.write("run.json", {**older.read("run.json"), "started": "2001-01-01T00:00:00Z"})
    with pytest.raises(UsageError, match=f"{older.id} gives no cell"):
        join([older, parts.new], tmp_path / "store")
    assert not list((tmp_path / "store").glob("runs/*/*"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda told: told["scenario"]["workload"].update(output={"exact": 9}), "their `workload` differ"),
        (lambda told: told["scenario"]["targets"]["a"].update(model="other"), "their `targets` differ"),
        (lambda told: told["scenario"].update(seed=7), "their `seed` differ"),
        (lambda told: told["versions"].update(loadgen="0.0.1"), "other version of loadgen"),
        (lambda told: told["machine"].update(gpus=[{"name": "NVIDIA X1"}]), "other GPUs: NVIDIA X1 and"),
        (lambda told: told.update(status="running"), "is not over"),
        (lambda told: told.update(shard={"index": 0, "of": 2, "start_at": 1.0}), "is a shard"),
        (lambda told: told.update(origin={"tool": "x"}), "was read from a file of another program"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(parts: Parts, tmp_path: Path, change: Any, said: str) -> None:
    other = parts.copy(parts.old, tmp_path)
    told = other.read("run.json")
    change(told)
    other.write("run.json", told)
    with pytest.raises(UsageError, match=said):
        join([other, parts.new], tmp_path / "store")
    assert not list((tmp_path / "store").glob("runs/*/*"))


def test_engines_of_other_versions_make_no_table(parts: Parts, tmp_path: Path) -> None:
    other = parts.copy(parts.old, tmp_path)
    told = other.read("run.json")
    for server in told["servers"].values():
        server["facts"] = {**(server.get("facts") or {}), "version": "9.9"}
    other.write("run.json", told)
    with pytest.raises(UsageError, match="other versions of engines"):
        join([other, parts.new], tmp_path / "store")


def test_one_run_alone_that_is_no_shard_says_what_is_missing(parts: Parts, tmp_path: Path) -> None:
    done = loadgen(tmp_path, "merge", str(parts.old.folder))
    assert done.code == 2
    assert "is no shard: it was not run with --shard. Name the runs of other cells" in " ".join(done.err.split())
