"""Measured against the floor: shares are those of the roofline; what is left open, and what is a doubt of its own."""

from __future__ import annotations

from typing import Any

import pytest
from made_results import H200, machine, one_target, result, two_models
from model_configs import QWEN2_57B, QWEN15_32B

from loadgen.limits.floor import AgainstFloor, Floors, MeasuredCell, floors
from loadgen.limits.served import Serving
from loadgen.repeat import Result
from loadgen.shapes.model_config import shape_of
from loadgen.shapes.roofline import GPUS, Roofline, crossings
from loadgen.telemetry.prometheus import Seen


def roofline(config: dict[str, Any] = QWEN15_32B, gpus: int = 1) -> Roofline:
    return Roofline(shape=shape_of(config, "m"), gpu=GPUS["h200"], gpus=gpus, input_tokens=1000, output_tokens=100)


def repeat(tpot_s: float = 0.02, ttft_s: float = 0.1, rate: float = 50.0, **more: Any) -> Result:
    return result(in_tok=1000, out_tok=100, tpot_s=tpot_s, ttft_s=ttft_s, output_tok_s=rate, **more)


def held(serving: Serving, *results: Result | None, run: dict[str, Any] | None = None) -> AgainstFloor:
    cells = {"c": MeasuredCell(axes={}, targets={"t": results})}
    return floors(serving, run or machine(H200), cells).cells[0]


def test_shares_are_the_floor_over_what_was_measured() -> None:
    found, one = held(one_target(), repeat(tpot_s=0.02), repeat(tpot_s=0.03)), roofline()
    assert found.decode is not None
    assert found.decode.measured_s == pytest.approx(0.025)
    assert found.decode.floor_s == one.decode(1).seconds
    assert found.decode.bandwidth_share == pytest.approx(one.decode(1).bandwidth_s / 0.025)
    assert found.decode.compute_share == pytest.approx(one.decode(1).compute_s / 0.025)
    assert found.prefill is not None
    assert found.prefill.bound == "compute"
    assert found.prefill.compute_share == pytest.approx(one.prefill(1).compute_s / 0.1)
    assert found.limit_share == pytest.approx(50 / one.limit_tok_s(1))
    assert found.predicted_tok_s == one.output_tok_s(1)
    assert (found.gpu, found.gpus, found.precision, found.doubts) == ("H200 SXM", 1, "bf16", ())


def test_the_batch_is_what_the_server_says_it_ran_and_its_absence_is_named() -> None:
    said = held(one_target(16), repeat(seen=Seen(batch_seen=12.5)))
    assert (said.batch, said.batch_source) == (12.5, "server")
    assert said.decode is not None
    assert said.decode.floor_s == roofline().decode(12.5).seconds
    assert said.limit_tok_s == roofline().limit_tok_s(16), "at no time were more than 16 in flight"
    silent = held(one_target(16), repeat(seen=Seen(batch_seen=12.5)), repeat())
    assert (silent.batch, silent.batch_source) == (16, "concurrency")
    free = held(one_target(None), repeat(in_flight=7.5))
    assert (free.batch, free.batch_source, free.limit_tok_s) == (7.5, "in flight", None)


def test_prefill_is_held_against_ttft_at_concurrency_1_alone() -> None:
    assert held(one_target(1), repeat()).prefill is not None
    assert held(one_target(2), repeat()).prefill is None


def test_repeats_that_are_invalid_or_missing_are_no_part_of_it() -> None:
    found = held(one_target(), None, repeat(tpot_s=0.001, state="invalid"), repeat(tpot_s=0.02))
    assert found.decode is not None
    assert found.decode.measured_s == 0.02
    nothing = held(one_target(), None)
    assert nothing.decode is None
    assert nothing.batch is None


