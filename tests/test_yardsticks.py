"""What a run keeps of its targets, rates by what they took, what mixtures were asked; what is unknown stays so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli_runner import loadgen, write_scenario
from fakes import FakeServer
from made_results import H200, machine, one_target, result, two_models
from model_configs import QWEN2_57B, QWEN15_32B

from loadgen.errors import UsageError
from loadgen.limits.floor import MeasuredCell
from loadgen.limits.footing import footing
from loadgen.limits.mixture import Mixture, mixtures
from loadgen.limits.normalise import Normalised, normalised
from loadgen.limits.served import LONGEST_CONFIG, Served, Serving, read_config, serving, stored
from loadgen.limits.yardsticks import yardsticks
from loadgen.plan import launch_key
from loadgen.repeat import Result
from loadgen.scenario import Target, expand
from loadgen.scenario import load as load_scenario
from loadgen.shapes.model_config import shape_of
from loadgen.targets import check_target


def target(**words: Any) -> Target:
    return Target.model_validate({"model": "m", "endpoint": "http://h:1"} | words)


def scenario(folder: Path, targets: str, more: str = "") -> Serving:
    path = folder / "s.yaml"
    path.write_text(
        f"schema: loadgen/v1\ntargets: {targets}\nload: {{concurrency: 4, warmup_s: 1, window_s: 10}}\n"
        f"workload: {{prompts: synthetic, kind: ids, input_tokens: 8, output: {{exact: 4}}}}\n{more}"
    )
    return serving(expand(load_scenario(path).scenario), folder)


# -- what is kept ---------------------------------------------------------------------------------------------------


def test_a_config_is_kept_once_however_many_targets_and_cells_have_it(tmp_path: Path) -> None:
    (tmp_path / "big.json").write_text(json.dumps(QWEN15_32B))
    made = "{engine: hf, model: {config: big.json}, options: {dtype: bfloat16}}"
    kept = scenario(tmp_path, f"{{a: {made}, b: {made}}}", "matrix: {concurrency: [1, 2]}")
    assert kept.configs == (QWEN15_32B,)
    assert len(kept.targets) == 1
    assert [cell.concurrency for cell in kept.cells.values()] == [1, 2]
    assert kept.of("concurrency=2", "b") == Served(
        name="big", config=0, options={"dtype": "bfloat16"}, weights="made here from big.json"
    )


def test_an_option_that_the_matrix_changes_is_kept_by_cell(tmp_path: Path) -> None:
    text = "{a: {engine: vllm, model: org/m, options: {tensor_parallel: 1, seed: 3}}}"
    kept = scenario(tmp_path, text, "matrix: {targets.a.options.tensor_parallel: [1, 2]}")
    sizes = {name: kept.of(name, "a") for name in kept.cells}
    assert [one.gpu_count([H200, H200]) for one in sizes.values() if one] == [1, 2]
    assert all(one is not None and "seed" not in one.options for one in sizes.values())


def test_what_was_kept_reads_back_from_run_json_as_it_was(tmp_path: Path) -> None:
    kept = scenario(tmp_path, "{a: {endpoint: 'http://h:1', model: m, gpu: h200, gpus: 2, price_per_hour: 3}}")
    described = json.loads(msgspec.json.encode({"served": kept}))
    assert stored(described) == kept
    assert stored({}) == Serving()


@pytest.mark.parametrize(
    "damaged",
    [
        {"v": "x"},
        {"cells": []},
        {"cells": {"c": {"concurrency": 1, "prompts": "", "random": False, "targets": {"t": 9}}}},
    ],
)
def test_a_record_that_was_damaged_is_a_sentence(damaged: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"run\.json: served: "):
        stored({"served": damaged})


@pytest.mark.parametrize(
    "size", [{"num_hidden_layers": 10**9}, {"hidden_size": 10**200}, {"text_config": {"x": 10**99}}]
)
def test_a_config_with_sizes_that_no_model_has_is_not_computed(size: dict[str, Any]) -> None:
    stand = footing(one_target(config=QWEN2_57B | size), machine(H200), "c", "t", None)
    assert stand.shape is None
    assert "no model has" in stand.why[0]


def test_the_config_is_looked_for_where_the_target_says_then_in_its_folder_then_in_the_hubs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(place: str, name: str) -> None:
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"name": name}))

    put("named.json", "named")
    put("folder/config.json", "folder")
    put("hub/models--org--m/snapshots/abc/config.json", "hub")
    (tmp_path / "hub/models--org--m/refs").mkdir()
    (tmp_path / "hub/models--org--m/refs/main").write_text("abc\n")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    launched = {"engine": "vllm", "endpoint": None}

    def found(**words: Any) -> object:
        return (read_config(target(**words), tmp_path) or {}).get("name")

    assert found(config="named.json", model="./folder") == "named"
    assert found(model="./folder") == found(config="folder") == "folder"
    assert found(model="org/m", **launched) == "hub"
    assert found(model="org/m") is None, "nobody knows that a server which exists has this machine's copy"
    assert found(model="org/m", options={"hub": "modelscope"}, **launched) is None
    assert found(model="org/other", **launched) is None
    assert found(model="./nowhere", **launched) is None


@pytest.mark.parametrize("text", ["", "[1]", "{", "\x00", "[" * 100_000, '"' + "x" * LONGEST_CONFIG + '"'])
def test_a_config_that_is_none_is_left_out(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert read_config(target(config="config.json"), tmp_path) is None


def test_a_config_that_is_named_must_be_one_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"targets\.a\.config: .*there is no such file"):
        check_target(tmp_path, "a", target(config="no.json"))
    (tmp_path / "c.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(UsageError, match="mamba"):
        check_target(tmp_path, "a", target(config="c.json"))


def test_what_only_the_report_reads_starts_no_server_anew() -> None:
    plain = target(engine="hf", endpoint=None)
    told = target(engine="hf", endpoint=None, gpu="h200", gpus=1, bandwidth_gb_s=1, price_per_hour=2, config="c.json")
    assert launch_key("a", plain) == launch_key("a", told)


@pytest.mark.parametrize(
    ("words", "gpus", "count"),
    [
        ({}, [H200], 1),
        ({}, [H200, H200], None),
        ({}, [], None),
        ({"devices": (0, 1)}, [H200] * 4, 2),
        ({"options": {"tensor_parallel": 2, "pipeline_parallel": 2, "data_parallel": "2"}}, [H200] * 8, 8),
        ({"options": {"tensor_parallel": 1}}, [H200, H200], 1),
        ({"options": {"tensor_parallel": 2}}, [], None),
        ({"options": {"tensor_parallel": 2}, "gpu": "mi300x"}, [], 2),
        ({"gpus": 3, "options": {"tensor_parallel": 2}}, [H200], 3),
        ({"launched": False}, [H200], None),
        ({"launched": False, "gpu": "h100"}, [], 1),
        ({"options": {"tensor_parallel": "auto"}}, [H200], 1),
    ],
)
def test_gpus_are_counted_by_the_word_the_options_the_devices_or_the_machine(
    words: dict[str, Any], gpus: list[dict[str, Any]], count: int | None
) -> None:
    assert Served(name="m", **words).gpu_count(gpus) == count


# -- precision ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "config", "name"),
    [
        ({}, {}, "bf16"),
        ({"quantization": "none"}, {}, "bf16"),
        ({"quantization": "fp8"}, {}, "fp8"),
        ({"quantization": "awq_marlin"}, {}, "int4"),
        ({"quantization": "gptq"}, {"quantization_config": {"quant_method": "gptq", "bits": 8}}, "int8"),
        ({"dtype": "float32"}, {}, "float32"),
    ],
)
def test_the_precision_is_the_configs_or_what_the_engine_was_told(
    options: dict[str, Any], config: dict[str, Any], name: str
) -> None:
    stand = footing(one_target(config=QWEN15_32B | config, options=options), machine(H200), "c", "t", None)
    assert (stand.precision, stand.why) == (name, ())


def test_a_kv_cache_in_8_bits_takes_half() -> None:
    def kv(dtype: str) -> int:
        shape = footing(one_target(options={"kv_dtype": dtype}), machine(H200), "c", "t", None).shape
        assert shape is not None
        return shape.kv_bytes_per_token()

    assert kv("auto") == kv("bfloat16") == 2 * kv("fp8_e4m3") == 4 * kv("q4_0")


# -- rates by what they took ----------------------------------------------------------------------------------------


def by_what(serving: Serving, *results: Result | None, run: dict[str, Any] | None = None) -> Normalised:
    return normalised(serving, run or machine(H200), "c", "t", results)


def test_rates_are_divided_by_what_they_took() -> None:
    shape = shape_of(QWEN2_57B, "m")
    kept = one_target(config=QWEN2_57B, gpus=2, price_per_hour=7.2)
    found = by_what(kept, result(output_tok_s=90.0), result(output_tok_s=110.0), None)
    assert (found.output_tok_s, found.tok_s_per_gpu) == (100, 50)
    assert found.tok_s_per_b == pytest.approx(100 / (shape.total / 1e9))
    assert found.tok_s_per_active_b == pytest.approx(100 / (shape.active / 1e9))
    assert found.tok_s_per_weight_gb == pytest.approx(100 / (shape.total * 2 / 1e9))
    assert found.tok_per_price == pytest.approx(50_000)
    assert found.cost_per_mtok == pytest.approx(20)
    assert found.tok_per_j is None


def test_energy_is_of_the_repeats_that_have_it() -> None:
    found = by_what(one_target(), result(output_tok_s=100.0, energy_j=500.0), result(output_tok_s=100.0))
    assert (found.energy_j, found.tok_per_j) == (500, 2), "windows of 10 s"


def test_what_nobody_knows_is_null_and_never_0() -> None:
    found = by_what(one_target(config=None, launched=False), result(output_tok_s=100.0))
    unknown = {name: value for name, value in msgspec.structs.asdict(found).items() if value is None}
    assert set(unknown) == set(Normalised.__struct_fields__) - {"cell", "target", "output_tok_s"}
    priced = by_what(one_target(price_per_hour=1.0), result(output_tok_s=None))
    assert (priced.cost_per_mtok, priced.tok_per_price, priced.tok_s_per_gpu) == (None, None, None)


# -- mixtures -------------------------------------------------------------------------------------------------------


def mixture(random: bool = False, **moe: Any) -> Mixture:
    (found,) = mixtures(two_models((1, 4), random, **moe), machine(), ["concurrency=1", "concurrency=4"])
    return found


def test_only_the_mixture_is_one_and_says_what_it_was_asked() -> None:
    found = mixture()
    assert found.sentence == ("moe chooses 8 of 64 experts a token: natural prompts, the weights of its checkpoint.")
    assert found.doubt is None


def test_random_tokens_and_random_weights_are_doubts_of_what_is_said_of_a_mixture() -> None:
    both = mixture(random=True, weights="load_format: dummy")
    assert both.doubt is not None
    assert "random token ids and random weights" in both.doubt.text
    assert "random weights (load_format: dummy)" in both.sentence
    unknown = mixture(random=True, weights=None, launched=False)
    assert "weights that nobody here knows" in unknown.sentence
    assert unknown.doubt is not None
    assert "random token ids" in unknown.doubt.text
    assert "weights" not in unknown.doubt.text


def test_all_yardsticks_lie_in_the_same_order_so_that_they_can_be_read_together() -> None:
    cells = {
        name: MeasuredCell(axes={}, targets={one: [result(output_tok_s=1.0)] for one in ("dense", "moe")})
        for name in ("concurrency=1", "concurrency=4")
    }
    found = yardsticks(machine(H200) | {"served": two_models((1, 4), random=True)}, cells, [])
    assert list(found.facts()) == [(one.cell, one.target) for one in found.normalised.cells]
    assert found.facts()["concurrency=4", "moe"]["routing"] == found.mixtures[0].doubt
    assert found.facts()["concurrency=4", "dense"] == {"gpus": 1, "doubts": (), "routing": None}


# -- a whole run ----------------------------------------------------------------------------------------------------


def test_a_report_elsewhere_has_the_floors_of_the_run(tmp_path: Path) -> None:
    """run.json alone says what was served: the config is gone when the report is made again."""
    config = tmp_path / "moe.json"
    config.write_text(json.dumps(QWEN2_57B))
    with FakeServer(ttft_ms=60, gap_ms=15) as server:
        path = write_scenario(
            tmp_path,
            f"targets: {{a: {{endpoint: '{server.url}', model: m, config: moe.json, gpu: h200}}}}\n"
            "workload: {prompts: natural, output: {exact: 12}}\n"
            "load: {concurrency: 1, warmup_s: 0, requests: 1}\nrepeats: 1\n",
        )
        done = loadgen(tmp_path, "run", str(path))
    assert done.good, done.err
    assert "Against the floor (1 x H200 SXM, bf16)" in done.out
    config.unlink()
    again = loadgen(tmp_path, "report", "last", "--format", "json")
    (cell,) = json.loads(again.out)["floors"]["cells"]
    assert cell["experts"]
    assert cell["decode"]["floor_s"] == pytest.approx(5.7e-3, rel=0.02), "27.4 GB of active weights at 4.8 TB/s"
    assert cell["decode"]["measured_s"] >= 0.010  # a first token that was late makes the rest look quicker
    assert 0 < cell["limit_share"] < 1
