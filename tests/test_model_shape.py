"""Sizes of models from their config.json: published totals, transformers' own count, bad configs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_configs import QWEN2_57B, RELEASED, deepseek, dense, gpt_oss, mixtral, qwen_moe

from loadgen.errors import UsageError
from loadgen.shapes.model_config import FAMILIES, read_shape, shape_of
from loadgen.shapes.model_shape import Experts, ModelShape
from loadgen.shapes.precision import PRECISIONS

SAME = None
"""A dense model: all of its parameters are active."""

PUBLISHED = [
    # name, total, active, active without the input embedding (10**9), bytes of KV cache a token
    ("Qwen1.5-7B", 7.721, SAME, 7.10, 524288),
    ("Qwen1.5-14B", 14.167, SAME, 13.39, 819200),
    ("Qwen1.5-32B", 32.512, SAME, 31.73, 262144),
    ("Qwen2-7B", 7.616, SAME, 7.07, 57344),
    ("Qwen2-72B", 72.706, SAME, 71.46, 327680),
    ("Qwen2.5-14B", 14.770, SAME, 13.99, 196608),
    ("Qwen2.5-32B", 32.764, SAME, 31.99, 262144),
    ("Qwen3-8B", 8.191, SAME, 7.57, 147456),
    ("Qwen1.5-MoE-A2.7B", 14.316, 2.689, 2.38, 196608),
    ("Qwen2-57B-A14B", 57.409, 14.249, 13.70, 57344),
    ("Mixtral-8x7B", 46.703, 12.880, 12.75, 131072),
    ("Mixtral-8x22B", 140.630, 39.161, 38.96, 229376),
    ("Qwen3-30B-A3B", 30.532, 3.353, 3.04, 98304),
    ("Qwen3-235B-A22B", 235.094, 22.191, 21.57, 192512),
    ("DeepSeek-V2-Lite", 15.706, 2.661, 2.45, 31104),
    ("DeepSeek-V2", 235.741, 21.376, 20.85, 69120),
    ("DeepSeek-V3", 671.026, 37.552, 36.63, 70272),
    ("gpt-oss-20b", 20.915, 4.187, 3.61, 49152),
    ("gpt-oss-120b", 116.829, 5.712, 5.13, 73728),
    # The next are tied or of the one family that is left: the embedding is the output matrix, and is read as such.
    ("Llama-3.1-8B", 8.030, SAME, 7.50, 131072),
    ("Llama-3.2-1B", 1.236, SAME, 1.24, 32768),
    ("Qwen2.5-0.5B", 0.494, SAME, 0.49, 12288),
]

SMALL: dict[str, dict[str, Any]] = {
    "llama": dense("llama", 160, (3, 64, 4, 2, 96), attention_bias=True, mlp_bias=True),
    "qwen2": dense("qwen2", 160, (3, 64, 4, 2, 96), tie_word_embeddings=True),
    "qwen2_moe": qwen_moe("qwen2_moe", (4, 64, 4, 2, 96), (6, 2, 32), shared_expert_intermediate_size=48)
    | {"decoder_sparse_step": 2},
    "qwen3": dense("qwen3", 160, (3, 64, 4, 2, 96), head_dim=32),
    "qwen3_moe": qwen_moe("qwen3_moe", (4, 64, 4, 2, 96), (6, 2, 32), head_dim=32) | {"mlp_only_layers": [1]},
    "mixtral": mixtral(160, (3, 64, 4, 2, 96)),
    "deepseek_v2": deepseek("deepseek_v2", 160, (3, 64, 4, 96), (6, 2, 32, 2, 1), None),
    "deepseek_v3": deepseek("deepseek_v3", 160, (4, 64, 4, 96), (8, 2, 32, 1, 2), 24) | {"n_group": 2, "topk_group": 1},
    "gpt_oss": gpt_oss(3, 6) | {"hidden_size": 64, "intermediate_size": 64},
}


def shape(name: str) -> ModelShape:
    return shape_of(RELEASED[name], name)


@pytest.mark.parametrize(("name", "total", "active", "read", "kv"), PUBLISHED)
def test_the_counts_of_released_models_come_out(
    name: str, total: float, active: float | None, read: float, kv: int
) -> None:
    model = shape(name)
    assert round(model.total / 1e9, 3) == total
    assert round(model.active / 1e9, 3) == (total if active is None else active)
    assert round(model.active_without_embedding / 1e9, 2) == read
    assert model.kv_bytes_per_token() == kv


def test_every_known_architecture_is_held_against_transformers() -> None:
    assert set(SMALL) == set(FAMILIES)


@pytest.mark.parametrize("kind", SMALL)
def test_the_total_is_what_transformers_builds_and_its_own_way_of_saving_reads_the_same(kind: str) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(**SMALL[kind])
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    built = sum(parameter.numel() for parameter in model.parameters())
    assert shape_of(SMALL[kind], kind).total == built
    assert shape_of(json.loads(config.to_json_string(use_diff=False)), kind).total == built


@pytest.mark.parametrize("name", RELEASED)
def test_one_token_reads_its_active_parameters_and_no_more(name: str) -> None:
    model = shape(name)
    assert model.read_bytes(1, PRECISIONS["bf16"]) == pytest.approx(2 * model.active_without_embedding)
    assert model.token_flops() == 2 * model.active_without_embedding
    assert model.weight_bytes(PRECISIONS["bf16"]) == 2 * model.total


@pytest.mark.parametrize(
    ("number", "chosen", "hits"),
    [
        (8, 2, [2, 3.5, 5.5, 7.2, 7.9, 8, 8, 8, 8]),
        (64, 8, [8, 15, 26.5, 42.0, 56.4, 63.1, 64, 64, 64]),
        (60, 4, [4, 7.7, 14.5, 25.5, 40.1, 53.4, 59.3, 60, 60]),
        (128, 8, [8, 15.5, 29.1, 51.6, 82.4, 111.8, 125.9, 128, 128]),
        (256, 8, [8, 15.8, 30.5, 57.4, 102, 163.3, 222.4, 251.6, 255.9]),
        (160, 6, [6, 11.8, 22.7, 42.2, 73.2, 112.9, 146.1, 158.8, 160]),
        (32, 4, [4, 7.5, 13.2, 21, 28.2, 31.6, 32, 32, 32]),
        (128, 4, [4, 7.9, 15.3, 28.7, 51, 81.7, 111.2, 125.8, 128]),
    ],
)
def test_distinct_experts_by_batch_size(number: int, chosen: int, hits: list[float]) -> None:
    found = [experts(number, chosen).hit(2**power) for power in range(9)]
    assert found == pytest.approx(hits, abs=0.0501)


def experts(number: int, chosen: int) -> Experts:
    return Experts(layers=1, number=number, per_token=chosen, linear=1, other=0, shared=0, router=0)


@given(st.integers(1, 512), st.data())
def test_one_token_hits_k_experts_and_many_hit_all(number: int, data: st.DataObject) -> None:
    chosen = data.draw(st.integers(1, number))
    layer = experts(number, chosen)
    assert layer.hit(1) == pytest.approx(chosen)
    assert layer.hit(1e6) == pytest.approx(number)
    tokens = data.draw(st.integers(1, 1000))
    assert chosen - 1e-9 <= layer.hit(tokens) <= layer.hit(tokens + 1) + 1e-9 <= number + 2e-9


@pytest.mark.parametrize("name", RELEASED)
@given(tokens=st.integers(1, 4096))
def test_more_tokens_never_read_fewer_bytes_and_never_more_than_all_weights(name: str, tokens: int) -> None:
    model = shape(name)
    for precision in PRECISIONS.values():
        read = model.read_bytes(tokens, precision)
        assert read <= model.read_bytes(tokens + 1, precision) * (1 + 1e-12)
        assert read <= model.weight_bytes(precision) * (1 + 1e-12)


def test_quantized_weights_keep_embeddings_and_routers_in_16_bits() -> None:
    model, other = shape("Qwen2-57B-A14B"), 0
    other = 2 * 151936 * 3584  # embeddings
    other += 28 * (64 * 3584 + 3584)  # routers and gates
    other += 28 * (2 * 3584 + 3584 + 2 * 512) + 3584  # norms and biases
    linear = model.total - other
    assert model.weight_bytes(PRECISIONS["fp8"]) == linear + 2 * other
    assert model.weight_bytes(PRECISIONS["int4"]) == pytest.approx(linear * (4 + 20 / 128) / 8 + 2 * other)
    assert model.weight_bytes(PRECISIONS["int8"]) == pytest.approx(linear * (8 + 24 / 128) / 8 + 2 * other)


def test_mxfp4_quantizes_the_experts_alone() -> None:
    model = shape("gpt-oss-120b")
    routed = 36 * 128 * 3 * 2880 * 2880
    assert model.weight_bytes(PRECISIONS["mxfp4"]) == routed * 4.25 / 8 + 2 * (model.total - routed)


def test_a_window_bounds_what_half_of_gpt_oss_attends_to() -> None:
    model = shape("gpt-oss-20b")
    assert (model.windowed_layers, model.window) == (12, 128)
    assert model.layer_contexts(1000, 1000) == 12 * 1000 + 12 * 128


@given(st.integers(1, 400), st.integers(0, 300))
def test_the_mean_context_is_that_of_every_step(first: int, more: int) -> None:
    model = shape("gpt-oss-20b")
    contexts = range(first, first + more + 1)
    each = [12 * context + 12 * min(context, 128) for context in contexts]
    assert model.layer_contexts(first, first + more) == pytest.approx(sum(each) / len(each))


def test_a_window_that_is_stated_and_not_used_is_none() -> None:
    fields = RELEASED["Qwen2-7B"] | {"sliding_window": 131072, "max_window_layers": 20}
    assert shape_of(fields | {"use_sliding_window": False}, "m").windowed_layers == 0
    assert shape_of(fields, "m").windowed_layers == 0
    assert shape_of(fields | {"use_sliding_window": True}, "m").windowed_layers == 8


def test_mla_decodes_in_its_latent_cache_and_expands_it_while_prefilling() -> None:
    attention = shape("DeepSeek-V3").attention
    assert attention.kv_values == 576
    assert attention.prefill_flops == 2 * 128 * (192 + 128)
    assert attention.decode_flops == 2 * 128 * (576 + 512)


def test_a_nested_text_config_is_read_and_the_outer_word_on_tying_counts() -> None:
    inner = RELEASED["Qwen2.5-0.5B"] | {"model_type": "qwen2_5_vl_text", "tie_word_embeddings": False}
    outer = {"model_type": "qwen2_5_vl", "text_config": inner, "tie_word_embeddings": True, "vision_config": {}}
    assert shape_of(outer, "m").total == shape("Qwen2.5-0.5B").total
    assert shape_of(outer | {"tie_word_embeddings": False}, "m").total == shape("Qwen2.5-0.5B").total + 151936 * 896


def test_a_new_name_of_a_known_class_is_read_by_the_class() -> None:
    fields = RELEASED["DeepSeek-V3"] | {"model_type": "kimi_k2", "architectures": ["DeepseekV3ForCausalLM"]}
    assert shape_of(fields, "m").total == shape("DeepSeek-V3").total


@pytest.mark.parametrize(
    ("stated", "name", "group"),
    [
        (None, "bf16", None),
        ({"quant_method": "fp8"}, "fp8", None),
        ({"quant_method": "mxfp4"}, "mxfp4", 32),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, "int8", 128),
        ({"quant_method": "awq", "bits": 4, "group_size": 64}, "int4", 64),
        ({"quant_method": "gptq", "bits": 4, "group_size": -1}, "int4", None),
    ],
)
def test_the_precision_is_what_the_config_states(stated: dict[str, Any] | None, name: str, group: int | None) -> None:
    found = shape_of(QWEN2_57B | {"quantization_config": stated}, "m").stored
    assert (found.name, found.group) == (name, group)


def test_a_given_precision_stands_for_an_unknown_one() -> None:
    fields = QWEN2_57B | {"quantization_config": {"quant_method": "aqlm"}}
    assert shape_of(fields, "m", precision=PRECISIONS["int4"]).stored.name == "int4"
    with pytest.raises(UsageError, match=r"quant_method: 'aqlm' is not known.*--dtype \(bf16, fp8"):
        shape_of(fields, "m")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"model_type": "mamba"},
            r"x\.json: model_type: 'mamba' is no architecture .* known are llama, qwen2, .*gpt_oss",
        ),
        ({"model_type": None}, "model_type: None"),
        ({"hidden_size": None}, "hidden_size: missing, and the size of a qwen2_moe model"),
        ({"hidden_size": "3584"}, "hidden_size: '3584': a whole number of 1 or more"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: 0"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers: 1000000000000: 10000 at most"),
        ({"num_attention_heads": True}, "num_attention_heads: True"),
        ({"num_experts_per_tok": 65}, "num_experts_per_tok: 65 of 64 experts"),
        ({"moe_intermediate_size": None}, "moe_intermediate_size: missing"),
    ],
)
def test_what_is_wrong_with_a_config_is_a_sentence(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        shape_of(QWEN2_57B | change, "m", place="x.json")


def test_the_head_size_of_a_family_that_departs_from_the_quotient_is_asked_for() -> None:
    fields = {key: value for key, value in RELEASED["Qwen3-8B"].items() if key != "head_dim"}
    with pytest.raises(UsageError, match="head_dim: missing"):
        shape_of(fields, "m")


def test_a_folder_a_config_and_another_json_file_name_their_model(tmp_path: Path) -> None:
    folder = tmp_path / "Qwen2-57B"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(QWEN2_57B))
    (tmp_path / "shape.json").write_text(json.dumps(QWEN2_57B))
    assert read_shape(folder).name == read_shape(folder / "config.json").name == "Qwen2-57B"
    assert read_shape(tmp_path / "shape.json").name == "shape"


@pytest.mark.parametrize(("text", "words"), [("[]", "no JSON object"), ("{", "cannot be read as JSON")])
def test_a_file_that_is_no_config_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=rf"x\.json.*{words}"):
        read_shape(path)
    with pytest.raises(UsageError, match=r"nowhere.*there is no such file"):
        read_shape(tmp_path / "nowhere")


def test_the_shapes_that_come_with_loadgen_are_those_of_the_released_models() -> None:
    folder = Path(__file__).parents[1] / "scenarios/models"
    assert read_shape(folder / "qwen1.5-32b.json").total == shape("Qwen1.5-32B").total
    assert read_shape(folder / "qwen2-57b-a14b.json").total == shape("Qwen2-57B-A14B").total
