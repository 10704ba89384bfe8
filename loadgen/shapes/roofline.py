"""The least time that a GPU can take: the roofline of a model, batch by batch, and where two models cross.

In: a `ModelShape`, a `Gpu`, lengths. Out: floors in seconds, predicted tokens/s, crossings. Nothing is measured here.

A step moves bytes and does operations; it cannot take less than the longer of the two (Williams, Waterman, Patterson:
Roofline, 2009)::

    decoding, B sequences   bytes = weights(B) + B · KV of the context        FLOPs = B · (2 · active + attention)
    prefill, B prompts      bytes = weights(B · input) + KV written           FLOPs = B · input · (2 · active + ...)

where weights(T) holds each weight once, and of the routed experts those that T tokens are expected to hit. A model is
bound by bandwidth while the bytes take longer. Without context, a dense bf16 model leaves that state near the GPU's
FLOPs per byte, and one of E experts, k a token, up to E / k times later; KV grows with the batch as well, so that it
may never with a long context.

What is left out makes real times longer, never shorter: activations, kernel launches, the exchange between GPUs of a
tensor-parallel group, KV heads that such a group holds twice, scheduling, sampling.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import Literal

import msgspec

from loadgen.errors import UsageError
from loadgen.shapes.model_shape import ModelShape
from loadgen.shapes.precision import PLAIN_BYTES


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """Peaks of one GPU: bytes, bytes/s, and dense FLOP/s of its tensor cores. ``fp8_flop_s`` is None without fp8."""

    name: str
    memory_bytes: float
    bandwidth_b_s: float
    bf16_flop_s: float
    fp8_flop_s: float | None


GPUS: Mapping[str, Gpu] = MappingProxyType(
    {
        name: Gpu(
            name=full,
            memory_bytes=memory * 1e9,
            bandwidth_b_s=bandwidth * 1e12,
            bf16_flop_s=bf16 * 1e12,
            fp8_flop_s=None if fp8 is None else fp8 * 1e12,
        )
        for name, full, memory, bandwidth, bf16, fp8 in (
            # Dense figures: vendors' tables often print those with sparsity, twice as much. The first three are
            # NVIDIA's as glennklockwood.com/garden/processors cites them.
            ("h200", "H200 SXM", 141, 4.8, 989.4, 1979.0),
            ("h100", "H100 SXM", 80, 3.35, 989.4, 1979.0),
            ("a100", "A100 80GB SXM", 80, 2.039, 312.0, None),
            # With fp32 accumulation (waredb.com); twice that is fp16 accumulation or sparsity.
            ("4090", "RTX 4090", 24, 1.008, 165.2, 330.3),
            # A reseller's copy of NVIDIA's table.
            ("l40s", "L40S", 48, 0.864, 362.05, 733.0),
            # Secondary copies of AMD's figures; the fp8 peak is uncertain.
            ("mi300x", "MI300X", 192, 5.3, 1307.4, 2614.9),
        )
    }
)
"""By the name that a user gives."""


def gpu(name: str, bandwidth_b_s: float | None = None) -> Gpu:
    """The GPU of this name, with a measured bandwidth in place of its vendor's. Raises UsageError with the list."""
    found = GPUS[gpu_key(name)]
    return found if bandwidth_b_s is None else msgspec.structs.replace(found, bandwidth_b_s=bandwidth_b_s)


