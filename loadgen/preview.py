"""What a scenario would send, before anything is sent: how many requests, when, how long, and what they share.

In: the cells of a scenario. Out: a `Preview` of the first repeat of each. Sources that can tell what a prompt is like
without making it are asked for up to `MOST` requests; of the others `SAMPLE` prompts are made and counted, by the
model's tokenizer where it is at hand. Nothing is started, and no model is needed.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from loadgen.arrival import offsets
from loadgen.drive.job import Shape
from loadgen.offered import shape_of
from loadgen.plan import seed_of
from loadgen.record import Prompt
from loadgen.scenario import Cell
from loadgen.statistics import nearest_rank
from loadgen.targets import local_model
from loadgen.workloads import Context, Conversing, Source
from loadgen.workloads.outline import Outline, Outlining, Prefixes, hit, outline_of
from loadgen.workloads.replies import open_source
from loadgen.workloads.template import count_tokens

MOST = 100_000
SAMPLE = 1000
BINS = 48
"""Bars of each histogram."""

CACHE_BLOCK = 16
"""The block of a prefix cache where a target does not say: what most engines begin with."""

_VOCABULARY = 32_000
"""A stand-in where the model is not here: which ids are drawn changes no length."""


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """The lengths of prompts or replies in tokens: ``bins`` counts them in even steps from min to max,
    at most `BINS`."""

    n: int
    min: int
    max: int
    mean: float
    p50: float
    p90: float
    p99: float
    bins: tuple[int, ...]


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """What prompts share with earlier ones, as a share of all prompt tokens, if a prefix cache forgot nothing:
    ``tokens`` token by token, ``blocks`` in whole blocks of ``cache_block``. ``distinct_tok`` prompt tokens would be in
    the cache at the end."""

    tokens: float
    blocks: float
    cache_block: int
    distinct_tok: int


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """The first repeat of a cell. ``requests`` is None for a closed loop without a count: it depends on the server.

    ``seen`` is how many requests were looked at, ``warmup`` how many of these are sent in the warm-up, ``length_s`` how
    long they are sent for. ``rates_rps`` are the rates over `BINS` even steps of that time, None for a closed loop.
    ``input`` is None where nobody can count prompts here; ``bare`` where they were counted without the server's chat
    template. Of conversations all this is of first turns; ``turns`` is how many they have, ``think_s`` the mean time
    between a reply and the next turn. ``sources`` counts requests by workload, ``about`` is the source's own
    description.
    """

    cell: str
    requests: int | None
    seen: int
    warmup: int | None = None
    length_s: float | None = None
    rates_rps: tuple[float, ...] | None = None
    input: Spread | None
    bare: bool = False
    output: Spread
    exact: bool
    turns: Spread | None = None
    think_s: float | None = None
    sources: dict[str, int]
    shared: Shared | None = None
    about: dict[str, Any]


def preview(cell: Cell, folder: Path) -> Preview:
    """The preview of a cell; ``folder`` is the scenario's. Raises UsageError for what could not be sent."""
    workload, load = cell.scenario.workload, cell.scenario.load
    target = next(iter(cell.scenario.targets.values()))
    model = local_model(folder, target)
    context = Context(
        seed=seed_of(cell, 1),
        folder=str(folder),
        template=workload.template,
        model_path=model,
        vocab_size=_VOCABULARY,
        **workload.output.asked,
    )
    source = open_source(workload.prompts, workload.settings, context)
    shape = shape_of(load, workload, folder)
    most = MOST if isinstance(source, Outlining) else SAMPLE
    times, whole = _times(shape, context.seed, most)
    count = len(times) if times is not None else min(load.requests or SAMPLE, most)
    outlines, bare = _outlines(source, count, model)
    block = target.options.get("kv_block")
    inputs = [one.in_tok for one in outlines if one.in_tok is not None]
    return Preview(
        cell=cell.id,
        requests=load.requests if times is None else whole,
        seen=len(outlines),
        **_over_time(times, shape),
        input=spread(inputs) if inputs and len(inputs) == len(outlines) else None,
        bare=bare,
        output=spread([one.ask_tok for one in outlines]),
        exact=workload.output.exact is not None,
        **_talks(source, min(count, SAMPLE)),
        sources=dict(Counter(one.source for one in outlines)),
        shared=shared(outlines, block if isinstance(block, int) else CACHE_BLOCK),
        about=source.describe(),
    )


