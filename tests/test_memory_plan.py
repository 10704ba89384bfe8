"""The memory planner: against published figures row by row, and against arithmetic by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_configs import QWEN2_57B, QWEN15_32B, RELEASED, dense
from msgspec.structs import replace
from published_memory import (
    GIB,
    SLIPS,
    Row,
    by_size_rows,
    gpu_table,
    markdown,
    transformers_rows,
    without_copies,
    without_tables,
    yi_rows,
)

from loadgen.errors import UsageError
from loadgen.shapes.memory_plan import (
    CONTEXT_BYTES,
    MemoryPlan,
    fewest_by_layers,
    fewest_gpus,
    gpu_bytes,
    group_sizes,
    stored_as,
)
from loadgen.shapes.model_config import shape_of

ROOT = Path(__file__).parents[1]
ROWS = transformers_rows()
OUTSIDE = {("Qwen2-72B-Instruct", 30720, "GPTQ-Int4"): -0.136}
"""Rows that do not come within the bound, and by how much they miss it."""

TINY = dense("llama", 10, (2, 8, 4, 2, 16))


def within(row: Row) -> bool:
    """10 % or 0.3 GB."""
    return abs(row.error) <= 0.10 or abs(row.planned - row.published) * GIB <= 0.3e9


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(map(str, row.key)))
def test_a_row_of_transformers_comes_within_10_percent_or_a_third_of_a_gigabyte(row: Row) -> None:
    if row.key in OUTSIDE:
        assert row.error == pytest.approx(OUTSIDE[row.key], abs=0.001)
    else:
        assert within(row), f"{row.planned:.2f} GiB planned, {row.published} published: {row.error:+.1%}"


def test_all_rows_of_the_table_are_held_and_one_is_outside() -> None:
    assert len(ROWS) == 72
    assert {row.key for row in ROWS if not within(row)} == set(OUTSIDE)


def test_rows_on_one_gpu_with_long_prompts_come_within_3_percent() -> None:
    found = [abs(row.error) for row in ROWS if row.plan.gpus == 1 and row.input_tokens >= 6144]
    assert len(found) == 43
    assert max(found) < 0.03


def test_no_pair_of_gptq_and_awq_differs_as_the_row_outside_does() -> None:
    figures = {row.key: row.published for row in ROWS}
    apart = {
        (name, tokens): abs(figures[name, tokens, "GPTQ-Int4"] - figures[name, tokens, "AWQ"])
        for name, tokens, stored in figures
        if stored == "AWQ"
    }
    assert apart.pop(("Qwen2-72B-Instruct", 30720)) == pytest.approx(19.34)
    assert max(apart.values()) < 0.5


def test_rotary_tables_explain_what_tied_embeddings_were_taken_for() -> None:
    """Without them 1.5B, tied, misses by as much as 7B, untied: it is not the embeddings."""
    missing = {row.name: row.published - without_tables(row) for row in ROWS if row.key[1:] == (1, "BF16")}
    assert missing["Qwen2-1.5B-Instruct"] == pytest.approx(28 * 32768 * 128 * 2 * 2 / GIB, abs=0.08)
    assert missing["Qwen2-7B-Instruct"] == pytest.approx(28 * 32768 * 128 * 2 * 2 / GIB, abs=0.2)
    assert missing["Qwen2-0.5B-Instruct"] == pytest.approx(24 * 32768 * 64 * 2 * 2 / GIB, abs=0.05)


def test_rows_on_several_gpus_need_a_copy_of_the_logits_for_every_gpu_but_the_first() -> None:
    found = [row for row in ROWS if row.plan.gpus > 1 and row.input_tokens >= 14336 and row.key not in OUTSIDE]
    assert len(found) == 7
    assert max(abs(row.error) for row in found) < 0.06
    assert all(without_copies(row) / row.published < 0.95 for row in found)
    three = [row for row in found if row.gpus == 3]
    assert max(abs(row.error) for row in three) < 0.01


def test_two_published_numbers_of_gpus_cannot_be() -> None:
    """An A100 of 80 GB has 80 GiB at most; what was published as used is more."""
    assert {row.key for row in ROWS if row.published > row.gpus * 80} == set(SLIPS)


def test_the_fewest_gpus_are_those_that_were_used_but_for_the_slips_and_a_close_one() -> None:
    fewest = {row.key: fewest_by_layers(row.plan, gpu_bytes("a100")) for row in ROWS}
    other = {row.key: fewest[row.key] for row in ROWS if fewest[row.key] != row.gpus}
    # 71.0 GiB were published on two GPUs; one has 74.5, and the planner says 73.4.
    assert other == {**SLIPS, ("Qwen2-72B-Instruct", 1, "GPTQ-Int8"): 1}


def test_memory_by_batch_grows_as_yis_table_does_with_one_length_for_all_rows() -> None:
    rows = list(yi_rows())
    assert len(rows) == 23
    # Published whole GB: the figure is known to half of one.
    wrong = [row.key for row in rows if not within(row) and abs(row.planned - row.published) > 1]
    assert wrong == [("Yi-6B-Chat-8bits", 4, "gptq-int8"), ("Yi-6B-Chat-8bits", 32, "gptq-int8")]


def test_rows_by_size_are_met_but_for_those_that_are_named() -> None:
    rows = list(by_size_rows())
    assert len(rows) == 24
    limits = [row for row in rows if row.name.startswith("<")]
    assert len(limits) == 5
    assert all(row.planned < row.published for row in limits)
    outside = {row.key: round(row.error, 2) for row in rows if row not in limits and not within(row)}
    assert outside == {
        ("Yi-6B-Chat-4bits", 2048, "int4"): 0.13,  # figures of one digit
        ("Qwen2-1.5B-Instruct", 6144, "int8"): -0.11,
        ("Yi-6B-Chat-8bits", 6144, "int8"): 0.11,
        ("Yi-6B-200K", 30720, "bf16"): 0.22,  # less than with all logits, more than with the last
        ("Qwen2-57B-A14B-Instruct", 30720, "bf16"): 0.15,  # the figure of 6144 tokens, copied
        ("Qwen2-72B-Instruct", 30720, "bf16"): -0.18,  # measured on three GPUs, see above
    }


def test_the_tables_of_the_documentation_are_those_of_the_planner() -> None:
    assert markdown() in (ROOT / "docs/memory.md").read_text()


@pytest.mark.parametrize(("name", "gigabytes"), list(gpu_table()))
def test_a_published_gpu_is_known_by_its_name(name: str, gigabytes: int) -> None:
    size = "-40GB" if (name, gigabytes) == ("A100", 40) else ""
    assert gpu_bytes(name + size) == gigabytes * 1e9


def tiny(**words: object) -> MemoryPlan:
    plan = MemoryPlan(shape=shape_of(TINY, "tiny"), input_tokens=10, output_tokens=4)
    return replace(plan, **words)  # type: ignore[arg-type]


def test_every_part_is_as_computed_by_hand() -> None:
    weights = 2 * 2 * 10 * 8  # both embeddings
    weights += 2 * (2 * (2 * 8 * 8 + 2 * 8 * 4) + 2 * 3 * 8 * 16 + (2 * 2 + 1) * 8)
    last = tiny(batch=3).at_peak()
    assert (last.weights, last.tables, last.copies) == (weights, 0, 0)
    assert last.kv == 3 * 10 * 2 * 2 * 2 * 2 * 2  # tokens, layers, keys and values, heads, head size, bytes
    assert (last.activations, last.logits) == (30 * (4 * 8 + 3 * 16 + 2 * 2) * 2, 0)
    every = tiny(shape=shape_of(TINY | {"vocab_size": 1000}, "t"), prompt_logits="all", rotary_positions=7).at_peak()
    assert (every.activations, every.logits) == (0, 10 * 1000 * 6 + 10 * 8 * 2)
    assert every.tables == 2 * 2 * 7 * 2 * 2


def test_a_long_reply_has_its_peak_while_decoding() -> None:
    peak = tiny(output_tokens=1000).at_peak()
    assert peak.kv == 1010 * 32
    assert peak.total < tiny(output_tokens=1001).at_peak().total


def test_steps_bound_what_a_long_prompt_takes_but_not_where_every_logit_is_wanted() -> None:
    whole, steps = tiny(step_tokens=None, input_tokens=1000), tiny(step_tokens=8, input_tokens=1000)
    assert steps.at_peak().total < whole.at_peak().total
    assert tiny(step_tokens=8, input_tokens=1000, prompt_logits="all").at_peak() == (
        tiny(step_tokens=None, input_tokens=1000, prompt_logits="all").at_peak()
    )


def test_kv_heads_are_held_twice_where_there_are_fewer_than_gpus() -> None:
    assert tiny(gpus=2).kv_bytes_per_token == tiny().kv_bytes_per_token
    assert tiny(gpus=4).kv_bytes_per_token == 2 * tiny().kv_bytes_per_token
    assert tiny(gpus=4, split="layers").kv_bytes_per_token == tiny().kv_bytes_per_token
    latent = MemoryPlan(shape=shape_of(RELEASED["DeepSeek-V3"], "v3"), input_tokens=1, output_tokens=1, gpus=8)
    assert latent.kv_bytes_per_token == 8 * 70272


def test_float32_doubles_all_but_the_logits() -> None:
    narrow, wide = tiny().at_peak(), tiny(wide=True).at_peak()
    assert (wide.weights, wide.kv, wide.activations) == (2 * narrow.weights, 2 * narrow.kv, 2 * narrow.activations)


@given(st.integers(1, 40_000), st.integers(1, 4000), st.sampled_from([1, 2, 4]), st.floats(1e9, 400e9))
def test_the_most_requests_fit_and_one_more_does_not(inputs: int, outputs: int, gpus: int, memory: float) -> None:
    plan = MemoryPlan(shape=shape_of(RELEASED["Qwen2-7B"], "m"), input_tokens=inputs, output_tokens=outputs, gpus=gpus)
    most = plan.requests(memory)
    assert most == 0 or replace(plan, batch=most).fits(memory)
    assert not replace(plan, batch=most + 1).fits(memory)
    fewest = fewest_gpus(plan, memory)
    assert fewest is None or fewest <= gpus or most == 0


def test_tokens_are_what_the_weights_leave() -> None:
    plan = MemoryPlan(shape=shape_of(QWEN15_32B, "m"), input_tokens=1000, output_tokens=100)
    peak = plan.at_peak()
    left = 80e9 - CONTEXT_BYTES - peak.weights - peak.activations - peak.logits
    assert plan.tokens(80e9) == int(left // 262144)
    assert plan.tokens(24e9) == 0


@pytest.mark.parametrize(("fields", "sizes"), [(QWEN2_57B, [1, 2, 4]), (QWEN15_32B, [1, 2, 4, 8])])
def test_tensor_parallel_groups_divide_the_heads(fields: dict[str, object], sizes: list[int]) -> None:
    assert list(group_sizes(shape_of(fields, "m"))) == sizes


@pytest.mark.parametrize(
    ("text", "size"),
    [("24GB", 24e9), ("24 gb", 24e9), ("80GiB", 80 * GIB), ("24", 24e9), ("RTX 4090", 24e9), ("H200", 141e9)],
)
def test_a_gpu_is_a_size_or_a_name(text: str, size: float) -> None:
    assert gpu_bytes(text) == size


@pytest.mark.parametrize("text", ["", "0GB", "-24GB", "1e400GB", "24TB", "h20000x", "nan", "24GB\x1b[31m"])
def test_what_is_no_gpu_is_a_sentence(text: str) -> None:
    with pytest.raises(UsageError, match="write its memory, such as 24GB, or one of h100"):
        gpu_bytes(text)


def test_a_precision_has_one_name_or_the_other() -> None:
    assert stored_as(None, None) is None
    assert stored_as(None, "AWQ") == stored_as("int4", None) == stored_as("int4", "gptq-int4")
    with pytest.raises(UsageError, match="quantization 'nf4': there are gptq-int8"):
        stored_as(None, "nf4")
    with pytest.raises(UsageError, match="store weights differently; name one"):
        stored_as("fp8", "awq")
