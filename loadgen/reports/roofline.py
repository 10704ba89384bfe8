"""Rooflines as text or as plain values: a table, the crossings in sentences, a plot. In: one or two `Roofline`.

The second model is the candidate: ratios are of its speed to the first one's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise, product
from typing import Any

import msgspec

from loadgen.reports.plot import plot
from loadgen.reports.rows import plain
from loadgen.reports.text import aligned, wrapped
from loadgen.shapes.roofline import MEASURES, Roofline, crossings, gain

NOTES = (
    "decode ms: one step of the whole batch; prefill ms: all of its prompts. output tok/s: each phase at its floor, "
    "one after the other; mixed tok/s: the limit where an engine hides one phase behind the other without loss.",
    "These are floors, not forecasts. Launches, activations, the exchange between GPUs and uneven experts come on top; "
    "docs/roofline.md says what is left out.",
)
ROLES = ("baseline", "candidate")


class _Column(msgspec.Struct, frozen=True):
    """One column of the table. ``yields``: rank in which it gives way on a narrow screen; 0 stays."""

    head: str
    cell: Callable[[Roofline, int], str]
    yields: int = 0


COLUMNS = (
    _Column("decode ms", lambda one, batch: _number(one.decode(batch).seconds * 1e3)),
    _Column("decode bound", lambda one, batch: one.decode(batch).bound, 2),
    _Column("prefill ms", lambda one, batch: _number(one.prefill(batch).seconds * 1e3), 1),
    _Column("prefill bound", lambda one, batch: one.prefill(batch).bound, 3),
    _Column("output tok/s", lambda one, batch: _number(one.output_tok_s(batch))),
    _Column("mixed tok/s", lambda one, batch: _number(one.limit_tok_s(batch)), 5),
    _Column("memory GB", lambda one, batch: _memory(one, batch), 4),
)


def render(rooflines: Sequence[Roofline], batches: Sequence[int], width: int, unicode: bool = True) -> str:
    """What ``loadgen roofline`` prints, in lines of at most ``width`` characters where words allow."""
    lines = wrapped(_title(rooflines[0]), width)
    for one, role in zip(rooflines, ROLES, strict=False):
        lines += wrapped(f"{role} {_model(one)}" if len(rooflines) == 2 else _model(one), width, "  ")
    lines += ["", *_table(rooflines, batches, width)]
    lines.append("")
    for sentence in (*_crossing_sentences(rooflines, batches), *map(_bound, rooflines), *map(_room, rooflines)):
        lines += wrapped(sentence, width, "  ")
    lines += [
        "",
        *_plot(rooflines, batches, width, unicode),
        *(part for note in NOTES for part in wrapped(note, width)),
    ]
    text = "\n".join(lines) + "\n"
    return text if unicode else text.replace("×", "x").encode("ascii", "replace").decode()


def values(rooflines: Sequence[Roofline], batches: Sequence[int]) -> dict[str, Any]:
    """What ``loadgen roofline --json`` prints: seconds, bytes and tokens/s, in the order of the models and batches."""
    first = rooflines[0]
    return {
        "gpu": first.gpu.name,
        "gpus": first.gpus,
        "memory_bytes": first.gpu.memory_bytes,
        "bandwidth_b_s": first.gpu.bandwidth_b_s,
        "input_tokens": first.input_tokens,
        "output_tokens": first.output_tokens,
        "models": [_model_values(one, batches) for one in rooflines],
        "crossings": [
            {"measure": found.measure, "batch": found.at, "direction": found.direction}
            for baseline, candidate in _pairs(rooflines)
            for found in crossings(baseline, candidate, batches)
        ],
    }


def _model_values(one: Roofline, batches: Sequence[int]) -> dict[str, Any]:
    shape = one.shape
    return {
        "name": shape.name,
        "architecture": shape.architecture,
        "dtype": shape.stored.name,
        "flop_s": one.peak_flop_s,
        "parameters": shape.total,
        "active_parameters": shape.active,
        "active_without_embedding": shape.active_without_embedding,
        "weight_bytes": shape.weight_bytes(shape.stored),
        "kv_bytes_per_token": shape.kv_bytes_per_token(),
        "compute_bound_from": one.compute_bound_from(one.decode),
        "compute_bound_from_without_context": one.compute_bound_from(one.decode_without_context),
        "requests_that_fit": one.capacity(),
        "points": [
            {
                "batch": batch,
                "decode_step_s": one.decode(batch).seconds,
                "decode_bound": one.decode(batch).bound,
                "decode_bytes": one.decode(batch).bytes,
                "decode_flops": one.decode(batch).flops,
                "prefill_s": one.prefill(batch).seconds,
                "prefill_bound": one.prefill(batch).bound,
                "request_s": one.request_s(batch),
                "output_tok_s": one.output_tok_s(batch),
                "mixed_tok_s": one.limit_tok_s(batch),
                "memory_bytes": one.memory_bytes(batch),
            }
            for batch in batches
        ],
    }


def _title(one: Roofline) -> str:
    return (
        f"On {_place(one)} ({one.gpu.bandwidth_b_s / 1e12:.3g} TB/s each): {one.input_tokens:,} tokens in, "
        f"{one.output_tokens} out"
    )


def _place(one: Roofline) -> str:
    return f"{one.gpus} × {one.gpu.name}"


def _model(one: Roofline) -> str:
    shape = one.shape
    active = ""
    if shape.experts:
        active = (
            f", {shape.active / 1e9:.3f} B active ({shape.active_without_embedding / 1e9:.3f} B without the input "
            f"embedding), {shape.experts.per_token} of {shape.experts.number} experts"
        )
    return (
        f"{shape.name}: {shape.total / 1e9:.3f} B parameters{active}; {shape.stored.name}: "
        f"{shape.weight_bytes(shape.stored) / 1e9:.1f} GB of weights, multiplied at {one.peak_flop_s / 1e12:.0f} "
        f"TFLOP/s; {shape.kv_bytes_per_token()} bytes of KV cache a token"
    )


def _table(rooflines: Sequence[Roofline], batches: Sequence[int], width: int) -> list[str]:
    columns, names = list(COLUMNS), [plain(one.shape.name) for one in rooflines]
    while True:
        lines = aligned(list(_rows(rooflines, batches, columns, names)), left=len(rooflines))
        if max(map(len, lines)) <= width:
            break
        most = max(columns, key=lambda column: column.yields)
        if most.yields:
            columns.remove(most)
        elif names != list(ROLES[: len(names)]):
            names = list(ROLES[: len(names)])
        else:
            break
    left_out = [column.head for column in COLUMNS if column not in columns]
    if "memory GB" not in left_out and any(batch > one.capacity() for one in rooflines for batch in batches):
        lines.append("* more than the memory there is")
    return lines + (wrapped(f"left out at this width: {', '.join(left_out)}", width) if left_out else [])


def _rows(
    rooflines: Sequence[Roofline], batches: Sequence[int], columns: Sequence[_Column], names: Sequence[str]
) -> Iterator[list[str]]:
    """The header and the rows; one model needs no column for its name, two have columns for their ratios."""
    two = len(rooflines) == 2
    heads = [column.head for column in columns]
    yield ["batch", "model", *heads, "decode ×", "request ×"] if two else ["batch", *heads]
    for batch in batches:
        for one, name in zip(rooflines, names, strict=True):
            cells = [str(batch), *([name] if two else []), *(column.cell(one, batch) for column in columns)]
            if two:
                second = one is rooflines[1]
                cells += [_ratio(rooflines[0], one, measure, batch) if second else "" for measure in MEASURES]
            yield cells


def _pairs(rooflines: Sequence[Roofline]) -> list[tuple[Roofline, Roofline]]:
    """Baseline and candidate, where there are two."""
    return list(pairwise(rooflines))


def _ratio(baseline: Roofline, candidate: Roofline, measure: str, batch: int) -> str:
    return f"{gain(baseline, candidate, measure, batch):.2f}"


def _number(value: float) -> str:
    """Four significant digits, without an exponent."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:#.4g}"