def _times(shape: Shape, seed: int, most: int) -> tuple[list[float] | None, int | None]:
    """When requests are sent, at most so many, and how many there are in all (None where they are more than that)."""
    if shape.arrival is None:
        return None, None
    end = float("inf") if shape.window_s is None else (shape.warmup_s or 0.0) + shape.window_s
    stream: Iterator[float] = itertools.takewhile(lambda at: at < end, offsets(shape.arrival, seed))
    if shape.requests is not None:
        stream = _measured(stream, shape.warmup_s or 0.0, shape.requests)
    times = list(itertools.islice(stream, most + 1))
    return times[:most], len(times) if len(times) <= most else None


def _measured(stream: Iterable[float], warmup_s: float, requests: int) -> Iterator[float]:
    """The stream until so many requests after the warm-up."""
    for at in stream:
        if at >= warmup_s:
            requests -= 1
        if requests < 0:
            return
        yield at


def _over_time(times: Sequence[float] | None, shape: Shape) -> dict[str, Any]:
    if not times:
        return {}
    length = max(times[-1], 1e-9)
    counts = Counter(min(int(at / length * BINS), BINS - 1) for at in times)
    warmup = sum(at < (shape.warmup_s or 0.0) for at in times)
    rates = tuple(counts[i] / (length / BINS) for i in range(BINS)) if times[-1] > 0 else None
    return {"length_s": times[-1], "warmup": warmup, "rates_rps": rates}


def _outlines(source: Source, count: int, model: str | None) -> tuple[list[Outline], bool]:
    """What is known of each request; prompts of which nobody knows the length are counted, if that can be done here.
    True if any of them were messages, which the server puts into its template."""
    if isinstance(source, Outlining):
        found = [source.outline(index) for index in range(count)]
        if all(one.in_tok is not None for one in found):
            return found, False
        count, found = min(count, SAMPLE), found[:SAMPLE]
    else:
        found = [outline_of(source, index) for index in range(count)]
    counter = count_tokens(model)
    if counter is None or all(one.in_tok is not None for one in found):
        return found, False
    prompts = [source.session(index)[0] for index in range(count)]
    counted = [
        one if one.in_tok is not None else msgspec.structs.replace(one, in_tok=counter(_text(prompt)))
        for one, prompt in zip(found, prompts, strict=True)
    ]
    return counted, any(prompt.messages is not None for prompt in prompts)


def _talks(source: Source, count: int) -> dict[str, Any]:
    """How many turns conversations have, and how long their users think; nothing where there are none."""
    if not isinstance(source, Conversing) or not count:
        return {}
    talks = [source.session(index) for index in range(count)]
    thought = [prompt.think_s for turns in talks for prompt in turns[1:]]
    think_s = sum(thought) / len(thought) if thought else None
    return {"turns": spread([len(turns) for turns in talks]), "think_s": think_s}


def _text(prompt: Prompt) -> str:
    if prompt.messages is not None:
        return "\n".join(message.content for message in prompt.messages)
    return prompt.text or ""


def spread(lengths: Sequence[int]) -> Spread:
    """The spread of at least one length."""
    ordered = sorted(lengths)
    low, high = ordered[0], ordered[-1]
    steps = min(BINS, high - low + 1)
    counts = Counter((length - low) * steps // (high - low + 1) for length in ordered)
    return Spread(
        n=len(ordered),
        min=low,
        max=high,
        mean=sum(ordered) / len(ordered),
        p50=nearest_rank(ordered, 0.5),
        p90=nearest_rank(ordered, 0.9),
        p99=nearest_rank(ordered, 0.99),
        bins=tuple(counts[i] for i in range(steps)),
    )


def shared(outlines: Sequence[Outline], cache_block: int) -> Shared | None:
    """What prompts share with those before them, in the order of sending; None where they share nothing."""
    seen = Prefixes()
    total = tokens = blocks = 0
    for one in outlines:
        if one.in_tok is None:
            return None
        same = seen.take(one.blocks)
        total, tokens, blocks = total + one.in_tok, tokens + same, blocks + hit(same, one.in_tok, cache_block)
    if not tokens:
        return None
    return Shared(tokens=tokens / total, blocks=blocks / total, cache_block=cache_block, distinct_tok=total - tokens)
