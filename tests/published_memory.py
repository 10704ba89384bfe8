"""Published memory beside the planner's, row by row. As a program it prints the tables of docs/memory.md."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from model_configs import QWEN2_57B, RELEASED, Fields, dense
from msgspec.structs import replace

from loadgen.shapes.memory_plan import MemoryPlan, stored_as
from loadgen.shapes.model_config import shape_of

FOLDER = Path(__file__).parents[1] / "loadgen" / "published"
GIB = 1 << 30

MODELS: dict[str, Fields] = {
    "Qwen2-0.5B": dense("qwen2", 151936, (24, 896, 14, 2, 4864), tie_word_embeddings=True),
    "Qwen2-1.5B": dense("qwen2", 151936, (28, 1536, 12, 2, 8960), tie_word_embeddings=True),
    "Qwen2-7B": RELEASED["Qwen2-7B"],
    "Qwen2-57B-A14B": QWEN2_57B,
    "Qwen2-72B": RELEASED["Qwen2-72B"],
    "Qwen-14B": RELEASED["Qwen1.5-14B"],  # the same sizes
    "Yi-6B": dense("llama", 64000, (32, 4096, 32, 4, 11008)),
    "Yi-34B": dense("llama", 64000, (60, 7168, 56, 8, 20480)),
}
SLIPS = {
    ("Qwen2-57B-A14B-Instruct", 14336, "BF16"): 2,
    ("Qwen2-57B-A14B-Instruct", 30720, "BF16"): 3,
}
"""Rows whose published number of GPUs cannot be, since the published memory is more than they have; and what can."""

YI_TOKENS = 3000
"""Tokens of a request in Yi's table, which states none: what the growth from batch 1 to 32 comes to in five rows."""


@dataclass(frozen=True)
class Row:
    """One published figure (GiB) and the plan that stands for it. ``gpus`` are the published ones."""

    name: str
    input_tokens: int
    quantization: str
    gpus: int
    published: float
    plan: MemoryPlan

    @property
    def key(self) -> tuple[str, int, str]:
        return self.name, self.input_tokens, self.quantization

    @property
    def planned(self) -> float:
        return self.plan.at_peak().total / GIB

    @property
    def error(self) -> float:
        """Planned over published, less 1."""
        return self.planned / self.published - 1


def transformers_rows() -> list[Row]:
    """All rows of the Qwen2 table, with everything that transformers 4.38 held."""
    return list(map(_transformers_row, _table("qwen2_transformers.csv")))


def yi_rows() -> Iterator[Row]:
    for line in _table("yi_batch_memory.csv"):
        size, _, bits = line["model"].partition("-Chat")
        stored = {"-8bits": "gptq-int8", "-4bits": "awq"}.get(bits)
        shape = shape_of(MODELS[size], size, precision=stored_as(None, stored))
        for batch in (1, 4, 16, 32):
            plan = MemoryPlan(shape=shape, input_tokens=YI_TOKENS - 1, output_tokens=1, batch=batch, step_tokens=1)
            figure = line[f"batch_{batch}_gb"]
            if not figure.startswith(">"):
                yield Row(line["model"], batch, stored or "BF16", 1, float(figure), plan)


def by_size_rows() -> Iterator[Row]:
    """Rows of the table by size whose models' sizes are known here and that state a figure.

    ``input_tokens`` are those that its columns come nearest to; a ``<`` stands in front of a figure's model then.
    """
    columns = {"int4": ("awq", 2048), "int8": ("gptq-int8", 6144), "fp16": (None, 30720)}
    for line in _table("memory_by_size.csv"):
        stored, tokens = columns[line["precision_and_context"][:4]]
        found = re.fullmatch(r"(<?)(\d+)G(?: \((bf16|8k|200k)\))?", line["memory"])
        name = line["reference_models"].split(",")[-1 if line["size"] == "1.5B" else 0].strip()
        size = re.sub(r"-(Instruct|Chat|200K|Chat-Int[48]|Chat-[48]bits)$", "", name)
        if found is None or size not in MODELS:
            continue
        tokens = {"8k": 8000, "200k": 200_000}.get(found[3], tokens)
        shape = shape_of(MODELS[size], size, precision=stored_as(None, None if found[3] == "bf16" else stored))
        plan = MemoryPlan(shape=shape, input_tokens=tokens, output_tokens=1, prompt_logits="all", split="layers")
        yield Row(found[1] + name, tokens, shape.stored.name, 1, float(found[2]), plan)


def _table(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def gpu_table() -> Iterator[tuple[str, int]]:
    """Published GPUs by name, and their GB."""
    for line in _table("gpu_memory.csv"):
        for name in line["gpu"].split(", "):
            yield name, int(line["memory_gb"])


def _transformers_row(line: dict[str, str]) -> Row:
    name, quantization = line["model"], line["quantization"]
    stored = stored_as(None, None if quantization == "BF16" else quantization)
    gpus, tokens = int(line["gpus"]), int(line["input_tokens"])
    plan = MemoryPlan(
        shape=shape_of(MODELS[name.removesuffix("-Instruct")], name, precision=stored),
        input_tokens=tokens,
        output_tokens=2048,
        gpus=SLIPS.get((name, tokens, quantization), gpus),
        split="layers",
        prompt_logits="all",
        step_tokens=None,
        rotary_positions=32768,
    )
    return Row(name, tokens, quantization, gpus, float(line["memory_gb"]), plan)


def without_copies(row: Row) -> float:
    """What the row would be without the copies of logits between GPUs (GiB)."""
    peak = row.plan.at_peak()
    return (peak.total - peak.copies) / GIB


def without_tables(row: Row) -> float:
    """What the row would be without rotary tables (GiB)."""
    return replace(row.plan, rotary_positions=0).at_peak().total / GIB


def markdown() -> str:
    """The tables of docs/memory.md."""
    lines = ["| model | input | weights | GPUs | published | planned | error |", "|---|---|---|---|---|---|---|"]
    for row in transformers_rows():
        gpus = f"{row.gpus}, slip: {row.plan.gpus}" if row.key in SLIPS else str(row.gpus)
        name = row.name.removesuffix("-Instruct")
        lines.append(
            f"| {name} | {row.input_tokens} | {row.quantization} | {gpus} | {row.published:.2f} | {row.planned:.2f} | "
            f"{row.error:+.1%} |"
        )
    lines += ["", "| model | batch | published | planned | error |", "|---|---|---|---|---|"]
    for row in yi_rows():
        lines.append(
            f"| {row.name} | {row.input_tokens} | {row.published:.0f} | {row.planned:.1f} | {row.error:+.1%} |"
        )
    lines += ["", "| model | tokens | weights | published | planned | error |", "|---|---|---|---|---|---|"]
    for row in by_size_rows():
        lines.append(
            f"| {row.name} | {row.input_tokens} | {row.quantization} | {row.published:.0f} | {row.planned:.1f} | "
            f"{row.error:+.1%} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
