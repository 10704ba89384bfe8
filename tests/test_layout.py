"""The published tables' own layouts: every column of each, from runs that were made up, in every format and width."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from made_runs import MACHINE, made_run, summary, write
from published_memory import SLIPS
from typer.testing import CliRunner

from loadgen.assemble import RunReport, assemble
from loadgen.cli import app
from loadgen.errors import UsageError
from loadgen.limits.served import serving
from loadgen.published.tables import names, table
from loadgen.reports import published
from loadgen.scenario import expand, load
from loadgen.store import Run
from loadgen.summary import Distribution
from loadgen.telemetry.measured import Telemetry

GIB = 2**30
ONE = "load: {concurrency: 1, requests: 1, warmup_s: 1}\nworkload: {prompts: synthetic, output: {exact: 2048}}"
H200 = {**MACHINE, "gpus": [{"name": "NVIDIA H200", "uuid": "GPU-1", "memory_gb": 150.0}]}


def of(value: float) -> Distribution:
    return Distribution(n=1, mean=value, p50=value)


@dataclass(frozen=True)
class Made:
    """A table, a scenario that measures it again (its targets by name, each with its row, and other lines), what each
    repeat came to, and what the table's CSV then says: its header, and for some keys the values of that line."""

    table: str
    rows: Mapping[str, Mapping[str, Any]]
    head: str
    lines: Mapping[str, Mapping[str, str]]
    words: str = ONE
    came_to: Mapping[str, Any] = field(default_factory=dict)
    torch_gib: float | None = None
    gpus: int | None = 1
    lengths: tuple[int, int] = (6144, 2048)