@pytest.mark.parametrize(
    ("fast", "said"),
    [
        ({"tpot_s": 0.001}, f"TPOT 1 ms, floor {roofline().decode(1).seconds * 1e3:.3g} ms"),
        ({"ttft_s": 0.001}, f"TTFT 1 ms, floor {roofline().prefill(1).seconds * 1e3:.3g} ms"),
        ({"rate": 500.0}, f"500 output tok/s, limit {roofline().limit_tok_s(1):.4g}"),
    ],
)
def test_faster_than_the_floor_is_a_doubt_with_both_numbers(fast: dict[str, float], said: str) -> None:
    found = held(one_target(), repeat(**fast))
    assert [doubt.code for doubt in found.doubts] == ["faster_than_floor"]
    assert said in found.doubts[0].text
    assert "shared prefix" in found.doubts[0].text


def test_where_the_server_does_not_say_its_batch_only_a_step_of_one_sequence_is_a_floor() -> None:
    """The server may have run fewer at once than the client held in flight, and then its steps are shorter."""
    one, many = roofline().decode(1).seconds, roofline().decode(256).seconds
    between = (one + many) / 2
    assert held(one_target(256), repeat(tpot_s=between)).doubts == ()
    assert held(one_target(256), repeat(tpot_s=between, seen=Seen(batch_seen=256))).doubts != ()
    assert held(one_target(256), repeat(tpot_s=one * 0.9)).doubts != ()


def test_a_warm_prefix_cache_leaves_prefill_and_throughput_without_a_floor() -> None:
    found = held(one_target(), repeat(ttft_s=0.001, rate=500.0, cached_share=0.5))
    assert (found.prefill, found.limit_tok_s, found.doubts) == (None, None, ())
    assert found.decode is not None
    assert "prefix cache" in found.why[0]
    by_page = held(one_target(), repeat(rate=500.0, seen=Seen(prompt_tokens=100, cached_tokens=50)))
    assert by_page.limit_tok_s is None


def test_speculative_decoding_leaves_a_step_without_a_floor() -> None:
    found = held(one_target(options={"speculative": {"method": "ngram"}}), repeat(tpot_s=0.001))
    assert (found.decode, found.limit_tok_s, found.doubts) == (None, None, ())
    assert "speculative" in found.why[0]


def test_tensor_parallel_gpus_share_a_step_and_replicas_share_the_batch() -> None:
    split = held(one_target(8, options={"tensor_parallel": 2}), repeat(), run=machine(H200, H200))
    assert split.decode is not None
    assert split.decode.floor_s == roofline(gpus=2).decode(8).seconds
    copies = held(one_target(8, options={"data_parallel": 2}), repeat(), run=machine(H200, H200))
    assert copies.gpus == 2
    assert copies.decode is not None
    assert copies.decode.floor_s == roofline().decode(4).seconds
    assert copies.limit_tok_s == 2 * roofline().limit_tok_s(4)
    spread = held(
        one_target(8, options={"data_parallel": 2, "expert_parallel": True}), repeat(), run=machine(H200, H200)
    )
    assert spread.decode is not None
    assert spread.decode.floor_s == roofline(gpus=2).decode(8).seconds, "experts on all GPUs are held once"
    alone = held(one_target(1, options={"data_parallel": 2}), repeat(), run=machine(H200, H200))
    assert alone.limit_tok_s == roofline().limit_tok_s(1), "one request keeps one replica busy"


def test_a_bandwidth_alone_gives_shares_of_it_and_of_no_operations() -> None:
    found = held(one_target(bandwidth_gb_s=20.0), repeat(tpot_s=10.0, ttft_s=10.0), run=machine())
    assert found.decode is not None
    assert found.decode.bandwidth_share == pytest.approx(roofline().decode(1).bytes / 20e9 / 10)
    assert found.decode.compute_share is None
    assert found.gpus is None


def test_values_of_four_bytes_take_twice_the_time() -> None:
    narrow = held(one_target(bandwidth_gb_s=20.0), repeat(), run=machine())
    told = held(one_target(bandwidth_gb_s=20.0, options={"dtype": "float32"}), repeat(), run=machine())
    servers = {"t-1": {"target": "t", "facts": {"dtype": "float32"}}}
    said = held(one_target(bandwidth_gb_s=20.0), repeat(), run=machine(servers=servers))
    assert narrow.decode is not None
    for wide in (told, said):
        assert wide.decode is not None
        assert wide.decode.floor_s == 2 * narrow.decode.floor_s
        assert wide.precision == "float32"


