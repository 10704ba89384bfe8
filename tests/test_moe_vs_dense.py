"""The published comparison: its scenario, and the page that is rendered from runs that are kept."""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import shlex
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadgen import launch
from loadgen.limits.served import serving
from loadgen.plan import make_plan, workers_of
from loadgen.record import Record
from loadgen.repeat import Result
from loadgen.scenario import Loaded, expand, load, public_dict
from loadgen.store import Run, create_run, write_json
from loadgen.summarise import summarise
from loadgen.summary import Context, Summary, Window
from loadgen.targets import spec_of
from loadgen.telemetry.prometheus import Seen

ROOT = Path(__file__).parents[1]
SCENARIO = ROOT / "scenarios" / "moe_vs_dense_shapes.yaml"
SHAPES = ("qwen1.5-32b", "qwen2-57b-a14b")
LINE = (
    "python3 -m vllm.entrypoints.cli.main serve MODEL --host 127.0.0.1 --port 8123 --served-model-name NAME "
    "--generation-config vllm --enable-prompt-tokens-details --disable-uvicorn-access-log --load-format dummy "
    "--dtype bfloat16 --max-model-len 2048 --no-enable-prefix-caching --max-num-seqs {seqs} "
    "--max-num-batched-tokens 8192{eager}"
)
RATES = {"dense": {1: 55, 4: 200, 16: 540, 64: 950, 256: 1100}, "moe": {1: 117, 4: 220, 16: 480, 64: 1250, 256: 2000}}
"""Made-up output tok/s: MoE ahead, behind at 16, ahead again."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of both shapes, without a tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    for shape in SHAPES:
        (folder / shape).mkdir()
        (folder / shape / "config.json").write_bytes((ROOT / "scenarios" / "models" / f"{shape}.json").read_bytes())
    return folder


def loaded(models: Path, profile: str | None = None) -> Loaded:
    return load(SCENARIO, profile=profile, env={"LOADGEN_MODELS": str(models)})


@pytest.mark.parametrize(
    ("profile", "seqs", "eager"),
    [(None, 512, ""), ("decode", 512, ""), ("routing", 512, ""), ("eager", 512, " --enforce-eager"),
     ("published", 256, " --enforce-eager")],
)  # fmt: skip
def test_every_profile_starts_both_models_alike(models: Path, profile: str | None, seqs: int, eager: str) -> None:
    scenario = loaded(models, profile).scenario
    for name, shape in zip(("dense", "moe"), SHAPES, strict=True):
        target = scenario.targets[name]
        made = launch.render(
            launch.load_recipe("vllm", ROOT), spec_of(SCENARIO.parent, name, target, None), port=8123, run_id="r",
            launchers=launch.launchers_folder(), folder=Path("/srv"),
        )  # fmt: skip
        line = LINE.format(seqs=seqs, eager=eager).replace("MODEL", str(models / shape)).replace("NAME", shape)
        assert list(made.argv) == shlex.split(line)


@pytest.mark.parametrize(
    ("profile", "concurrency", "lengths"),
    [(None, [1, 4, 16, 64, 256], (1000, 100)), ("eager", [1, 4, 16, 64, 256], (1000, 100)),
     ("decode", [1, 16, 64, 256, 384, 448], (64, 512)), ("published", [100, 1000], (1000, 100))],
)  # fmt: skip
def test_cells_are_those_that_were_asked_for(
    models: Path, profile: str | None, concurrency: list[int], lengths: tuple[int, int]
) -> None:
    cells = expand(loaded(models, profile).scenario)
    assert [cell.scenario.load.concurrency for cell in cells] == concurrency
    assert {cell.scenario.workload.settings["input_tokens"] for cell in cells} == {lengths[0]}
    assert {cell.scenario.workload.output.exact for cell in cells} == {lengths[1]}
    for words in (cell.scenario.load for cell in cells):  # one life of each slot, or a warm-up that holds the ramp
        assert words.requests == words.concurrency if profile == "published" else words.ramp_s < float(words.warmup_s)
        assert workers_of(words) >= (words.concurrency or 0) / 128


def summary(rate: float, in_tok: int = 1000, out_tok: int = 100) -> Summary:
    """A repeat with this output rate, whatever its few records say."""
    chunks = [50_000 + 10_000 * i for i in range(out_tok)]
    records = [
        Record(
            seq=seq, session=seq, phase="measure", t_sched=1 + seq, t_send=1 + seq, t_first=1.05 + seq,
            t_last=1 + seq + chunks[-1] / 1e6, t_end=1 + seq + chunks[-1] / 1e6, ttft_s=0.05, tpot_s=0.01,
            e2e_s=chunks[-1] / 1e6, chunk_us=chunks, ask_tok=out_tok, in_tok=in_tok, out_tok=out_tok,
            tok_source="usage", clock="kernel", lag_us_max=10, status="ok", http=200, finish="length",
            prompt_sha=str(seq), cached_tok=0,
        )
        for seq in range(8)
    ]  # fmt: skip
    found = summarise(records, Window(1, 13), Context(exact_tok=out_tok, concurrency=1, worker_cpu=(0.1,)))
    total = rate * (in_tok + out_tok) / out_tok
    return msgspec.structs.replace(found, output_tok_s=rate, total_tok_s=total, request_rps=rate / out_tok)


def server(target: str, model: Path) -> dict[str, Any]:
    argv = ["python3", "-m", "vllm.entrypoints.cli.main", "serve", str(model), "--port", "40123"]
    return {
        "target": target, "engine": "vllm", "model": str(model), "argv": argv, "port": 40123, "notes": [],
        "startup_s": 74.2, "facts": {"version": "0.26.0", "kv_tokens": 270832},
    }  # fmt: skip


def write_run(store: Path, models: Path, profile: str | None, rates: dict[str, dict[int, float]]) -> Run:
    """A run of the scenario on an H200 with three repeats a cell, whose requests were sent from two hosts."""
    found = loaded(models, profile)
    cells = expand(found.scenario)
    run = create_run(store, found.scenario.name)
    plan = make_plan(found.scenario, cells)
    write_json(run.folder / "plan.json", plan)
    gpu = {"name": "NVIDIA H200", "uuid": "GPU-1", "memory_gb": 150.75, "driver": "580.159.04"}
    run.write(
        "run.json",
        {
            "run": run.id, "status": "complete", "started": "a", "ended": "b", "scenario": public_dict(found.scenario),
            "scenario_path": str(SCENARIO), "seed": 1, "versions": {"loadgen": "0.1.0", "python": "3.12.3"},
            "machine": {"cpu": "a processor", "cores": 16, "memory_gb": 128, "gpus": [gpu]}, "profile": profile,
            "profile_reason": "", "failures": [], "served": msgspec.to_builtins(serving(cells, SCENARIO.parent)),
            "servers": {f"{name}-1": server(name, models / shape) for name, shape in zip(rates, SHAPES, strict=True)},
        },
    )  # fmt: skip
    for step in plan.steps:
        cell = next(cell for cell in cells if cell.id == step.cell)
        place = cell.scenario.load.concurrency or 0
        rate = rates[step.target][place] * (1 + step.rep / 1000)
        output, settings = cell.scenario.workload.output.exact or 0, cell.scenario.workload.settings
        _, folder = run.repeat(step.cell, step.target, step.rep).new_attempt()
        (folder / f"requests-host{step.rep % 2}-w0.jsonl").write_text("")
        result = Result(
            cell=step.cell, target=step.target, rep=step.rep, attempt=1, block=step.block, seed=step.seed,
            server=f"{step.target}-1", started="a", summary=summary(rate, settings["input_tokens"], output),
            workers=(), seen=Seen(batch_seen=min(place, 246)),
        )  # fmt: skip
        write_json(folder / "summary.json", result)
    return run


def program(*words: str | Path, folder: Path = ROOT) -> tuple[int, str]:
    """The renderer's exit code and what it said on standard error, run in ``folder`` as `python FOLDER` runs it."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder), contextlib.redirect_stderr(said):
        patch.setattr(sys, "argv", ["render-moe-vs-dense", *map(str, words)])
        with contextlib.redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "scripts" / "moe_vs_dense"), run_name="__main__")
    return int(str(ended.value.code)), said.getvalue()


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Path:
    """A folder with docs/data of two runs, kept by the program, and the page that it wrote."""
    folder = tmp_path_factory.mktemp("page")
    burst = {"dense": {100: 700.0, 1000: 800.0}, "moe": {100: 480.0, 1000: 520.0}}
    for name, profile, rates in (("graphs", None, RATES), ("published", "published", burst)):
        run = write_run(folder / "store", models, profile, rates)  # type: ignore[arg-type]
        (run.folder / "servers" / "dense-1").mkdir(parents=True)
        (run.folder / "servers" / "dense-1" / "server.log").write_text("long")
        assert program("--keep", run.folder, name, folder=folder) == (0, "")
    assert program(folder=folder) == (0, "")
    return folder


