"""Floors computed by hand, the worked examples of the specification, and crossings with their directions."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_configs import QWEN2_57B, QWEN15_32B, RELEASED, dense

from loadgen.errors import UsageError
from loadgen.shapes.model_config import shape_of
from loadgen.shapes.precision import PRECISIONS
from loadgen.shapes.roofline import GPUS, MEASURES, Gpu, Roofline, crossings, gain, gpu

ROUND = Gpu(name="round", memory_bytes=10_000, bandwidth_b_s=1000, bf16_flop_s=2000, fp8_flop_s=None)
TINY = dense("llama", 16, (1, 4, 2, 1, 8))
"""By hand: attention 16 + 16 + 16 weights, MLP 96, norms 12, output matrix 64: 220 are multiplied, and 64 looked up.
A token has 4 numbers of KV cache and takes 16 operations for every token that it attends to."""


def tiny(input_tokens: int = 10, output_tokens: int = 3, gpus: int = 1) -> Roofline:
    shape = shape_of(TINY, "tiny")
    return Roofline(shape=shape, gpu=ROUND, gpus=gpus, input_tokens=input_tokens, output_tokens=output_tokens)


def on_h200(fields: dict[str, Any], input_tokens: int = 1000, output_tokens: int = 100) -> Roofline:
    shape = shape_of(fields, "m")
    return Roofline(shape=shape, gpu=GPUS["h200"], gpus=1, input_tokens=input_tokens, output_tokens=output_tokens)


def test_a_decode_step_is_as_computed_by_hand() -> None:
    step = tiny().decode(2)  # contexts of 11 and 12 tokens
    assert step.bytes == 2 * 220 + 2 * 11.5 * 4 * 2
    assert step.flops == 2 * (2 * 220 + 11.5 * 16)
    assert (step.bandwidth_s, step.compute_s) == (0.624, 0.624)
    assert step.seconds == 0.624


def test_a_prefill_is_as_computed_by_hand() -> None:
    prefill = tiny().prefill(2)
    assert prefill.bytes == 2 * 220 + 20 * 4 * 2
    # The body for every token, the output matrix once a prompt, and 1 + 2 + ... + 10 tokens attended to.
    assert prefill.flops == 20 * 2 * (220 - 64) + 2 * (2 * 64 + 55 * 16)
    assert prefill.compute_s == pytest.approx(8256 / 2000)
    assert prefill.bound == "compute"


def test_tokens_a_second_are_those_of_prefill_and_steps_in_a_row() -> None:
    one = tiny()
    assert one.request_s(2) == pytest.approx(4.128 + 2 * 0.624)
    assert one.output_tok_s(2) == pytest.approx(2 * 3 / (4.128 + 2 * 0.624))


def test_the_limit_hides_one_phase_behind_the_other() -> None:
    one = tiny()
    assert one.prefill(1).compute_s == pytest.approx(2.064)
    assert one.decode(1).bandwidth_s == pytest.approx(0.532)
    assert one.decode(1).compute_s == pytest.approx(0.312)
    assert one.limit_tok_s(1) == pytest.approx(3 / (2.064 + 2 * 0.312))
    assert one.output_tok_s(1) == pytest.approx(3 / (2.064 + 2 * 0.532))


def test_mla_attends_in_its_latent_cache_while_decoding() -> None:
    model = on_h200(RELEASED["DeepSeek-V3"])
    attending = model.decode(1).flops - model.decode_without_context(1).flops
    assert attending == pytest.approx(61 * 1050 * 2 * 128 * (512 + 64 + 512))
    assert model.decode(1).bytes - model.decode_without_context(1).bytes == pytest.approx(1050 * 70272)


def test_a_reply_of_one_token_is_its_prefill() -> None:
    one = tiny(output_tokens=1)
    assert one.request_s(2) == one.prefill(2).seconds
    assert one.decode(2).bytes == 2 * 220 + 2 * 11 * 4 * 2


def test_tensor_parallel_gpus_share_bytes_and_operations_perfectly() -> None:
    assert tiny(gpus=4).decode(2).seconds == tiny().decode(2).seconds / 4
    assert tiny(gpus=4).prefill(2).seconds == tiny().prefill(2).seconds / 4


def test_what_fits_is_whole_requests_beside_all_weights() -> None:
    # 2 * 284 bytes of weights; 13 tokens of 8 bytes a request.
    assert tiny().memory_bytes(3) == 568 + 3 * 13 * 8
    assert tiny().capacity() == (10_000 - 568) // (13 * 8)
    small = msgspec.structs.replace(tiny(), gpu=msgspec.structs.replace(ROUND, memory_bytes=500))
    assert small.capacity() == 0


@pytest.mark.parametrize(
    ("batch", "billions", "ms"), [(1, 13.7, 5.7), (4, 28.0, 11.6), (8, 39.9, 16.6), (64, 56.9, 23.7)]
)
def test_qwen2_57b_reads_what_its_distinct_experts_weigh(batch: int, billions: float, ms: float) -> None:
    step = on_h200(QWEN2_57B).decode_without_context(batch)
    assert step.bytes / 2 / 1e9 == pytest.approx(billions, abs=0.0501)
    assert step.bandwidth_s * 1e3 == pytest.approx(ms, abs=0.0501)


def test_a_dense_model_reads_all_of_its_weights_at_every_batch_size() -> None:
    for batch in (1, 256):
        assert on_h200(QWEN15_32B).decode_without_context(batch).bandwidth_s * 1e3 == pytest.approx(13.2, abs=0.0501)
        assert on_h200(RELEASED["Qwen2-7B"]).decode_without_context(batch).bandwidth_s * 1e3 == pytest.approx(
            2.9, abs=0.0501
        )


def test_operations_of_a_batch_of_256() -> None:
    assert on_h200(QWEN2_57B).decode_without_context(256).compute_s * 1e3 == pytest.approx(7.1, abs=0.0501)
    assert on_h200(QWEN15_32B).decode_without_context(256).compute_s * 1e3 == pytest.approx(16.4, abs=0.0501)


def test_without_context_a_dense_model_changes_its_bound_at_the_ridge_and_a_sparse_one_later() -> None:
    model = on_h200(QWEN15_32B)
    ridge = 989.4e12 / 4.8e12
    assert model.compute_bound_from(model.decode_without_context) == 207 == int(ridge) + 1
    sparse = on_h200(RELEASED["Mixtral-8x7B"])
    found = sparse.compute_bound_from(sparse.decode_without_context)
    assert found is not None
    assert ridge * 3 < found < ridge * 8 / 2  # E / k = 4 for the experts, 1 for attention and the output matrix


def test_kv_cache_can_keep_a_model_bound_by_bandwidth_for_ever() -> None:
    model = on_h200(RELEASED["Qwen1.5-7B"], input_tokens=8000)
    assert model.compute_bound_from(model.decode) is None
    assert model.compute_bound_from(model.decode_without_context) == 207


@pytest.mark.parametrize("name", ["Qwen1.5-32B", "Qwen2-57B-A14B", "DeepSeek-V3", "gpt-oss-120b"])
def test_the_bound_changes_where_it_is_said_to(name: str) -> None:
    model = on_h200(RELEASED[name], input_tokens=64, output_tokens=512)
    found = model.compute_bound_from(model.decode)
    assert found is not None
    assert model.decode(found - 1).bound == "bandwidth"
    assert model.decode(found).bound == "compute"


def test_the_moe_wins_at_1_loses_in_the_middle_and_wins_again_with_short_contexts() -> None:
    both = on_h200(QWEN15_32B, 64, 512), on_h200(QWEN2_57B, 64, 512)
    found = [one for one in crossings(*both, [1, 448]) if one.measure == "decode step"]
    assert [one.direction for one in found] == ["falls behind", "overtakes"]
    assert found[0].at == pytest.approx(5.1, abs=0.05)
    assert found[1].at == pytest.approx(390, abs=0.5)
    assert both[0].decode(390).bound == "compute"
    assert both[1].decode(390).bound == "bandwidth"


def test_weights_alone_favour_the_moe_up_to_batch_size_5() -> None:
    dense_model, moe = on_h200(QWEN15_32B), on_h200(QWEN2_57B)
    gains = [
        dense_model.decode_without_context(batch).seconds / moe.decode_without_context(batch).seconds
        for batch in (5, 6, 64)
    ]
    assert gains[0] > 1 > gains[1]
    assert 1 / gains[2] == pytest.approx(1.8, abs=0.0501)


@pytest.mark.parametrize("lengths", [(1000, 100), (64, 512), (1, 2048), (8000, 1)])
def test_every_crossing_lies_between_the_sides_that_it_names(lengths: tuple[int, int]) -> None:
    both = on_h200(QWEN15_32B, *lengths), on_h200(QWEN2_57B, *lengths)
    found = list(crossings(*both, [1, 1024]))
    for one in found:
        sides = gain(*both, one.measure, one.at * 0.999) > 1, gain(*both, one.measure, one.at * 1.001) > 1
        assert sides == ((True, False) if one.direction == "falls behind" else (False, True))
    for measure in MEASURES:
        changes = [one.direction for one in found if one.measure == measure]
        ends = gain(*both, measure, 1) > 1, gain(*both, measure, 1024) > 1
        assert (len(changes) % 2 == 1) == (ends[0] != ends[1])


def test_the_other_way_round_the_same_crossings_have_the_other_direction() -> None:
    both = on_h200(QWEN15_32B), on_h200(QWEN2_57B)
    there, back = list(crossings(*both, [1, 256])), list(crossings(*both[::-1], [1, 256]))
    assert [one.at for one in there] == pytest.approx([one.at for one in back])
    turned = {"falls behind": "overtakes", "overtakes": "falls behind"}
    assert [turned[one.direction] for one in there] == [one.direction for one in back]


def test_a_model_does_not_cross_itself() -> None:
    assert list(crossings(on_h200(QWEN2_57B), on_h200(QWEN2_57B), [1, 512])) == []
    assert list(crossings(on_h200(QWEN2_57B), on_h200(QWEN15_32B), [4])) == []


def test_a_dense_model_of_a_tenth_of_the_weights_is_never_overtaken() -> None:
    small, large = on_h200(RELEASED["Qwen2-7B"]), on_h200(RELEASED["Qwen2-72B"])
    assert list(crossings(large, small, [1, 4096])) == []
    assert gain(large, small, "decode step", 1) > 9


@pytest.mark.parametrize("name", ["Qwen1.5-32B", "Qwen2-57B-A14B", "DeepSeek-V2", "gpt-oss-20b"])
@given(batch=st.integers(1, 2000), input_tokens=st.integers(1, 30000), output_tokens=st.integers(1, 3000))
def test_floors_grow_with_the_batch_and_no_schedule_passes_the_limit(
    name: str, batch: int, input_tokens: int, output_tokens: int
) -> None:
    model = on_h200(RELEASED[name], input_tokens, output_tokens)
    for phase in (model.decode, model.prefill):
        fewer, more = phase(batch), phase(batch + 1)
        assert fewer.bytes <= more.bytes * (1 + 1e-12)
        assert fewer.flops < more.flops
        assert fewer.seconds <= more.seconds * (1 + 1e-12)
    assert model.limit_tok_s(batch) >= model.output_tok_s(batch) * (1 - 1e-12)


@given(st.integers(1, 64), st.integers(1, 300), st.integers(2, 400))
def test_the_mean_step_is_not_longer_than_the_mean_of_the_steps(batch: int, input_tokens: int, output: int) -> None:
    model = on_h200(RELEASED["gpt-oss-20b"], input_tokens, output)
    steps = [on_h200(RELEASED["gpt-oss-20b"], input_tokens + i, 2).decode(batch) for i in range(output - 1)]
    assert model.decode(batch).bytes == pytest.approx(sum(step.bytes for step in steps) / len(steps))
    assert model.decode(batch).seconds <= sum(step.seconds for step in steps) / len(steps) * (1 + 1e-9)


def test_fp8_is_multiplied_in_fp8_where_the_gpu_can() -> None:
    shape = shape_of(QWEN2_57B, "m", precision=PRECISIONS["fp8"])
    on = {
        name: Roofline(shape=shape, gpu=GPUS[name], gpus=1, input_tokens=1, output_tokens=1).peak_flop_s
        for name in ("h200", "a100")
    }
    assert on == {"h200": 1979e12, "a100": 312e12}
    assert on_h200(QWEN2_57B).peak_flop_s == 989.4e12


@pytest.mark.parametrize(
    ("name", "ridge"), [("h200", 206), ("h100", 295), ("a100", 153), ("4090", 164), ("l40s", 419), ("mi300x", 247)]
)
def test_the_peaks_are_dense_ones(name: str, ridge: int) -> None:
    assert round(GPUS[name].bf16_flop_s / GPUS[name].bandwidth_b_s) == ridge


@pytest.mark.parametrize("name", ["H200", "h-200", "RTX 4090", "4090", "MI300X"])
def test_a_gpu_is_found_as_people_write_it(name: str) -> None:
    assert gpu(name) in GPUS.values()


def test_a_measured_bandwidth_stands_for_the_vendors() -> None:
    assert gpu("h200", 4.3e12) == msgspec.structs.replace(GPUS["h200"], bandwidth_b_s=4.3e12)


def test_an_unknown_gpu_is_a_sentence_with_the_list() -> None:
    with pytest.raises(UsageError, match=r"gpu 'h2000': did you mean 'h200'\? There are h200, h100, a100"):
        gpu("h2000")
