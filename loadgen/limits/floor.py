"""Measured against the floor: what share of the GPU's bandwidth and operations a target reached, cell by cell.

In: the repeats of a target in a cell and its `Footing`. Out: an `AgainstFloor`. The floor is that of ``roofline.py`` at
the lengths that were measured and the batch that the server says it ran: a decode step against the mean TPOT, the
prefill of one prompt against the mean TTFT at concurrency 1, the limit of any schedule against the output tok/s. Means
are held against floors of means.

A share above 1 is no achievement. It says that a fact is wrong: the GPU, the model, its precision, or that work was
spared (a shared prefix, several tokens a step). It is a doubt of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from loadgen.limits.footing import Footing, footing
from loadgen.limits.prediction import Predicted, predictions
from loadgen.limits.served import Serving
from loadgen.metrics import Measure
from loadgen.repeat import Result
from loadgen.shapes.roofline import Floor, Roofline
from loadgen.shown import brief
from loadgen.summary import Doubt

VERSION = 1
WARM_SHARE = 0.01
"""From this share of prompt tokens on that a prefix cache gave, prefill and throughput have no floor."""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A measured time against its floor (s). Shares are floor / measured: of the memory's bandwidth, and of the
    operations, None where the peak is not known. ``bound`` is what the floor consists of."""

    measured_s: float
    floor_s: float
    bound: Literal["bandwidth", "compute"]
    bandwidth_share: float
    compute_share: float | None


class AgainstFloor(msgspec.Struct, frozen=True, kw_only=True):
    """A target in a cell, mean over its valid repeats. ``why`` says what has no floor, and the reason.

    ``batch`` is the mean size of the batches by the ``server``, else the ``concurrency``, else what the client had
    ``in flight``. ``decode`` is None without a streamed reply of two tokens, ``prefill`` above concurrency 1.
    ``predicted_tok_s`` is the output tok/s at the floor of each phase, one after the other; ``limit_tok_s`` what no
    schedule can pass at this load, None where that is not known. ``experts`` is True for a mixture.
    """

    cell: str
    target: str
    gpu: str | None = None
    gpus: int | None = None
    precision: str | None = None
    experts: bool = False
    input_tokens: float | None = None
    output_tokens: float | None = None
    batch: float | None = None
    batch_source: Literal["server", "concurrency", "in flight"] | None = None
    decode: Held | None = None
    prefill: Held | None = None
    output_tok_s: float | None = None
    predicted_tok_s: float | None = None
    limit_tok_s: float | None = None
    limit_share: float | None = None
    why: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = ()


class Floors(msgspec.Struct, frozen=True, kw_only=True):
    """All cells of a run against their floors, and what the floors predict of every comparison."""

    v: int = VERSION
    cells: tuple[AgainstFloor, ...] = ()
    predicted: tuple[Predicted, ...] = ()


class MeasuredCell(msgspec.Struct, frozen=True, kw_only=True):
    """A cell as it was measured: its axes, and the repeats of its targets, None where one is missing."""

    axes: Mapping[str, Any]
    targets: Mapping[str, Sequence[Result | None]]


def floors(
    serving: Serving,
    described: Mapping[str, Any],
    cells: Mapping[str, MeasuredCell],
    pairs: Sequence[tuple[str, str]] = (),
) -> Floors:
    """Every target of every cell against its floor, and what the floors predict of each (baseline, candidate).

    ``described`` is run.json.
    """
    found: list[AgainstFloor] = []
    rooflines: dict[tuple[str, str], Roofline] = {}
    for name, cell in cells.items():
        for target, results in cell.targets.items():
            valid = [result for result in results if result is not None and result.summary.state == "ok"]
            stand = footing(serving, described, name, target, valid[-1].server if valid else None)
            one, planned = _roofline(stand, valid), serving.cells[name].concurrency if name in serving.cells else None
            known = _known(name, target, stand, valid)
            if one is not None:
                if stand.replicas == 1:  # side by side, each has a part of the batch
                    rooflines[name, target] = one
                known = _against(known, stand, one, valid, planned)
            found.append(known)
    axes = {name: cell.axes for name, cell in cells.items() if name in serving.cells}
    predicted = [one for pair in pairs for one in predictions(serving, axes, pair, rooflines)]
    return Floors(cells=tuple(found), predicted=tuple(predicted))


def _known(cell: str, target: str, stand: Footing, valid: Sequence[Result]) -> AgainstFloor:
    """What needs no floor."""
    return AgainstFloor(
        cell=cell,
        target=target,
        gpu=stand.gpu.name if stand.gpu else None,
        gpus=stand.gpus,
        precision=stand.precision,
        experts=stand.shape is not None and stand.shape.experts is not None,
        input_tokens=_mean(valid, Measure("in_tok", "mean")),
        output_tokens=_mean(valid, Measure("out_tok", "mean")),
        output_tok_s=_mean(valid, Measure("output_tok_s")),
        why=stand.why,
    )