SPEED = {"request_tok_s": of(100.0)}
TABLES = (
    Made(
        table="qwen2_transformers",
        rows={"a": {"model": "Qwen2-0.5B-Instruct", "quantization": "BF16"}},
        words=f"{ONE}\nmatrix: {{workload.input_tokens: [1, 6144]}}",
        came_to=SPEED,
        torch_gib=5.0,
        head="model,input_tokens,quantization,gpus,tok_s,memory_gb,gpus_measured,tok_s_measured,tok_s_ratio,"
        "memory_gb_measured,memory_gb_ratio,target,state,doubts,runs",
        lines={
            "Qwen2-0.5B-Instruct,6144,BF16": {
                "gpus": "1",
                "gpus_measured": "1.0",
                "tok_s": "50.83",
                "tok_s_measured": "100.0",
                "tok_s_ratio": "1.967",
                "memory_gb": "6.42",
                "memory_gb_measured": "5.0",
                "memory_gb_ratio": "0.7788",
            },
            "Qwen2-0.5B-Instruct,1,AWQ": {"tok_s": "38.78", "tok_s_measured": "", "state": "not measured"},
        },
    ),
    Made(
        table="qwen2_vllm",
        rows={"a": {"model": "Qwen2-72B-Instruct", "quantization": "BF16"}},
        words=f"{ONE}\nmatrix: {{workload.input_tokens: [1]}}",
        came_to=SPEED,
        gpus=4,
        head="model,input_tokens,quantization,gpus,tok_s,tok_s_measured,tok_s_ratio,target,state,doubts,runs",
        lines={
            "Qwen2-72B-Instruct,1,BF16,4": {"tok_s": "30.01", "tok_s_measured": "100.0", "tok_s_ratio": "3.332"},
            "Qwen2-72B-Instruct,1,BF16,2": {"tok_s": "17.68", "tok_s_measured": "", "state": "not measured"},
        },
    ),
    Made(
        table="qwen2_moe_vs_dense",
        rows={"a": {"model": "Qwen1.5-32B-Chat", "quantization": "BF16"}},
        words="load: {burst: 100, warmup_s: 1}\nworkload: {prompts: synthetic, output: {exact: 100}}",
        came_to={"request_rps": 13.36, "total_tok_s": 14696.0},
        lengths=(1000, 100),
        head="model,quantization,prompts,requests_per_s,total_tok_s,requests_per_s_measured,requests_per_s_ratio,"
        "total_tok_s_measured,total_tok_s_ratio,target,state,doubts,runs",
        lines={
            "Qwen1.5-32B-Chat,BF16,100": {
                "requests_per_s": "6.68",
                "requests_per_s_ratio": "2.0",
                "total_tok_s": "7343.56",
                "total_tok_s_measured": "14696.0",
                "total_tok_s_ratio": "2.001",
            },
        },
    ),
    Made(
        table="yi_batch_memory",
        rows={"a": {"model": "Yi-34B-Chat"}},
        words="load: {requests: 1, warmup_s: 1}\nworkload: {prompts: synthetic, output: {exact: 8}}\n"
        "matrix: {load.concurrency: [1, 32]}",
        torch_gib=65.0,
        head="model,batch_1_gb,batch_4_gb,batch_16_gb,batch_32_gb,batch_1_gb_measured,batch_1_gb_ratio,"
        "batch_4_gb_measured,batch_4_gb_ratio,batch_16_gb_measured,batch_16_gb_ratio,batch_32_gb_measured,"
        "batch_32_gb_ratio,target,state,doubts,runs",
        lines={
            "Yi-34B-Chat": {
                "batch_1_gb": "65",
                "batch_1_gb_measured": "65.0",
                "batch_1_gb_ratio": "1.0",
                "batch_4_gb": "68",
                "batch_4_gb_measured": "",
                "batch_32_gb": ">80",
                "batch_32_gb_measured": "65.0",
                "batch_32_gb_ratio": "",
            },
        },
    ),
    Made(
        table="memory_by_size",
        rows={"a": {"size": "14B", "precision_and_context": "int8, 4K-6K context"}},
        torch_gib=27.0,
        head="size,precision_and_context,memory,recommended_gpu,reference_models,memory_measured,memory_ratio,target,"
        "state,doubts,runs",
        lines={
            "14B,int8, 4K-6K context": {
                "memory": "27G",
                "memory_measured": "27.0",
                "memory_ratio": "1.0",
                "reference_models": "Qwen-14B-Chat-Int8",
            },
            "130B,int8, 4K-6K context": {"memory": "-", "recommended_gpu": "8xRTX3090 (24G)"},
        },
    ),
    Made(
        table="gpu_memory",
        rows={"a": {}},
        head="gpu,memory_gb,memory_gb_measured,memory_gb_ratio,target,state,doubts,runs",
        lines={"H200": {"memory_gb": "141", "memory_gb_measured": "150.0", "memory_gb_ratio": "1.064"}},
    ),
    Made(
        table="llama_quantized_4090",
        rows={"a": {"model": "vicuna 7b", "tool": "float16"}},
        came_to=SPEED,
        head="model,tool,tok_s,tok_s_measured,tok_s_ratio,target,state,doubts,runs",
        lines={"vicuna 7b,float16": {"tok_s": "43.27", "tok_s_measured": "100.0", "tok_s_ratio": "2.311"}},
    ),
    Made(
        table="engines_single_request",
        rows={
            "a": {
                "model": "Qwen1.5-7B-Chat-AWQ",
                "engine": "huggingface",
                "flash_attention_2": False,
                "kv_cache": True,
            },
            "b": {"model": "Qwen1.5-7B-Chat-AWQ", "engine": "TGI"},
        },
        words="load: {concurrency: 1, requests: 1, warmup_s: 1}\n"
        "workload: {prompts: natural, output: {max: 512}, stream: false}",
        came_to={**SPEED, "e2e_s": of(2.0), "in_tok": of(140.0), "out_tok": of(200.0)},
        head="model,engine,input_tokens,asked_output_tokens,output_tokens,seconds,output_tok_s,flash_attention_2,"
        "kv_cache,input_tokens_measured,output_tokens_measured,seconds_measured,seconds_ratio,output_tok_s_measured,"
        "output_tok_s_ratio,target,state,doubts,runs",
        lines={
            "Qwen1.5-7B-Chat-AWQ,huggingface,512,no,yes": {
                "input_tokens": "130",
                "input_tokens_measured": "140.0",
                "output_tokens": "201",
                "output_tokens_measured": "200.0",
                "seconds": "7.1",
                "seconds_measured": "2.0",
                "seconds_ratio": "0.2817",
                "output_tok_s": "28.27",
                "output_tok_s_ratio": "3.537",
            },
            "Qwen1.5-7B-Chat-AWQ,TGI,512,,": {"output_tok_s": "128.18", "output_tok_s_measured": "100.0"},
        },
    ),
    Made(
        table="transformers_vs_vllm",
        rows={"t": {"tool": "Transformers", "size": "7B"}, "v": {"tool": "vLLM", "size": "7B"}},
        came_to=SPEED,
        head="tool,0.5B,1.5B,7B,72B,0.5B_measured,0.5B_ratio,1.5B_measured,1.5B_ratio,7B_measured,7B_ratio,"
        "72B_measured,72B_ratio,target,state,doubts,runs",
        lines={
            "Transformers": {"7B": "34.74", "7B_measured": "100.0", "7B_ratio": "2.879", "0.5B_measured": ""},
            "speed-up": {"0.5B": "5.04", "1.5B": "4.07", "7B": "2.20", "72B": "4.67", "7B_measured": "1.0"},
        },
    ),
    Made(
        table="qwen25_speed_benchmark",
        rows={"a": {"model": "Qwen2.5-7B-Instruct", "engine": "vllm", "quantization": "AWQ"}},
        words=f"{ONE}\nmatrix: {{workload.input_tokens: [6144]}}",
        came_to=SPEED,
        head="model,engine,quantization,input_tokens,generate_length,gpus,tok_s,memory_gb,tok_s_measured,tok_s_ratio,"
        "memory_gb_measured,memory_gb_ratio,target,state,doubts,runs",
        lines={"Qwen2.5-7B-Instruct,vllm,AWQ,6144,2048,1": {"tok_s": "", "tok_s_measured": "100.0", "state": "ok"}},
    ),
    Made(
        table="accelerators",
        rows={"a": {"tool": "CTranslate2", "model": "m"}},
        words="load: {concurrency: 4, requests: 1, warmup_s: 1}\nworkload: {prompts: synthetic, output: {exact: 8}}",
        came_to={**SPEED, "output_tok_s": 50.0},
        head="tool,model,batch,output_tok_s,request_tok_s,output_tok_s_measured,output_tok_s_ratio,"
        "request_tok_s_measured,request_tok_s_ratio,target,state,doubts,runs",
        lines={"CTranslate2,m,4": {"output_tok_s_measured": "50.0", "request_tok_s_measured": "100.0"}},
    ),
)


