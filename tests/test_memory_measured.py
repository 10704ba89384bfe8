"""What transformers allocates while it takes a prompt, by torch's profiler, beside what the planner says."""

from __future__ import annotations

from typing import Any

import pytest

from loadgen.shapes.memory_plan import MemoryPlan
from loadgen.shapes.model_config import shape_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
}
EXPERTS = {
    "moe_intermediate_size": 256,
    "shared_expert_intermediate_size": 1024,
    "num_experts": 16,
    "num_experts_per_tok": 4,
}


def allocated(model: Any, tokens: int, every: bool) -> int:
    """Bytes at the peak of a prefill, the weights left out."""
    ids = torch.randint(0, model.config.vocab_size, (1, tokens))
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.no_grad(), torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        reply = model(ids, use_cache=True, logits_to_keep=0 if every else 1)
        raised = reply.logits.float() if every else None  # as transformers 4.38 did; held until the profile ends
    del raised
    now = peak = 0
    changes = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(changes, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def planned(model: Any, tokens: int, every: bool) -> float:
    plan = MemoryPlan(
        shape=shape_of(model.config.to_dict(), "m"),
        input_tokens=tokens,
        output_tokens=1,
        prompt_logits="all" if every else "last",
        step_tokens=None,
    )
    peak = plan.at_peak()
    return peak.total - peak.weights


@pytest.mark.parametrize(
    ("hidden", "width", "vocabulary", "every"),
    [(256, 1536, 500, False), (512, 700, 500, False), (256, 700, 9000, True), (256, 1536, 9000, False)],
)
def test_a_dense_model_allocates_what_was_planned(hidden: int, width: int, vocabulary: int, every: bool) -> None:
    config = transformers.Qwen2Config(hidden_size=hidden, intermediate_size=width, vocab_size=vocabulary, **SIZES)
    model = transformers.Qwen2ForCausalLM(config).to(torch.bfloat16).eval()
    assert planned(model, 2000, every) == pytest.approx(allocated(model, 2000, every), rel=0.03)


def test_experts_that_are_multiplied_in_groups_allocate_what_was_planned() -> None:
    config = transformers.Qwen2MoeConfig(
        hidden_size=256, intermediate_size=1000, vocab_size=500, **SIZES, **EXPERTS, experts_implementation="grouped_mm"
    )
    model = transformers.Qwen2MoeForCausalLM(config).to(torch.bfloat16).eval()
    assert planned(model, 2000, False) == pytest.approx(allocated(model, 2000, False), rel=0.10)