@pytest.mark.parametrize(
    ("serving", "run", "why"),
    [
        (one_target(config=None), machine(H200), "targets.t.config"),
        (one_target(), machine(), "runs on no GPU"),
        (one_target(), machine(H200 | {"name": "NVIDIA H200 NVL"}), "NVIDIA H200 NVL are not known"),
        (one_target(), machine(H200, H200 | {"name": "NVIDIA L40S"}), "targets.t.gpu"),
        (one_target(launched=False), machine(H200), "nobody knows what t runs on"),
        (one_target(config={"model_type": "mamba"}), machine(H200), "mamba"),
        (one_target(options={"quantization": "gguf"}), machine(H200), "'gguf'"),
        (Serving(), machine(H200), "kept nothing"),
    ],
)
def test_what_is_missing_for_a_floor_is_said(serving: Serving, run: dict[str, Any], why: str) -> None:
    found = held(serving, repeat(), run=run)
    assert (found.decode, found.prefill, found.limit_tok_s, found.predicted_tok_s) == (None, None, None, None)
    assert any(why in reason for reason in found.why)


def test_devices_choose_among_the_gpus_of_a_machine() -> None:
    both = machine(H200, H200 | {"name": "NVIDIA L40S", "uuid": "GPU-1"})
    assert held(one_target(devices=(0,)), repeat(), run=both).gpu == "H200 SXM"
    assert held(one_target(devices=("GPU-1",)), repeat(), run=both).gpu == "L40S"
    assert held(one_target(devices=(0, 1)), repeat(), run=both).gpu is None


def test_an_endpoint_that_names_its_gpu_has_a_floor() -> None:
    found = held(one_target(launched=False, gpu="h100", gpus=4), repeat(), run=machine(H200))
    assert (found.gpu, found.gpus) == ("H100 SXM", 4)
    assert found.decode is not None


def compared(sizes: tuple[int, ...], rates: tuple[float, ...] = (), **lengths: float) -> Floors:
    cells = {
        f"concurrency={size}": MeasuredCell(
            axes={"concurrency": size},
            targets={name: [result(**({"in_tok": 1000, "out_tok": 100} | lengths))] for name in ("dense", "moe")},
        )
        for size in sizes
    }
    return floors(two_models(sizes), machine(H200), cells, [("dense", "moe")])


def test_the_predicted_crossing_is_the_rooflines_own() -> None:
    (found,) = compared((1, 4, 16, 64)).predicted
    whole = [one for one in crossings(roofline(), roofline(QWEN2_57B), (1, 64)) if one.measure == "whole request"]
    assert found.crossings == tuple((one.at, one.direction) for one in whole)
    assert (found.first, found.last, found.at_first) == (1, 64, pytest.approx(2.3, abs=0.3))
    assert "moe" in found.sentence
    assert "batch size 1" in found.sentence


def test_a_crossing_is_predicted_with_its_place() -> None:
    (found,) = compared((1, 256), in_tok=64, out_tok=512).predicted
    assert [direction for _, direction in found.crossings] == ["falls behind"]
    assert f"falls behind at {found.crossings[0][0]:.3g}" in found.sentence


def test_one_concurrency_or_an_unknown_model_predicts_nothing() -> None:
    assert compared((4,)).predicted == ()
    cells = {"c": MeasuredCell(axes={}, targets={"t": [repeat()]})}
    assert floors(one_target(), machine(), cells, [("t", "t")]).predicted == ()


def test_a_run_that_kept_nothing_has_no_floors_and_says_so() -> None:
    cells = {"c": MeasuredCell(axes={}, targets={"t": [repeat()]})}
    found = floors(Serving(), machine(H200), cells, [("t", "t")])
    assert [cell.decode for cell in found.cells] == [None]