def run_of(folder: Path, made: Made, repeats: int = 1, states: Mapping[int, str] | None = None, **fields: Any) -> Run:
    """A run of a scenario for a table. ``states`` are those of repeats by number, where they are not ok; ``fields``
    replace those of `Made.came_to`."""
    path = folder / f"{made.table}.yaml"
    gpus = "" if made.gpus is None else f", gpus: {made.gpus}, gpu: h200"
    targets = "".join(
        f"  {name}: {{endpoint: 'http://127.0.0.1:9', model: m{gpus}, row: {msgspec.json.encode(row).decode()}}}\n"
        for name, row in made.rows.items()
    )
    path.write_text(
        f"schema: loadgen/v1\npublished: {made.table}\nrepeats: {repeats}\ntargets:\n{targets}{made.words}\n"
    )
    scenario = load(path).scenario
    served = msgspec.to_builtins(serving(expand(scenario), folder))
    run = made_run(folder, scenario, {}, {"machine": H200, "served": served})
    peak = None if made.torch_gib is None else made.torch_gib * GIB
    for cell in expand(scenario):
        for target in cell.scenario.targets:
            for rep in range(1, repeats + 1):
                one = summary(50.0, state=(states or {}).get(rep, "ok"))
                lengths = {"in_tok": of(made.lengths[0]), "out_tok": of(made.lengths[1])}
                one = msgspec.structs.replace(one, doubts=(), **{**lengths, **made.came_to, **fields})
                write(run, (cell.id, target, rep), one, telemetry=Telemetry(torch_peak_bytes=peak))
    return run


def report_of(folder: Path, made: Made, **more: Any) -> RunReport:
    return assemble(run_of(folder, made, **more))


def csv_lines(reports: list[RunReport]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(published.render("csv", reports))))


def line_of(lines: list[dict[str, str]], of_table: str, key: str) -> dict[str, str]:
    found = [line for line in lines if ",".join(line[name] for name in table(of_table).keys) == key]
    assert len(found) == 1, f"{key}: {[tuple(line.values())[:4] for line in lines]}"
    return found[0]


BY_NAME = {made.table: made for made in TABLES}


