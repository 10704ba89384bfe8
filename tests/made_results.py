"""Repeats and targets that were made up: what floors and normalised rates are computed from."""

from __future__ import annotations

from typing import Any

import msgspec
from model_configs import QWEN2_57B, QWEN15_32B

from loadgen.limits.served import Served, ServedCell, Serving
from loadgen.repeat import Result
from loadgen.summarise import summarise
from loadgen.summary import Distribution, Summary, Window
from loadgen.telemetry.prometheus import Seen

H200 = {"name": "NVIDIA H200", "uuid": "GPU-0", "memory_gb": 150.0, "driver": "570"}


def always(value: float) -> Distribution:
    return Distribution(n=100, mean=value, p50=value)


def summary(**fields: Any) -> Summary:
    """An ok repeat; numbers given for a distribution become its mean."""
    empty = summarise([], Window(0, 10))
    made = {
        name: always(value) if isinstance(getattr(empty, name), Distribution) and not isinstance(value, str) else value
        for name, value in fields.items()
    }
    return msgspec.structs.replace(empty, **({"state": "ok"} | made))


def result(seen: Seen | None = None, energy_j: float | None = None, **fields: Any) -> Result:
    return Result(
        cell="c", target="t", rep=1, attempt=1, block=1, seed=1, server="t-1", started="", workers=(),
        summary=summary(**fields), seen=seen or Seen(), energy_j=energy_j,
    )  # fmt: skip


def machine(*gpus: dict[str, Any], servers: dict[str, Any] | None = None) -> dict[str, Any]:
    """A run.json, as far as it matters here."""
    return {"machine": {"gpus": list(gpus)}, "servers": servers or {}}


def one_target(concurrency: int | None = 1, config: dict[str, Any] | None = QWEN15_32B, **served: Any) -> Serving:
    """The target "t" in the cell "c"."""
    return Serving(
        configs=() if config is None else (config,),
        targets=(Served(name="m", config=None if config is None else 0, **({"weights": ""} | served)),),
        cells={"c": ServedCell(concurrency=concurrency, prompts="natural prompts", random=False, targets={"t": 0})},
    )


def two_models(sizes: tuple[int, ...], random: bool = False, **moe: Any) -> Serving:
    """Qwen1.5-32B as "dense" and Qwen2-57B-A14B as "moe", at these concurrencies."""
    prompts = "random token ids" if random else "natural prompts"
    return Serving(
        configs=(QWEN15_32B, QWEN2_57B),
        targets=(Served(name="32b", config=0, weights=""), Served(name="57b", config=1, **({"weights": ""} | moe))),
        cells={
            f"concurrency={size}": ServedCell(
                concurrency=size, prompts=prompts, random=random, targets={"dense": 0, "moe": 1}
            )
            for size in sizes
        },
    )