def page(folder: Path) -> str:
    return (folder / "docs" / "moe-vs-dense.md").read_text()


def section(folder: Path, name: str) -> str:
    return page(folder).split(f"## {name}")[1].split("\n## ")[0]


def test_the_page_has_both_targets_at_every_concurrency_with_intervals(rendered: Path) -> None:
    table = [line.split(" | ") for line in section(rendered, "graphs").splitlines() if line.startswith("| ")]
    found = {(row[0].strip("| "), row[1]): row[2] for row in table if row[1] in RATES}
    assert len(found) == 10
    assert found["16", "moe"] == "481.0 [479.8, 482.2]"


def test_the_page_says_machine_versions_and_the_exact_command(rendered: Path) -> None:
    text = section(rendered, "graphs")
    assert "NVIDIA H200 (151 GB, driver 580.159.04)" in text
    assert "version 0.26.0" in text
    assert "loadgen run scenarios/moe_vs_dense_shapes.yaml\n" in text
    assert "python3 -m vllm.entrypoints.cli.main serve qwen1.5-32b --port PORT" in text


def test_verdicts_and_crossings_of_the_candidate_are_there_with_their_directions(rendered: Path) -> None:
    text = section(rendered, "graphs")
    assert "moe serves 0.889 times the output tok/s of dense at concurrency 16 [0.889, 0.889]: slower" in text
    assert "moe falls behind dense in output tok/s between concurrency 4 and 16" in text
    assert "moe overtakes dense in output tok/s between concurrency 16 and 64" in text
    assert "in output tok/s between batch_seen" in text


