"""The flags of ``plan --memory``: what a model takes on GPUs of a size, without a scenario."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from loadgen.cli.screen import put, show, width
from loadgen.errors import UsageError

MOST, MOST_GPUS = 10**9, 1024
"""The largest length or batch, and the most GPUs."""

MOST_PARAMETERS = 10**15
"""What is larger is no model, but a mistake in its config.json."""

_FOR = "With --memory: "

Memory = Annotated[
    Path | None,
    typer.Option("--memory", metavar="MODEL", help="Show what this model (a folder, a config.json) takes."),
]
Gpu = Annotated[str | None, typer.Option("--gpu", help=_FOR + "24GB, 80GiB, or a name such as a100.")]
Input = Annotated[int, typer.Option("--input", min=1, max=MOST, help=_FOR + "tokens of a prompt.")]
Output = Annotated[int, typer.Option("--output", min=1, max=MOST, help=_FOR + "tokens of a reply.")]
Batch = Annotated[int, typer.Option("--batch", min=1, max=MOST, help=_FOR + "requests at once.")]
Tp = Annotated[int, typer.Option("--tp", min=1, max=MOST_GPUS, help=_FOR + "GPUs that share it.")]
Dtype = Annotated[str | None, typer.Option("--dtype", help=_FOR + "bf16, fp8, int8, int4, mxfp4.")]
Quantization = Annotated[
    str | None, typer.Option("--quantization", help=_FOR + "gptq-int8, gptq-int4, awq, fp8, mxfp4.")
]
Logits = Annotated[str, typer.Option("--prompt-logits", help=_FOR + "all (as transformers 4.38 did) or last.")]


class Asked(NamedTuple):
    """Lengths in tokens, requests at once, GPUs that share the model; how it is stored, and whose logits are made."""

    input_tokens: int
    output_tokens: int
    batch: int
    tp: int
    dtype: str | None
    quantization: str | None
    prompt_logits: str


def plan_memory(model: Path, gpu: str, asked: Asked, as_json: bool) -> None:
    """Prints what a model takes, and what room there is for it on this GPU. Raises UsageError."""
    import json

    from loadgen.reports import memory as report
    from loadgen.shapes.memory_plan import MemoryPlan, gpu_bytes, stored_as
    from loadgen.shapes.model_config import read_shape

    if asked.prompt_logits not in ("all", "last"):
        raise UsageError(f"--prompt-logits {asked.prompt_logits!r}: all or last belongs here.")
    shape = read_shape(model.expanduser(), stored_as(asked.dtype, asked.quantization))
    if shape.total > MOST_PARAMETERS:
        raise UsageError(f"{model}: more than {MOST_PARAMETERS:.0e} parameters: no model has; mend the file.")
    if shape.attention.heads % asked.tp:
        raise UsageError(f"--tp {asked.tp}: {shape.name} has {shape.attention.heads} heads; take a divisor.")
    plan = MemoryPlan(
        shape=shape,
        input_tokens=asked.input_tokens,
        output_tokens=asked.output_tokens,
        batch=asked.batch,
        gpus=asked.tp,
        prompt_logits="all" if asked.prompt_logits == "all" else "last",
    )
    if as_json:
        put(json.dumps(report.values(plan, gpu_bytes(gpu)), indent=1, ensure_ascii=False) + "\n")
    else:
        show(report.render(plan, gpu_bytes(gpu), width(sys.stdout)))


def named(scenario: Path | None, memory: Path | None, gpu: str | None) -> tuple[Path, str]:
    """The model and its GPU. Raises UsageError for what is neither a scenario nor a model with its GPU."""
    if scenario is not None:
        raise UsageError(f"plan {scenario}: --memory and --gpu are for a model without a scenario; leave one out.")
    if memory is None:
        raise UsageError("plan: name a scenario, or a model and its GPU: --memory MODEL --gpu 24GB.")
    if gpu is None:
        raise UsageError("plan --memory: say on which GPU: --gpu 24GB, or a name such as --gpu a100.")
    return memory, gpu