def _against(
    known: AgainstFloor, stand: Footing, one: Roofline, valid: Sequence[Result], planned: int | None
) -> AgainstFloor:
    """``planned`` is the concurrency of a closed loop."""
    total, source = _batch(valid, planned)
    if not total:
        return known
    busy, why = min(stand.replicas, total), list(known.why)
    batch = total / busy  # of a replica; one sequence is not shared
    warm = (_average([result.cached_share for result in valid]) or 0.0) >= WARM_SHARE
    if warm:
        why.append("a prefix cache spared prompt tokens: no floor of prefill or throughput")
    if stand.speculative:
        why.append("speculative decoding gives several tokens a step: no floor of a step or of throughput")
    tpot, ttft = (_mean(valid, Measure(name, "mean")) for name in ("tpot_s", "ttft_s"))
    most = planned if planned is not None else _average([result.seen.running_max for result in valid])
    limit = None if warm or stand.speculative or not most else _limit(one, max(most, total), stand.replicas)
    found = msgspec.structs.replace(
        known,
        batch=total,
        batch_source=source,
        decode=None if stand.speculative else _held(tpot, one.decode(batch)),
        prefill=_held(ttft, one.prefill(1)) if planned == 1 and not warm else None,
        predicted_tok_s=one.output_tok_s(batch) * busy,
        limit_tok_s=limit,
        limit_share=known.output_tok_s / limit if limit and known.output_tok_s is not None else None,
        why=tuple(why),
    )
    return msgspec.structs.replace(found, doubts=tuple(_doubts(found, one.decode(1).seconds)))


def _batch(
    valid: Sequence[Result], planned: int | None
) -> tuple[float | None, Literal["server", "concurrency", "in flight"]]:
    """The mean batch, and who says so. A server that says it of some repeats only has not said it."""
    seen = [result.seen.batch_seen for result in valid]
    if seen and None not in seen and (batch := _average(seen)):
        return batch, "server"
    if planned is not None:
        return float(planned), "concurrency"
    return _mean(valid, Measure("in_flight")), "in flight"


def _held(measured: float | None, floor: Floor) -> Held | None:
    if not measured:
        return None
    return Held(
        measured_s=measured,
        floor_s=floor.seconds,
        bound=floor.bound,
        bandwidth_share=floor.bandwidth_s / measured,
        compute_share=floor.compute_s / measured if floor.compute_s else None,
    )


def _limit(one: Roofline, batch: float, replicas: int) -> float | None:
    """`Roofline.limit_tok_s` of all replicas; None for replies of one token where operations have no limit."""
    busy = min(replicas, batch)
    bounded = one.output_tokens > 1 or math.isfinite(one.peak_flop_s)
    return one.limit_tok_s(batch / busy) * busy if bounded else None


def _doubts(found: AgainstFloor, smallest_s: float) -> Iterator[Doubt]:
    """What came in faster than it can. Where the server does not say its batch, a step of one sequence is the floor."""
    said = []
    if found.decode is not None:
        least = found.decode.floor_s if found.batch_source == "server" else min(found.decode.floor_s, smallest_s)
        if found.decode.measured_s < least:
            said.append(f"TPOT {found.decode.measured_s * 1e3:.3g} ms, floor {least * 1e3:.3g} ms")
    if found.prefill is not None and found.prefill.measured_s < found.prefill.floor_s:
        said.append(f"TTFT {found.prefill.measured_s * 1e3:.3g} ms, floor {found.prefill.floor_s * 1e3:.3g} ms")
    if found.limit_share is not None and found.limit_share > 1:
        said.append(f"{brief(found.output_tok_s or 0.0)} output tok/s, limit {brief(found.limit_tok_s or 0.0)}")
    if said:
        text = (
            f"{found.target} is faster than its floor on {found.gpus or 1} x {found.gpu}: {'; '.join(said)}. Wrong "
            "GPU, bandwidth, model or precision, or a shared prefix."
        )
        yield Doubt("faster_than_floor", text)


def _roofline(stand: Footing, valid: Sequence[Result]) -> Roofline | None:
    """The roofline of one replica at the mean lengths. Values of 4 bytes are moved at half the speed of those of 2."""
    lengths = [_mean(valid, Measure(name, "mean")) for name in ("in_tok", "out_tok")]
    if stand.shape is None or stand.gpu is None or not lengths[0] or not lengths[1]:
        return None
    bandwidth = stand.gpu.bandwidth_b_s / (2 if stand.wide else 1)
    return Roofline(
        shape=stand.shape,
        gpu=msgspec.structs.replace(stand.gpu, bandwidth_b_s=bandwidth),
        gpus=(stand.gpus or 1) // stand.replicas,
        input_tokens=max(1, round(lengths[0])),
        output_tokens=max(1, round(lengths[1])),
    )


def _mean(valid: Sequence[Result], what: Measure) -> float | None:
    return _average([result.summary.get(what) for result in valid])


def _average(values: Sequence[float | None]) -> float | None:
    """Of those that are known."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