def test_the_roofline_stands_beside_what_was_measured(rendered: Path) -> None:
    # 1000 in, 100 out on an H200 at batch 1: 72.57 and 168.5 tok/s (docs/roofline.md)
    text = section(rendered, "graphs")
    assert "| 72.57 | 76 % |" in text
    assert "| 168.5 | 70 % |" in text
    assert "overtakes at 23" in text


def test_random_weights_and_repeats_on_several_hosts_are_doubts(rendered: Path) -> None:
    text = section(rendered, "graphs")
    assert "The repeats were sent from 2 hosts, each pair from one." in text
    assert "leave half an ABBA block" in text


def test_the_published_figures_stand_beside_ours(rendered: Path) -> None:
    text = section(rendered, "The published figures")
    assert "| 1000 | dense | 7.99 | 8,791 | 8.02 [8.00, 8.04] | 8,818 [8,796, 8,839] |" in text
    assert "| 1000 | MoE / dense |  | 0.648 |  | 0.650 [0.650, 0.650] |" in text
    assert "two A100 80 GB" in text
    assert "has not been measured" not in text


def test_without_a_burst_of_our_own_the_published_figures_stand_beside_what_is_nearest(
    models: Path, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "store", models, "eager", RATES)  # type: ignore[arg-type]
    assert program("--out", tmp_path / "page.md", run.folder) == (0, "")
    text = (tmp_path / "page.md").read_text().split("## The published figures")[1]
    assert "| 1000 | dense | 7.99 | 8,791 |\n" in text
    assert "A burst of prompts has not been measured here" in text
    assert "whose concurrency is held: MoE / dense 1.316 [1.316, 1.316] at 64; 1.818 [1.818, 1.818] at 256." in text
    assert "a new request for each that ends" in text


