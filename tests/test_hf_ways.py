"""Every way of running the model gives the same tokens; what fails in one leaves nothing behind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hf_running import LAUNCHERS, made_model, needs_torch

pytestmark = needs_torch
sys.path.insert(0, str(LAUNCHERS))
ROWS, LENGTH = 5, 64
PROMPTS = ([3, 9, 4], [7] * 20, [11, 12, 13, 14, 15, 16, 17], [42])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    import transformers

    folder: Path = made_model(tmp_path_factory.getbasetemp())
    return transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").eval()


@pytest.fixture
def flash(model: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The model with an attention that is called as flash attention is, and computes what it would."""
    import torch
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def attend(module: Any, query: Any, key: Any, value: Any, mask: Any, **_: Any) -> tuple[Any, None]:
        assert mask is None or mask.dim() == 2, "flash attention takes which positions are there"
        seen = None if mask is None else mask[:, None, None, -key.shape[2] :].bool()
        out = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=seen, is_causal=query.shape[2] > 1, enable_gqa=True
        )
        return out.transpose(1, 2).contiguous(), None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "flash_attention_2", attend)
    monkeypatch.setattr(model.config, "_attn_implementation_internal", "flash_attention_2")
    return model


def replies(rows: Any, prompts: Sequence[list[int]] = PROMPTS, tokens: int = 6) -> list[list[int]]:
    """Greedy replies to prompts that share the batch; the first leaves it two tokens earlier than the others."""
    found = [[int(rows.prefill(prompt).argmax())] for prompt in prompts]
    order = list(range(len(prompts)))
    for step in range(1, tokens):
        if step == tokens - 2:
            rows.drop(0)
            order[0] = order[-1]
            order.pop()
        for place, token in enumerate(rows.decode([found[each][-1] for each in order]).argmax(-1).tolist()):
            found[order[place]].append(token)
    rows.cut(0)
    return found


@pytest.fixture(scope="module")
def expected(model: Any) -> list[list[int]]:
    """What transformers' own generate says, one prompt at a time."""
    import torch

    found = []
    for prompt, count in zip(PROMPTS, (4, 6, 6, 6), strict=True):
        ids = torch.tensor([prompt])
        made = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, min_new_tokens=count, do_sample=False
        )
        found.append(made[0, len(prompt) :].tolist())
    return found


def slots(**way: Any) -> Callable[[Any], Any]:
    def make(model: Any) -> Any:
        from hf_slots import Slots, Way

        return Slots(model, ROWS, LENGTH, Way(**way))

    return make


def recompute(**way: Any) -> Callable[[Any], Any]:
    def make(model: Any) -> Any:
        from hf_recompute import Recompute

        return Recompute(model, ROWS, **way)

    return make


@pytest.mark.parametrize(
    "make",
    [slots(), slots(static=True), slots(all_logits=True), recompute(), recompute(all_logits=True)],
    ids=["slots", "static cache", "all prompt logits", "no cache", "no cache, all logits"],
)
def test_every_way_gives_the_tokens_of_generate(model: Any, expected: Any, make: Callable[[Any], Any]) -> None:
    rows = make(model)
    assert replies(rows) == expected
    assert rows.used == 0
    assert replies(rows) == expected  # into rows that were used before


@pytest.mark.parametrize("all_logits", [False, True], ids=["last logits", "all prompt logits"])
def test_a_cache_that_grows_gives_the_tokens_of_generate_and_is_as_long_as_its_text(
    model: Any, expected: Any, all_logits: bool
) -> None:
    from hf_grown import Grown
    from hf_slots import Way

    rows = Grown(model, Way(all_logits=all_logits))
    for prompt, reply in zip(PROMPTS, expected, strict=True):
        found = [int(rows.prefill(prompt).argmax())]
        while len(found) < len(reply):
            found.append(int(rows.decode([found[-1]]).argmax()))
        assert found == reply
        assert rows._cache.layers[0].keys.shape[-2] == len(prompt) + len(reply) - 1
        rows.drop(0)
        assert rows.used == 0
    rows.pretend(1, 40)
    rows.decode([1])
    assert rows._cache.layers[0].keys.shape[-2] == 41
    rows.cut(0)
    assert rows.used == 0


def test_flash_attention_is_told_which_positions_are_there(flash: Any, expected: Any) -> None:
    assert replies(slots()(flash)) == expected


def test_a_static_step_has_a_power_of_two_of_rows_at_most_all() -> None:
    from hf_slots import step_rows

    assert [step_rows(used, 5) for used in (1, 2, 3, 4, 5)] == [1, 2, 4, 4, 5]


@pytest.mark.parametrize("make", [slots(), recompute()], ids=["slots", "no cache"])
def test_a_step_out_of_memory_leaves_rows_that_work(
    model: Any, expected: Any, make: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    rows = make(model)
    rows.prefill([1, 2])

    def exhausted(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB.")

    with monkeypatch.context() as patch:
        patch.setattr(type(model), "forward", exhausted)
        with pytest.raises(torch.OutOfMemoryError):
            rows.prefill([1, 2, 3])
        assert rows.used == 1
        with pytest.raises(torch.OutOfMemoryError):
            rows.decode([1])
    rows.cut(0)
    assert replies(rows) == expected


def test_dummy_weights_are_the_same_for_a_seed_and_part_by_part() -> None:
    import torch
    from hf_dummy import RandomWeights

    def drawn(name: str, shape: tuple[int, ...] = (4, 6), seed: int = 1) -> RandomWeights:
        return RandomWeights(name, shape, torch.float32, "cpu", 0.1, seed)

    assert torch.equal(drawn("a")[...], drawn("a")[...])
    assert not torch.equal(drawn("a")[...], drawn("a", seed=2)[...])
    assert not torch.equal(drawn("a")[...], drawn("b")[...])
    assert drawn("a")[1:3].shape == (2, 6)
    assert drawn("a").get_shape() == [4, 6]
    assert drawn("norm.weight", (3,))[...].tolist() == [1, 1, 1]
    assert drawn("q.bias", (3,))[...].tolist() == [0, 0, 0]


def test_memory_of_all_ranks_is_summed_and_stands_on_the_page() -> None:
    from hf_memory import Memory, read, total
    from hf_metrics import Metrics

    assert total([Memory(1, 2), None, Memory(10, 20)]) == Memory(11, 22)
    assert total([None]) is None
    assert read(()) is None
    page = Metrics({}, None, lambda: Memory(11, 22)).text().decode()
    assert "hf:memory_peak_bytes 11.0" in page
    assert "hf:memory_reserved_bytes 22.0" in page
    assert "hf:memory_" not in Metrics({}, None).text().decode()
