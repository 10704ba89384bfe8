"""Presets: a definition of speed refuses what would contradict it, and is what the report shows first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from made_runs import made_run, summary, write

from loadgen.assemble import assemble
from loadgen.errors import ScenarioError, UsageError
from loadgen.metrics import METRICS, tpot, value
from loadgen.published.presets import PRESETS, preset_of
from loadgen.published.tables import names, table
from loadgen.record import Record
from loadgen.reports import beside, text
from loadgen.scenario import Scenario, expand, load
from loadgen.summary import Distribution

SINGLE = "load: {concurrency: 1, requests: 1, warmup_s: 1}\nworkload: {prompts: synthetic, output: {exact: 8}}\n"
BURST = "load: {burst: 100, warmup_s: 1}\nworkload: {prompts: synthetic, output: {exact: 8}}\n"


def loaded(folder: Path, words: str, row: str = "") -> Scenario:
    path = folder / "s.yaml"
    path.write_text(
        "schema: loadgen/v1\ntargets:\n"
        f"  a: {{endpoint: 'http://127.0.0.1:9', model: m{row}}}\n  b: {{endpoint: 'http://127.0.0.1:8', model: m}}\n"
        f"{words}"
    )
    return load(path).scenario


@pytest.mark.parametrize("name", names())
def test_the_preset_of_a_table_exists_and_its_rates_are_by_that_definition(name: str) -> None:
    found = table(name)
    measures = {column.measure for column in found.columns.values()} | {found.across and found.across.measure}
    rates = {measure for measure in measures if measure in METRICS and METRICS[measure].unit == "tok/s"}
    if found.preset is not None:
        assert rates <= {PRESETS[found.preset].single, PRESETS[found.preset].burst}


def test_the_definitions_of_speed_by_one_request() -> None:
    known: dict[str, Any] = {"seq": 0, "session": 0, "phase": "measure", "t_sched": 1.0, "t_send": 1.0, "status": "ok"}
    one = Record(**known, in_tok=6144, out_tok=2048, ttft_s=1.0, tpot_s=0.01, e2e_s=21.47)
    assert value(one, PRESETS["qwen2"].single) == pytest.approx(2048 / 21.47)
    assert value(one, PRESETS["qwen3"].single) == pytest.approx(8192 / 21.47)
    assert value(msgspec.structs.replace(one, in_tok=None), "request_total_tok_s") is None


def test_the_speed_of_all_prompts_at_once_counts_the_prompts() -> None:
    """The published pair: 6.68 requests of 1,000 + 100 tokens a second are 7,343.56 tokens a second."""
    assert PRESETS["qwen2"].burst == "total_tok_s"
    for row in table("qwen2_moe_vs_dense").rows:
        assert float(row["requests_per_s"]) * 1100 == pytest.approx(float(row["total_tok_s"]), rel=1e-3)


@pytest.mark.parametrize(
    "words",
    [
        f"preset: qwen2\n{SINGLE}",
        f"preset: qwen2\n{BURST}",
        f"preset: qwen3\n{SINGLE}",
        f"published: qwen2_vllm\n{SINGLE}",
        f"published: qwen2_vllm\npreset: qwen2\n{SINGLE}",
        f"published: qwen2_vllm\n{SINGLE}objectives: [mean request_tok_s > 10, p50 ttft < 1 s]\n",
        f"preset: qwen2\n{SINGLE}comparison: {{metric: mean request_tok_s}}\n",
        f"preset: qwen2\n{BURST}comparison: {{metric: total_tok_s}}\n",
    ],
)
def test_what_goes_with_a_preset_loads(words: str, tmp_path: Path) -> None:
    assert expand(loaded(tmp_path, words))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (f"preset: qwen4\n{SINGLE}", "did you mean 'qwen"),
        (
            f"published: qwen2_vlm\n{SINGLE}",
            "published: there is no published table 'qwen2_vlm'; did you mean 'qwen2_vl",
        ),
        (f"published: qwen2_vllm\npreset: qwen3\n{SINGLE}", "preset: qwen3 does not go with published: qwen2_vllm"),
        (f"published: yi_batch_memory\npreset: qwen2\n{SINGLE}", "whose speed is by no preset"),
        (f"preset: qwen2\n{SINGLE.replace('concurrency: 1', 'concurrency: 4')}", "preset qwen2 defines the speed of"),
        (f"preset: qwen3\n{BURST}", "preset qwen3 defines the speed of concurrency: 1; take that"),
        (f"preset: qwen2\n{SINGLE.replace('exact', 'max')}", "needs exact: N under preset qwen2"),
        (
            f"preset: qwen2\n{SINGLE}objectives: [p50 decode_tok_s > 1]\n",
            "objectives[0]: decode_tok_s is another speed",
        ),
        (f"preset: qwen2\n{SINGLE}comparison: {{}}\n", "comparison.metric: output_tok_s is another speed"),
        (f"preset: qwen2\n{BURST}comparison: {{metric: mean request_tok_s}}\n", "which is total_tok_s here"),
        (f"preset: qwen3\n{SINGLE}nightly: {{primary: [mean request_tok_s]}}\n", "which is request_total_tok_s here"),
    ],
)
def test_what_contradicts_a_preset_is_a_sentence(words: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError) as caught:
        expand(loaded(tmp_path, words))
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("{modle: x}", "targets.a.row.modle: qwen2_transformers has no such column; did you mean 'model'?"),
        ("{input_tokens: 1}", "targets.a.row.input_tokens: follows from the cell; a row states model, quantization"),
        ("{tok_s: 1}", "targets.a.row.tok_s: is no key of qwen2_transformers"),
        ("[1]", "targets.a.row: must be a mapping"),
    ],
)
def test_a_row_states_what_tells_rows_apart_and_nothing_else(row: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError) as caught:
        expand(loaded(tmp_path, f"published: qwen2_transformers\n{SINGLE}", f", row: {row}"))
    assert sentence in str(caught.value)


def test_a_row_without_a_table_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"targets\.a\.row: means nothing without published"):
        expand(loaded(tmp_path, SINGLE, ", row: {model: x}"))


def test_a_table_brings_its_preset_unless_another_is_named() -> None:
    assert preset_of(None, "qwen2_vllm") is PRESETS["qwen2"]
    assert preset_of(None, "yi_batch_memory") is None
    assert preset_of("qwen3", None) is PRESETS["qwen3"]
    assert preset_of(None, None) is None
    with pytest.raises(UsageError, match="no published table"):
        preset_of(None, "nothing")


@pytest.mark.parametrize(
    ("words", "field", "given", "head"),
    [
        (f"preset: qwen2\n{SINGLE}", "request_tok_s", Distribution(n=1, mean=77.7), "request tok/s (qwen2)"),
        (f"preset: qwen3\n{SINGLE}", "request_total_tok_s", Distribution(n=1, mean=77.7),
         "request total tok/s (qwen3)"),
        (f"preset: qwen2\n{BURST}", "total_tok_s", 77.7, "total tok/s (qwen2)"),
        (f"preset: qwen2\nmatrix: {{load.burst: [100]}}\n{BURST.replace('burst: 100, ', '')}", "total_tok_s", 77.7,
         "total tok/s (qwen2)"),
    ],
)  # fmt: skip
def test_the_report_shows_the_speed_of_the_preset_first(
    words: str, field: str, given: Any, head: str, tmp_path: Path
) -> None:
    scenario = loaded(tmp_path, f"repeats: 1\n{words}")
    run = made_run(tmp_path, scenario, {})
    one = msgspec.structs.replace(summary(5.0), **{field: given})
    write(run, (expand(scenario)[0].id, "a", 1), one)
    lines = text.render(assemble(run), 300).splitlines()
    columns = next(line for line in lines if "target" in line)
    assert head in columns
    assert columns.index(head) < columns.index("output tok/s")
    assert "77.70" in next(line for line in lines if " a " in line and "77" in line)


def test_runs_side_by_side_show_a_speed_that_is_defined_alike_for_all(tmp_path: Path) -> None:
    scenario = loaded(tmp_path, f"repeats: 1\npreset: qwen2\n{SINGLE}")
    alike = [assemble(made_run(tmp_path, scenario, {"a": (5.0,), "b": (5.0,)})) for _ in range(2)]
    assert "request tok/s (qwen2)" in beside.render(alike, 300)
    other = loaded(tmp_path, f"repeats: 1\npreset: qwen3\n{SINGLE}")
    apart = [alike[0], assemble(made_run(tmp_path, other, {"a": (5.0,), "b": (5.0,)}))]
    assert "(qwen" not in beside.render(apart, 300)


# What docs/definitions.md says ----------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[1] / "docs" / "definitions.md").read_text()


def of_the_page(name: str) -> str:
    """The value that the page gives for a metric."""
    return next(line.split("|")[3].strip() for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))


def test_the_pages_example_is_what_the_metrics_say_of_it() -> None:
    chunks = [1_000_000 + 10_000 * i for i in range(2048)]
    known: dict[str, Any] = {"seq": 0, "session": 0, "phase": "measure", "t_sched": 1.0, "t_send": 1.0, "status": "ok"}
    e2e = chunks[-1] / 1e6
    one = Record(
        **known, in_tok=6144, out_tok=2048, ttft_s=1.0, e2e_s=e2e, tpot_s=tpot(1.0, e2e, 2048), chunk_us=chunks
    )
    for name, shape in (("ttft_s", "{:.2f} s"), ("e2e_s", "{:.2f} s"), ("decode_tok_s", "{:.2f} tok/s")):
        assert of_the_page(name) == shape.format(value(one, name))
    for name in ("request_tok_s", "request_total_tok_s"):
        assert of_the_page(name) == f"{value(one, name):.2f} tok/s"
    assert of_the_page("tpot_s") == f"{1e3 * (one.tpot_s or 0):.2f} ms"
    assert f"llmperf's ITL is {e2e / 2048 * 1e3:.2f} ms" in PAGE


def test_the_page_has_every_rate_and_time_that_people_confuse() -> None:
    assert all(f"`{name}`" in PAGE for name, metric in METRICS.items() if metric.unit == "tok/s")
    assert all(f"| `{name}` |" in PAGE for name in PRESETS)


def test_the_pages_second_example_is_a_row_of_the_table() -> None:
    row = next(row for row in table("qwen2_moe_vs_dense").rows if row["requests_per_s"] == of_the_page("request_rps"))
    rps = float(row["requests_per_s"])
    assert of_the_page("output_tok_s") == f"{rps * 100:.0f}"
    assert of_the_page("total_tok_s") == f"{rps * 1100:,.0f}"
    assert f"{float(row['total_tok_s']):,.2f} there" in PAGE