def test_an_invalid_burst_has_no_ratio(models: Path, tmp_path: Path) -> None:
    burst = {"dense": {100: 700.0, 1000: 800.0}, "moe": {100: 480.0, 1000: 520.0}}
    run = write_run(tmp_path / "store", models, "published", burst)
    path = run.folder / "cells" / "concurrency=100" / "moe" / "rep-002" / "attempt-1" / "summary.json"
    result = msgspec.json.decode(path.read_bytes(), type=Result)
    write_json(path, msgspec.structs.replace(result, summary=msgspec.structs.replace(result.summary, state="invalid")))
    assert program("--out", tmp_path / "page.md", run.folder) == (0, "")
    assert "| 100 | MoE / dense |  | 0.721 |  | - |" in (tmp_path / "page.md").read_text()


def test_plots_are_small_and_well_formed_and_hold_every_point(rendered: Path) -> None:
    image = rendered / "docs" / "img" / "moe-vs-dense-graphs-rate.svg"
    assert "](img/moe-vs-dense-graphs-rate.svg)" in page(rendered)
    assert image.stat().st_size < 20_000
    root = ElementTree.fromstring(image.read_text())
    name = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{name}circle")) == 10
    assert len(root.findall(f"{name}polyline")) == 4  # two measured, two rooflines


def test_the_same_runs_give_the_same_bytes(rendered: Path, tmp_path: Path) -> None:
    archives = sorted((rendered / "docs" / "data").iterdir())
    assert program("--out", tmp_path / "moe-vs-dense.md", *archives) == (0, "")
    assert (tmp_path / "moe-vs-dense.md").read_text() == page(rendered)


def test_a_kept_run_has_no_log_and_no_path_of_its_machine(rendered: Path, models: Path) -> None:
    for path in (rendered / "docs" / "data").iterdir():
        with tarfile.open(path) as archive:
            names = [entry.name for entry in archive]
            (described,) = [name for name in names if name.endswith("/run.json")]
            held = archive.extractfile(described)
            assert held is not None
            text = held.read().decode()
        assert not any(name.endswith("server.log") for name in names)
        assert any("requests-host" in name for name in names)
        assert json.loads(text)["servers"]["dense-1"]["model"] == SHAPES[0]
        assert str(models) not in json.dumps(json.loads(text)["servers"])
        assert path.stat().st_size < 60_000


def test_a_cell_that_is_invalid_is_said_to_be_and_not_drawn(rendered: Path, models: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "store", models, None, RATES)  # type: ignore[arg-type]
    path = run.folder / "cells" / "concurrency=16" / "moe" / "rep-001" / "attempt-1" / "summary.json"
    result = msgspec.json.decode(path.read_bytes(), type=Result)
    write_json(path, msgspec.structs.replace(result, summary=msgspec.structs.replace(result.summary, state="invalid")))
    assert program("--out", tmp_path / "page.md", run.folder) == (0, "")
    assert "INVALID |" in (tmp_path / "page.md").read_text()
    image = next((tmp_path / "img").glob("*-rate.svg")).read_text()
    assert image.count("<circle") == 9


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "there is no run in docs/data; keep one with --keep RUN NAME"),
        (["nowhere"], "nowhere: there is no such run"),
        (["."], "holds 0 runs"),
        (["--keep", ".", "x"], "is no run's folder: it has no run.json"),
        (["broken.tar.xz"], "broken.tar.xz cannot be unpacked"),
    ],
)
def test_what_cannot_be_rendered_is_a_sentence(tmp_path: Path, words: list[str], sentence: str) -> None:
    (tmp_path / "broken.tar.xz").write_bytes(b"\xfd7zXZ\x00 and no more")
    code, said = program(*words, folder=tmp_path)
    assert code == 2
    assert sentence in said