def test_every_table_that_exists_is_held_here() -> None:
    assert sorted(BY_NAME) == names()


@pytest.mark.parametrize("made", TABLES, ids=lambda made: made.table)
def test_csv_has_the_columns_of_the_table_and_what_was_measured_beside_each(made: Made, tmp_path: Path) -> None:
    report = report_of(tmp_path, made)
    text = published.render("csv", [report])
    head = [name for name in text.splitlines()[0].split(",") if "_repeat_" not in name]
    assert ",".join(head) == made.head
    lines = csv_lines([report])
    for key, values in made.lines.items():
        line = line_of(lines, made.table, key)
        for name, value in values.items():
            wanted = pytest.approx(float(value), rel=1e-3) if name.endswith("_ratio") and value else value
            assert (float(line[name]) if name.endswith("_ratio") and value else line[name]) == wanted, name


@pytest.mark.parametrize("made", TABLES, ids=lambda made: made.table)
def test_every_row_of_the_table_stands_in_its_order_whether_it_was_measured_or_not(made: Made, tmp_path: Path) -> None:
    rows = table(made.table).rows
    lines = csv_lines([report_of(tmp_path, made)])
    for line, row in zip(lines, rows, strict=False):
        assert {name: line[name].removeprefix("'") for name in row} == row
    assert len(lines) - len(rows) == {"qwen25_speed_benchmark": 1, "accelerators": 1, "transformers_vs_vllm": 1}.get(
        made.table, 0
    )


@pytest.mark.parametrize("made", TABLES, ids=lambda made: made.table)
def test_markdown_has_every_column_and_every_figure(made: Made, tmp_path: Path) -> None:
    text = published.render("markdown", [report_of(tmp_path, made)])
    columns = [name for name in table(made.table).columns if name in made.head]
    head = next(line for line in text.splitlines() if line.startswith(f"| {columns[0]} |"))
    assert all(f"| {name} |" in head for name in columns)
    body = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(len(line.replace("\\|", "").split("|")) == len(head.split("|")) for line in body[:3])
    published_figures = {row[name] for row in table(made.table).rows for name in row if row[name]}
    assert all(figure.replace("<", "&lt;").replace(">", "&gt;") in text for figure in published_figures)


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("made", TABLES, ids=lambda made: made.table)
def test_a_layout_fits_its_window(made: Made, width: int, tmp_path: Path) -> None:
    text = published.render("text", [report_of(tmp_path, made, repeats=3)], width)
    assert max(map(len, text.splitlines())) <= max(width, 80)
    assert table(made.table).rows == () or "not measured" in text or made.table == "gpu_memory"


def test_the_machines_of_both_sides_are_named(tmp_path: Path) -> None:
    text = published.render("text", [report_of(tmp_path, BY_NAME["qwen2_vllm"])], 200)
    assert "published: A100 80 GB; CUDA 11.8, torch 2.3.0" in text
    assert "measured: a processor, 8 cores, NVIDIA H200" in text


def test_an_invalid_cell_says_so_in_place_of_its_number_and_has_no_ratio(tmp_path: Path) -> None:
    report = report_of(tmp_path, BY_NAME["llama_quantized_4090"], repeats=3, states={2: "invalid"})
    line = next(line for line in published.render("text", [report], 200).splitlines() if line.startswith("vicuna 7b "))
    assert line.split()[-6:] == ["43.27", "INVALID", "-", "a", "INVALID", "(a)"]
    text = published.render("text", [report], 200)
    assert "a: The client sent late. (all, a)" in text
    assert "vicuna 7b  float16       a   tok_s  100.00  INVALID  100.00  INVALID" in text
    assert csv_lines([report])[0]["tok_s_measured"] == ""
    assert csv_lines([report])[0]["doubts"] == "send_late"


def test_every_repeat_stands_below_with_the_mean(tmp_path: Path) -> None:
    made = BY_NAME["llama_quantized_4090"]
    run = run_of(tmp_path, made, repeats=3)
    for rep, speed in ((2, 110.0), (3, 120.0)):
        one = msgspec.structs.replace(summary(50.0), doubts=(), request_tok_s=of(speed))
        write(run, ("all", "a", rep), one)
    text = published.render("text", [assemble(run)], 200)
    assert "Each repeat, and their mean" in text
    last = next(line for line in reversed(text.splitlines()) if line.startswith("vicuna 7b "))
    assert last.split()[-4:] == ["100.00", "110.00", "120.00", "110.00"]
    assert csv_lines([assemble(run)])[0]["tok_s_repeat_3"] == "120.0"