def gpu_key(name: str) -> str:
    """The name of a GPU as it stands in `GPUS`. Raises UsageError with the list."""
    key = name.lower().replace("-", "").replace(" ", "").removeprefix("rtx")
    if key not in GPUS:
        near = difflib.get_close_matches(key, GPUS, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(f"gpu {name!r}: {hint}There are {', '.join(GPUS)}.")
    return key


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """One step, or one prefill: what it moves and does, and how long each takes at the peaks (s)."""

    bytes: float
    flops: float
    bandwidth_s: float
    compute_s: float

    @property
    def seconds(self) -> float:
        """The least time."""
        return max(self.bandwidth_s, self.compute_s)

    @property
    def bound(self) -> Literal["bandwidth", "compute"]:
        """What the time is spent on."""
        return "bandwidth" if self.bandwidth_s >= self.compute_s else "compute"


class Roofline(msgspec.Struct, frozen=True, kw_only=True):
    """One model on ``gpus`` GPUs that split it perfectly; its weights are in the precision of its shape.

    ``input_tokens`` and ``output_tokens`` are those of every request; all of a batch run in step.
    """

    shape: ModelShape
    gpu: Gpu
    gpus: int
    input_tokens: int
    output_tokens: int

    @property
    def peak_flop_s(self) -> float:
        """FLOP/s of one GPU in the arithmetic that the weights are multiplied in."""
        fp8 = self.gpu.fp8_flop_s if self.shape.stored.fp8_compute else None
        return self.gpu.bf16_flop_s if fp8 is None else fp8

    def decode(self, batch: float) -> Floor:
        """One decode step of ``batch`` sequences, the mean over the steps of a reply.

        A reply of n tokens has n - 1 steps, at contexts of input + 1 to input + n - 1; with n = 1, the step that would
        follow. Bytes and FLOPs are means over those, so this is a floor of their mean time as well (Jensen).
        """
        first = self.input_tokens + 1
        return self._step(
            batch, self.shape.layer_contexts(first, max(first, self.input_tokens + self.output_tokens - 1))
        )

    def decode_without_context(self, batch: float) -> Floor:
        """One decode step in which the KV cache costs nothing: what the weights alone take."""
        return self._step(batch, 0.0)

    def prefill(self, batch: float) -> Floor:
        """The prompts of ``batch`` requests at once: every weight read once, the output matrix used once a prompt."""
        shape, tokens = self.shape, batch * self.input_tokens
        attended = self.input_tokens * shape.layer_contexts(1, self.input_tokens)
        head = 2 * shape.embedding
        flops = tokens * (shape.token_flops() - head) + batch * (head + attended * shape.attention.prefill_flops)
        return self._floor(shape.read_bytes(tokens, shape.stored) + tokens * shape.kv_bytes_per_token(), flops)

    def request_s(self, batch: float) -> float:
        """A whole request: the prefill of its batch, then its decode steps."""
        return self.prefill(batch).seconds + (self.output_tokens - 1) * self.decode(batch).seconds

    def output_tok_s(self, batch: float) -> float:
        """Predicted output tokens/s at the floor of each phase, one phase after the other."""
        return batch * self.output_tokens / self.request_s(batch)

    def limit_tok_s(self, batch: float) -> float:
        """Output tokens/s that no schedule can pass: operations hidden behind the bytes of decoding, or the reverse.

        An engine that mixes prompts into its decode steps (chunked prefill) may come between this and `output_tok_s`.
        """
        prefill, decode, steps = self.prefill(batch), self.decode(batch), self.output_tokens - 1
        least = max(steps * decode.bandwidth_s, prefill.compute_s + steps * decode.compute_s)
        return batch * self.output_tokens / least

    def memory_bytes(self, batch: float) -> float:
        """Weights, and the KV cache of ``batch`` whole requests, over all GPUs."""
        tokens = batch * (self.input_tokens + self.output_tokens)
        return self.shape.weight_bytes(self.shape.stored) + tokens * self.shape.kv_bytes_per_token()

    def capacity(self) -> int:
        """The most requests whose KV cache fits beside the weights, with room for nothing else; 0 if none does."""
        free = self.gpus * self.gpu.memory_bytes - self.memory_bytes(0)
        return max(0, math.floor(free / (self.memory_bytes(1) - self.memory_bytes(0))))

    def compute_bound_from(self, floor: Callable[[float], Floor], limit: int = 1 << 20) -> int | None:
        """The smallest batch size up to ``limit`` at which a step is bound by compute; None if it never is.

        ``floor`` is `decode` or `decode_without_context`: bytes are concave in the batch size and FLOPs are linear, so
        that there is one change at most.
        """
        if floor(limit).bound == "bandwidth":
            return None
        low, high = 0, limit
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if floor(middle).bound == "bandwidth" else (low, middle)
        return high

    def _step(self, batch: float, attended: float) -> Floor:
        """``attended``: tokens that one sequence attends to, summed over layers."""
        shape = self.shape
        kv_bytes = attended * shape.attention.kv_values * PLAIN_BYTES
        flops = batch * (shape.token_flops() + attended * shape.attention.decode_flops)
        return self._floor(shape.read_bytes(batch, shape.stored) + batch * kv_bytes, flops)

    def _floor(self, moved: float, flops: float) -> Floor:
        return Floor(
            bytes=moved,
            flops=flops,
            bandwidth_s=moved / (self.gpus * self.gpu.bandwidth_b_s),
            compute_s=flops / (self.gpus * self.peak_flop_s),
        )


class Crossing(msgspec.Struct, frozen=True, kw_only=True):
    """Where the better of two models changes, by a measure of `MEASURES`: at batch size ``at``, mostly between two.

    ``direction`` is the candidate's: it ``overtakes`` the baseline from there on, or it ``falls behind``.
    """

    measure: str
    at: float
    direction: Literal["overtakes", "falls behind"]


MEASURES: Mapping[str, Callable[[Roofline, float], float]] = MappingProxyType(
    {
        "decode step": lambda one, batch: one.decode(batch).seconds,
        "whole request": lambda one, batch: one.request_s(batch),
    }
)
"""Times by which two models are compared (s), by name; less is better."""


def crossings(baseline: Roofline, candidate: Roofline, batches: Sequence[int]) -> Iterator[Crossing]:
    """Every crossing between the smallest and the largest of ``batches``, by every measure, in ascending batch size."""
    for name in MEASURES:
        faster = partial(gain, baseline, candidate, name)
        points = [(batch, faster(batch) - 1) for batch in _grid(min(batches), max(batches))]
        # Equal at a point is no side; the change is then between its neighbours.
        for (low, before), (high, after) in pairwise([point for point in points if abs(point[1]) > 1e-12]):
            if before * after < 0:
                yield Crossing(
                    measure=name,
                    at=_passes_one(faster, low, high),
                    direction="overtakes" if after > 0 else "falls behind",
                )


def gain(baseline: Roofline, candidate: Roofline, measure: str, batch: float) -> float:
    """How many times faster the candidate is by a measure of `MEASURES`: above 1 it is better."""
    return MEASURES[measure](baseline, batch) / MEASURES[measure](candidate, batch)


def _grid(first: int, last: int) -> list[float]:
    """Points from first to last, 64 to a doubling: two crossings within 1 % of each other would go unseen."""
    steps = math.ceil(64 * math.log2(last / first)) if last > first else 0
    return [first * (last / first) ** (i / steps) for i in range(steps + 1)] if steps else [float(first)]


def _passes_one(ratio: Callable[[float], float], low: float, high: float) -> float:
    """Where a ratio passes 1 between two points, on different sides of which it stands there."""
    rising = ratio(low) < 1
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if (ratio(middle) < 1) == rising else (low, middle)
    return (low + high) / 2