def _memory(one: Roofline, batch: int) -> str:
    return f"{one.memory_bytes(batch) / 1e9:.1f}{'*' if batch > one.capacity() else ''}"


def _crossing_sentences(rooflines: Sequence[Roofline], batches: Sequence[int]) -> Iterator[str]:
    """One sentence a measure: who leads at the smallest batch size, and every change from there on."""
    for (baseline, candidate), name in product(_pairs(rooflines), MEASURES):
        first, last = min(batches), max(batches)
        found = [one for one in crossings(baseline, candidate, batches) if one.measure == name]
        changes = [f"{one.direction} at {one.at:.1f}" for one in found]
        course = ", ".join(changes) if changes else f"no crossing in {first}..{last}"
        yield (
            f"{name}: {candidate.shape.name} is {gain(baseline, candidate, name, first):.2f} times as fast as "
            f"{baseline.shape.name} at batch size {first}, {gain(baseline, candidate, name, last):.2f} times at "
            f"{last}: {course}"
        )


def _bound(one: Roofline) -> str:
    context, weights = one.compute_bound_from(one.decode), one.compute_bound_from(one.decode_without_context)
    there = "at every batch size" if context is None else f"below batch size {context}"
    alone = "nothing would change" if weights is None else f"it would be below {weights}"
    return (
        f"{one.shape.name}: decoding is bound by bandwidth {there} at this length; without the reads of the KV cache "
        f"{alone}"
    )


def _room(one: Roofline) -> str:
    total = one.input_tokens + one.output_tokens
    if one.capacity():
        return (
            f"{one.shape.name}: the KV cache of {one.capacity():,} requests of {total:,} tokens fits beside the weights"
        )
    return (
        f"{one.shape.name}: does not fit on {_place(one)}: a request of {total:,} tokens takes "
        f"{one.memory_bytes(1) / 1e9:.1f} of {one.gpus * one.gpu.memory_bytes / 1e9:.0f} GB"
    )


def _plot(rooflines: Sequence[Roofline], batches: Sequence[int], width: int, unicode: bool) -> list[str]:
    if len(batches) < 2:
        return []
    for baseline, candidate in _pairs(rooflines):
        ratios = {name: [(batch, gain(baseline, candidate, name, batch)) for batch in batches] for name in MEASURES}
        heading = f"{candidate.shape.name}: times as fast as {baseline.shape.name}, by batch size"
        return [*wrapped(heading, width), *plot(ratios, width, unicode, level=1.0), ""]
    one = rooflines[0]
    rates = {
        "one phase after the other": [(batch, one.output_tok_s(batch)) for batch in batches],
        "mixed without loss": [(batch, one.limit_tok_s(batch)) for batch in batches],
    }
    return [*wrapped(f"{one.shape.name}: output tok/s, by batch size", width), *plot(rates, width, unicode), ""]