def test_a_repeat_that_is_missing_is_a_doubt(tmp_path: Path) -> None:
    made = BY_NAME["llama_quantized_4090"]
    run = run_of(tmp_path, made, repeats=3)
    (run.folder / "cells/all/a/rep-002/attempt-1/summary.json").unlink()
    text = published.render("text", [assemble(run)], 200)
    assert "a: 1 of 3 repeats are missing. (all, a)" in text
    assert "vicuna 7b  float16       a   tok_s  100.00  -  100.00  100.00" in text


def test_rows_come_from_whichever_run_has_them_and_the_newer_of_two_good_ones_stands(tmp_path: Path) -> None:
    made = BY_NAME["llama_quantized_4090"]
    other = msgspec.structs.replace  # a later run of the same row, and one of another row
    first = report_of(tmp_path, made)
    later = report_of(tmp_path, made, request_tok_s=of(200.0))
    later = other(later, run={**later.run, "started": "2026-11-21T01:00:00Z"})
    another = Made(
        table=made.table,
        rows={"a": {"model": "vicuna 7b", "tool": "load-in-8bit (HF)"}},
        head="",
        lines={},
        came_to=SPEED,
    )
    lines = csv_lines([later, report_of(tmp_path, another), first])
    assert line_of(lines, made.table, "vicuna 7b,float16")["tok_s_measured"] == "200.0"
    assert line_of(lines, made.table, "vicuna 7b,load-in-8bit (HF)")["tok_s_measured"] == "100.0"
    assert "set aside for a better or newer one" in published.render("text", [first, later], 200)


def test_runs_on_different_machines_stand_apart(tmp_path: Path) -> None:
    made = BY_NAME["llama_quantized_4090"]
    first, other = report_of(tmp_path, made), report_of(tmp_path, made, request_tok_s=of(50.0))
    other = msgspec.structs.replace(other, run={**other.run, "machine": {**MACHINE, "cpu": "another"}})
    text = published.render("text", [first, other], 200)
    assert f"measured [1]: a processor, 8 cores, NVIDIA H200 ({first.run['run'][-6:]})" in text
    assert f"measured [2]: another, 8 cores, no GPU ({other.run['run'][-6:]})" in text
    lines = csv_lines([first, other])
    assert [(line["target"], line["tok_s_measured"]) for line in lines[:2]] == [("a [1]", "100.0"), ("a [2]", "50.0")]


def test_a_run_that_is_not_complete_is_named(tmp_path: Path) -> None:
    report = report_of(tmp_path, BY_NAME["llama_quantized_4090"])
    killed = msgspec.structs.replace(report, run={**report.run, "status": "aborted"})
    assert f"{report.run['run']} is aborted: what it lacks is not measured" in published.render("text", [killed], 200)
    assert "aborted" not in published.render("text", [report], 200)


def test_a_good_measurement_stands_before_a_newer_bad_one(tmp_path: Path) -> None:
    made = BY_NAME["llama_quantized_4090"]
    good, bad = report_of(tmp_path, made), report_of(tmp_path, made, states={1: "invalid"})
    bad = msgspec.structs.replace(bad, run={**bad.run, "started": "2026-11-21T01:00:00Z"})
    assert csv_lines([good, bad])[0]["state"] == "ok"


def test_two_targets_of_one_row_stand_both(tmp_path: Path) -> None:
    row = {"model": "vicuna 7b", "tool": "float16"}
    made = Made(table="llama_quantized_4090", rows={"all": row, "last": row}, head="", lines={}, came_to=SPEED)
    lines = csv_lines([report_of(tmp_path, made)])
    assert [(line["tool"], line["target"]) for line in lines[:3]] == [
        ("float16", "all"), ("float16", "last"), ("load-in-8bit (HF)", ""),
    ]  # fmt: skip


