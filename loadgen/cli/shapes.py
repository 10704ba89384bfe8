"""Models by their config.json alone: ``roofline`` says what they could do at best, before anything is started."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from loadgen.cli import screen

commands = typer.Typer()

MOST = 1 << 20
"""The largest batch size."""


Models = Annotated[
    list[Path], typer.Argument(metavar="MODEL [MODEL]", help="One or two: a model's folder, or its config.json.")
]
GpuName = Annotated[str, typer.Option("--gpu", help="h200, h100, a100, 4090, l40s or mi300x.")]
Bandwidth = Annotated[
    float | None, typer.Option("--bandwidth", min=0.001, help="GB/s of one GPU, if measured (default: its vendor's).")
]
Gpus = Annotated[int, typer.Option("--tensor-parallel", min=1, help="GPUs that share a model perfectly.")]
Dtype = Annotated[
    str | None, typer.Option("--dtype", help="bf16, fp8, int8, int4 or mxfp4 (default: as the config says).")
]
Batches = Annotated[str, typer.Option("--batches", help="Batch sizes, with commas between.")]


@commands.command(epilog="Example: loadgen roofline scenarios/models/qwen2-57b-a14b.json --gpu h200")
def roofline(
    models: Models,
    gpu: GpuName,
    bandwidth: Bandwidth = None,
    gpus: Gpus = 1,
    dtype: Dtype = None,
    input_tokens: Annotated[int, typer.Option("--input", min=1, help="Tokens of a prompt.")] = 1000,
    output_tokens: Annotated[int, typer.Option("--output", min=1, help="Tokens of a reply.")] = 100,
    batches: Batches = "1,2,4,8,16,32,64,128,256",
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show what a model could do at best, and where two cross.

    Least times of prefill and of a decode step, and the tokens/s that follow, from sizes alone; nothing is started. Of
    two models, the second is the candidate: ratios are of its speed to the first one's.
    """
    from loadgen.errors import UsageError
    from loadgen.reports import roofline as report
    from loadgen.shapes import roofline as rooflines
    from loadgen.shapes.model_config import read_shape
    from loadgen.shapes.precision import precision

    if len(models) > 2:
        raise UsageError(f"{models[2]}: two models can be compared at once; take this one out.")
    sizes = _batches(batches)
    chosen = rooflines.gpu(gpu, None if bandwidth is None else bandwidth * 1e9)
    stored = None if dtype is None else precision(dtype)
    shapes = [read_shape(path.expanduser(), stored) for path in models]
    lengths = {"input_tokens": input_tokens, "output_tokens": output_tokens}
    found = [rooflines.Roofline(shape=shape, gpu=chosen, gpus=gpus, **lengths) for shape in shapes]
    if as_json:
        print(json.dumps(report.values(found, sizes), indent=1, ensure_ascii=False))
    else:
        print(report.render(found, sizes, screen.width(sys.stdout), screen.speaks_unicode(sys.stdout)), end="")


def _batches(text: str) -> list[int]:
    """Batch sizes in ascending order. Raises UsageError for what is none."""
    from loadgen.errors import UsageError

    found = set()
    for word in text.split(","):
        if not word.strip().isdecimal() or not 1 <= int(word) <= MOST:
            raise UsageError(f"--batches {text}: {word.strip()!r} is no batch size; write whole numbers: 1,4,16.")
        found.add(int(word))
    return sorted(found)
