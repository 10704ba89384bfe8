"""Output tok/s per what it took: a GPU, a parameter, a byte of weights, a unit of money, a joule.

In: the repeats of a target in a cell, its `Footing`, its price. Out: a `Normalised`. A value whose divisor nobody knows
is None, never 0. Two targets are compared in none of these: a rate per billion parameters says how well a model of its
size is served, not which of two is the better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from loadgen.limits.footing import footing
from loadgen.limits.served import Serving
from loadgen.repeat import Result

VERSION = 1


class Normalised(msgspec.Struct, frozen=True, kw_only=True):
    """A target in a cell, mean over its valid repeats: what was taken, then output tokens by it.

    ``gpus`` are all of the target's; ``parameters`` and ``active_parameters`` (those that a token passes, the input
    embedding counted whole) and ``weight_bytes`` are one copy of the model's. ``price_per_hour`` is the whole target's.
    ``energy_j`` is the mean of what the repeats took in their windows. Rates are output tok/s by one of them (10**9
    parameters, 10**9 bytes); ``tok_per_price`` and ``cost_per_mtok`` are tokens by a unit of money, and money by 10**6
    output tokens; ``tok_per_j`` tokens by joule.
    """

    cell: str
    target: str
    output_tok_s: float | None = None
    gpus: int | None = None
    parameters: int | None = None
    active_parameters: int | None = None
    weight_bytes: float | None = None
    price_per_hour: float | None = None
    energy_j: float | None = None
    tok_s_per_gpu: float | None = None
    tok_s_per_active_b: float | None = None
    tok_s_per_b: float | None = None
    tok_s_per_weight_gb: float | None = None
    tok_per_price: float | None = None
    cost_per_mtok: float | None = None
    tok_per_j: float | None = None


class Normalisation(msgspec.Struct, frozen=True, kw_only=True):
    """All targets of all cells."""

    v: int = VERSION
    cells: tuple[Normalised, ...] = ()


def normalised(
    serving: Serving, described: Mapping[str, Any], cell: str, target: str, results: Sequence[Result | None]
) -> Normalised:
    """A target in a cell. ``described`` is run.json; a result is None where a repeat is missing."""
    valid = [result for result in results if result is not None and result.summary.state == "ok"]
    stand = footing(serving, described, cell, target, valid[-1].server if valid else None)
    served = serving.of(cell, target)
    price = None if served is None else served.price_per_hour
    shape, rate = stand.shape, _mean([result.summary.output_tok_s for result in valid])
    cost = None if price is None or not rate else price / 3600 / rate
    return Normalised(
        cell=cell,
        target=target,
        output_tok_s=rate,
        gpus=stand.gpus,
        parameters=shape.total if shape else None,
        active_parameters=shape.active if shape else None,
        weight_bytes=stand.weight_bytes,
        price_per_hour=price,
        energy_j=_mean([result.energy_j for result in valid]),
        tok_s_per_gpu=_by(rate, stand.gpus),
        tok_s_per_active_b=_by(rate, shape.active / 1e9 if shape else None),
        tok_s_per_b=_by(rate, shape.total / 1e9 if shape else None),
        tok_s_per_weight_gb=_by(rate, None if stand.weight_bytes is None else stand.weight_bytes / 1e9),
        tok_per_price=None if cost is None else 1 / cost,
        cost_per_mtok=None if cost is None else cost * 1e6,
        tok_per_j=_mean([_by(_tokens(result), result.energy_j) for result in valid]),
    )


def _tokens(result: Result) -> float | None:
    """Output tokens of the window."""
    rate = result.summary.output_tok_s
    return None if rate is None else rate * result.summary.window.length_s


def _by(value: float | None, divisor: float | None) -> float | None:
    return None if value is None or not divisor else value / divisor


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