def test_what_is_of_no_row_stands_below_by_its_targets_name(tmp_path: Path) -> None:
    made = Made(table="llama_quantized_4090", rows={"tiny": {}}, head="", lines={}, came_to=SPEED)
    report = report_of(tmp_path, made)
    assert csv_lines([report])[-1] | {"runs": ""} == {
        **dict.fromkeys(csv_lines([report])[0], ""), "model": "tiny", "tok_s_measured": "100.0",
        "tok_s_repeat_1": "100.0", "target": "tiny", "state": "ok",
    }  # fmt: skip
    assert "Measured, and in no row of the published table" in published.render("text", [report], 200)


def test_replies_of_another_length_than_the_tables_are_a_doubt(tmp_path: Path) -> None:
    report = report_of(tmp_path, BY_NAME["qwen2_moe_vs_dense"], out_tok=of(64.0))
    text = published.render("text", [report], 200)
    assert "a: Replies had 64 tokens; the table's had 100." in text
    assert csv_lines([report])[0]["doubts"] == "other_replies"


def test_what_was_measured_is_defined_below(tmp_path: Path) -> None:
    text = published.render("text", [report_of(tmp_path, BY_NAME["qwen2_transformers"])], 200)
    assert "measured tok_s: request tok/s. Output tokens / e2e of one request, prefill included." in text
    assert "measured memory_gb: torch.cuda.max_memory_allocated, summed over GPUs, in GiB" in text
    assert "only our Hugging Face server on GPUs says it" not in text
    unknown = replace(BY_NAME["qwen2_transformers"], torch_gib=None)
    assert "memory_gb: only our Hugging Face server on GPUs says it" in published.render(
        "text", [report_of(tmp_path, unknown)], 200
    )


@pytest.mark.parametrize("form", published.FORMS)
def test_hostile_words_of_a_row_stay_text(form: str, tmp_path: Path) -> None:
    words = {"model": "=cmd()\n\x1b[31m| <b>x</b>", "tool": "a"}
    made = Made(table="llama_quantized_4090", rows={"a": words}, head="", lines={}, came_to=SPEED)
    text = published.render(form, [report_of(tmp_path, made)], 200)
    inside = {
        "text": "=cmd() [31m| <b>x</b>",
        "csv": "\n'=cmd() [31m| <b>x</b>,",
        "markdown": "[31m\\| &lt;b&gt;x&lt;/b&gt; |",
    }
    assert inside[form] in text
    assert "\x1b" not in text


def test_slips_of_the_table_are_named(tmp_path: Path) -> None:
    text = published.render("text", [report_of(tmp_path, BY_NAME["qwen2_transformers"])], 200)
    assert text.count("a slip of the table: Qwen2-57B-A14B-Instruct") == 2


def test_a_slip_is_of_a_row_and_a_column_that_exist() -> None:
    for name in names():
        found = table(name)
        for slip in found.slips:
            assert sum(slip.row.items() <= row.items() for row in found.rows) == 1
            assert slip.column in found.columns


def test_the_slips_are_those_that_the_memory_planner_finds() -> None:
    rows = [slip.row for slip in table("qwen2_transformers").slips]
    assert {(row["model"], int(row["input_tokens"]), row["quantization"]) for row in rows} == set(SLIPS)


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_the_keys_of_a_table_tell_its_rows_apart(name: str) -> None:
    found = table(name)
    keys = [tuple(row[key] for key in found.keys) for row in found.rows]
    assert len(set(keys)) == len(keys)
    columns = [*found.columns, *(found.across.columns if found.across else ())]
    assert all(list(row) == columns for row in found.rows)


def test_runs_of_no_table_and_of_several_are_sentences(tmp_path: Path) -> None:
    one, other = report_of(tmp_path, BY_NAME["qwen2_vllm"]), report_of(tmp_path, BY_NAME["accelerators"])
    with pytest.raises(UsageError, match=r"one table at a time.* qwen2_vllm, .* accelerators"):
        published.of_runs([one, other])
    bare = msgspec.structs.replace(one, run={**one.run, "scenario": {**one.run["scenario"], "published": None}})
    with pytest.raises(UsageError, match="measured no published table"):
        published.of_runs([bare])


