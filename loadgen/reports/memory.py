"""What models take in memory, as text or as plain values. In: a `MemoryPlan`, or a scenario's targets. Out: lines.

GB are 10**9 bytes throughout, as on the box of a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from loadgen.limits.planned_memory import Need
from loadgen.reports.text import aligned, wrapped
from loadgen.shapes.memory_plan import CONTEXT_BYTES, Memory, MemoryPlan, fewest_by_layers, fewest_gpus, group_sizes

_MOST_SHOWN = 8
_NOTE = (
    "GB are 10**9 bytes. These are sizes, not measurements: what CUDA itself takes is counted as 0.5 GB a GPU, "
    "fragmentation and CUDA graphs are not; docs/memory.md says what is counted, and how far it was right."
)


def render(plan: MemoryPlan, memory_bytes: float, width: int) -> str:
    """What ``loadgen plan --memory`` prints, in lines of at most ``width`` characters where words allow."""
    lines = wrapped(_title(plan), width)
    for part in _parts(plan):
        lines += wrapped(part, width, "  ")
    lines += ["", *aligned(_table(plan, memory_bytes), left=1), "", *wrapped(verdict(plan, memory_bytes), width)]
    return "\n".join([*lines, *wrapped(_NOTE, width)]) + "\n"


def values(plan: MemoryPlan, memory_bytes: float) -> dict[str, Any]:
    """What ``loadgen plan --memory --json`` prints: bytes, whole tokens and requests."""
    shape = plan.shape
    return {
        "model": shape.name,
        "dtype": shape.stored.name,
        "input_tokens": plan.input_tokens,
        "output_tokens": plan.output_tokens,
        "batch": plan.batch,
        "prompt_logits": plan.prompt_logits,
        "gpu_memory_bytes": memory_bytes,
        "kv_bytes_per_token": shape.kv_bytes_per_token(),
        "fewest_gpus": fewest_gpus(plan, memory_bytes),
        "gpus": [_values(one, memory_bytes) for one in _sizes(plan)],
    }


def verdict(plan: MemoryPlan, memory_bytes: float) -> str:
    """Whether it fits on its GPUs, and on how few it would."""
    place, least = _place(plan, memory_bytes), fewest(plan, memory_bytes)
    if plan.fits(memory_bytes):
        fewer = f"; {least} would do" if least and least < plan.gpus else ""
        return f"It fits on {place}{fewer}."
    if least is not None:
        how = "tensor parallelism" if plan.split == "tensor" else "number of GPUs, split by layers,"
        return f"It does not fit on {place}; the smallest {how} that does is {least}."
    layers = fewest_by_layers(plan, memory_bytes)
    by_layers = f"; split by layers (a pipeline), {layers} would do" if layers else ""
    return (
        f"It does not fit on {place}, nor by tensor parallelism, which its {plan.shape.attention.heads} heads allow up "
        f"to {max(group_sizes(plan.shape))}{by_layers}."
    )


def fewest(plan: MemoryPlan, memory_bytes: float) -> int | None:
    """The fewest GPUs that hold it, split as it is."""
    return (fewest_gpus if plan.split == "tensor" else fewest_by_layers)(plan, memory_bytes)


def _title(plan: MemoryPlan) -> str:
    requests = "one request" if plan.batch == 1 else f"{plan.batch} requests at once"
    return (
        f"{plan.shape.name} in {plan.shape.stored.name}, {requests} of {plan.input_tokens:,} tokens in and "
        f"{plan.output_tokens} out:"
    )


def _parts(plan: MemoryPlan) -> Iterator[str]:
    peak, shape = plan.at_peak(), plan.shape
    yield f"weights {_gb(peak.weights)} GB ({shape.total / 1e9:.3f} B parameters)"
    tokens = f"{shape.kv_bytes_per_token(plan.value_bytes):,} bytes a token"
    yield f"KV cache {_gb(peak.kv)} GB ({tokens})"
    yield f"activations {_gb(peak.activations)} GB" if peak.activations else f"logits {_gb(peak.logits)} GB"
    yield f"together {_gb(peak.total)} GB at its peak, logits made of {_whose(plan)}"


def _whose(plan: MemoryPlan) -> str:
    return "every prompt token (all)" if plan.prompt_logits == "all" else "each prompt's last token (last)"


def _sizes(plan: MemoryPlan) -> list[MemoryPlan]:
    """The plan on every number of GPUs that is shown: those up to 8, and its own."""
    numbers = {gpus for gpus in group_sizes(plan.shape) if gpus <= _MOST_SHOWN} | {plan.gpus}
    return [msgspec.structs.replace(plan, gpus=gpus) for gpus in sorted(numbers)]


def _table(plan: MemoryPlan, memory_bytes: float) -> list[list[str]]:
    head = ["GPUs", "needs GB", "of GB", "fits", "tokens of\nKV cache", "requests\nat once"]
    rows = []
    for one in _sizes(plan):
        total, room = one.at_peak().total + one.gpus * CONTEXT_BYTES, one.gpus * memory_bytes
        fits = "yes" if one.fits(memory_bytes) else "no"
        most = [f"{one.tokens(memory_bytes):,}", f"{one.requests(memory_bytes):,}"]
        rows.append([str(one.gpus), _gb(total), _gb(room), fits, *most])
    return [head, *rows]


def _values(one: MemoryPlan, memory_bytes: float) -> dict[str, Any]:
    peak: Memory = one.at_peak()
    return {
        "gpus": one.gpus,
        **{f"{name}_bytes": value for name, value in msgspec.structs.asdict(peak).items()},
        "total_bytes": peak.total,
        "context_bytes": one.gpus * CONTEXT_BYTES,
        "fits": one.fits(memory_bytes),
        "kv_tokens": one.tokens(memory_bytes),
        "requests": one.requests(memory_bytes),
    }


def _place(plan: MemoryPlan, memory_bytes: float) -> str:
    return f"{plan.gpus} × {_gb(memory_bytes)} GB"


def _gb(number: float) -> str:
    return f"{number / 1e9:.3g}" if number < 1e11 else f"{number / 1e9:.0f}"


def planned(needs: Sequence[Need], width: int) -> list[str]:
    """Lines of ``loadgen plan``: each target's memory, and whether it fits. No line where nothing is known of any."""
    known = [need for need in needs if need.plan is not None]
    if not known:
        return []
    lines = [line for need in needs for line in wrapped(_planned(need), width, "  ")]
    return ["memory (from sizes alone, nothing is measured):", *lines, ""]


def _planned(need: Need) -> str:
    plan, memory_bytes = need.plan, need.memory_bytes
    if plan is None:
        return f"{need.target}: not known: {need.why}"
    one = msgspec.structs.replace(plan, batch=1)
    peak = one.at_peak()
    dtype = "float32" if plan.wide else plan.shape.stored.name
    asked = f"request of {plan.input_tokens} + {plan.output_tokens} tokens"
    if need.of_trace:
        asked = f"{asked}, the largest of the trace"
    if not need.whole_input:
        asked = f"reply of {plan.output_tokens} tokens (prompts of unknown length come on top)"
    weights, total = _gb(peak.weights), _gb(peak.total)
    text = f"{need.target}: {plan.shape.name} in {dtype}: weights {weights} GB, {total} GB with a {asked}"
    if memory_bytes is None:
        return text
    if not one.fits(memory_bytes):
        return f"{text}. {verdict(one, memory_bytes)}"
    most = one.requests(memory_bytes)
    waits = f"; some of {plan.batch} wait" if most < plan.batch else ""
    held = "one such request" if most == 1 else f"{most:,} such requests at once"
    return f"{text}. It fits on {_place(one, memory_bytes)}: room for {held}{waits}."