def test_the_command_prints_the_layout_and_refuses_what_it_has_not(tmp_path: Path) -> None:
    run = run_of(tmp_path, BY_NAME["qwen2_vllm"])
    words = ["report", run.id, "--store", str(tmp_path), "--layout"]
    done = CliRunner().invoke(app, [*words, "published", "--format", "csv"])
    assert done.exit_code == 0
    assert done.stdout.startswith("model,input_tokens,quantization,gpus,tok_s,tok_s_measured")
    for more, sentence in (
        (["other"], "--layout other: there is published."),
        (
            ["published", "--format", "junit"],
            "--layout published --format junit: it is written as text, markdown, csv.",
        ),
        (["published", "--open"], "leave one of --layout and --open out"),
    ):
        with pytest.raises(UsageError, match=re.escape(sentence)):
            CliRunner().invoke(app, [*words, *more], catch_exceptions=False)


# The plan -------------------------------------------------------------------------------------------------------------

MODELS = Path(__file__).parents[1] / "scenarios" / "models"


def planned(folder: Path, of_table: str, targets: str, words: str, width: int = 200) -> str:
    path = folder / "planned.yaml"
    path.write_text(f"schema: loadgen/v1\npublished: {of_table}\ntargets:\n{targets}\n{words}\n")
    done = CliRunner().invoke(
        app, ["plan", str(path), "--layout", "published"], env={"COLUMNS": str(width)}, catch_exceptions=False
    )
    assert done.exit_code == 0
    return done.stdout


def words_of(text: str, *start: str) -> list[str]:
    found = [line.split() for line in text.splitlines() if line.split()[: len(start)] == list(start)]
    assert len(found) == 1, text
    return found[0]


def test_a_plan_has_the_memory_of_every_row_and_says_whether_the_published_gpus_hold_it(tmp_path: Path) -> None:
    moe = f"""  moe:
    engine: hf
    model: m
    config: {MODELS}/qwen2-57b-a14b.json
    options: {{prompt_logits: all}}
    gpus: 2
    gpu: a100
    row: {{model: Qwen2-57B-A14B-Instruct, quantization: BF16}}"""
    text = planned(tmp_path, "qwen2_transformers", moe, f"{ONE}\nmatrix: {{workload.input_tokens: [6144, 14336]}}")
    slip = words_of(text, "Qwen2-57B-A14B-Instruct", "14336", "BF16")
    assert slip[3:] == ["1", "4.58", "128.17", "128.08", "1:", "no,", "2", "do", "moe"]
    assert words_of(text, "Qwen2-57B-A14B-Instruct", "6144", "BF16")[-3:] == ["2:", "yes", "moe"]
    assert words_of(text, "Qwen2-7B-Instruct", "1", "AWQ")[-6:] == ["-", "-", "not", "in", "this", "scenario"]
    assert "14336, BF16: gpus: 128.17 GiB cannot be on one GPU of 80 GB; two hold them" in text


def test_a_plan_says_of_which_target_nothing_is_known(tmp_path: Path) -> None:
    targets = "  a: {engine: hf, model: nobody/knows, row: {model: vicuna 7b, tool: float16}}"
    text = planned(tmp_path, "llama_quantized_4090", targets, ONE)
    assert words_of(text, "vicuna", "7b", "float16")[-3:] == ["-", "-", "a"]
    assert "a: memory not known: no config.json" in text


def test_a_plan_of_unknown_hardware_names_the_smallest_gpu(tmp_path: Path) -> None:
    targets = f"  a: {{engine: hf, model: m, config: {MODELS}/qwen2-7b.json, row: {{model: Yi-6B-Chat}}}}"
    words = (
        "load: {requests: 1, warmup_s: 1}\nworkload: {prompts: synthetic, input_tokens: 8, output: {exact: 8}}\n"
        "matrix: {load.concurrency: [1, 4]}"
    )
    lines = planned(tmp_path, "yi_batch_memory", targets, words).splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("Yi-6B-Chat "))
    assert lines[place].split()[1:] == ["published", "12", "13", "15", "18"]
    assert lines[place + 1].split()[:2] == ["a:", "GiB"]
    assert lines[place + 2].split() == ["smallest", "GPU", *("4090", "(24", "GB)") * 2, "-", "-"]


def test_a_plan_of_no_table_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "bare.yaml"
    path.write_text(f"schema: loadgen/v1\ntargets: {{a: {{endpoint: 'http://127.0.0.1:9', model: m}}}}\n{ONE}\n")
    with pytest.raises(UsageError, match="measures no published table; it has no `published`"):
        CliRunner().invoke(app, ["plan", str(path), "--layout", "published"], catch_exceptions=False)
