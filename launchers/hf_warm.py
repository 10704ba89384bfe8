"""Warms a model up and says how to make its engine: nothing that is measured later may be a first time.

The first prompt of a length and the first decode step of a size choose kernels and take memory from the driver; with
an empty allocator the steps that follow are several times slower. So prompts of several lengths and steps of several
sizes are run before the server listens, and what was run is logged and stands in /version. On a GPU that includes the
longest prompt and a step of all rows at full length: the allocator then holds the largest pieces that any step asks
for, cuts smaller ones out of them, and asks the driver for nothing more.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import hf_memory
import torch
from hf_batching import Batching, Policy
from hf_grown import Grown
from hf_load import Loaded, first_line
from hf_metrics import Metrics
from hf_options import Unusable, kv_cache
from hf_paged import Paged, kv_capacity, make_manager
from hf_ranks import Led, Ranks
from hf_recompute import Recompute
from hf_reply import Engine
from hf_slots import Rows, Slots, Way, step_rows, unfit

WARM_LENGTHS = (1, 16, 64, 256)
WARM_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
WARM_TIMEOUT_S = 600


@dataclass(frozen=True)
class Warm:
    """How to make the engine, what was warmed in words, the tokens that the KV cache holds (None where it is not
    known, or there is none), and how to read the GPUs' memory."""

    engine: Callable[[Metrics], Engine]
    words: str
    kv_tokens: int | None
    memory: Callable[[], hf_memory.Memory | None]


def policy(args: argparse.Namespace, loaded: Loaded) -> Policy:
    """How requests are let in."""
    return Policy(
        way=args.batching,
        max_waiting=args.max_waiting,
        step_delay_s=args.step_delay_ms / 1000,
        ends=loaded.ends,
        seed=args.seed,
    )


def make_rows(args: argparse.Namespace, loaded: Loaded) -> Rows:
    """The model with its rows, of this rank. Raises Unusable for a model that slots cannot hold."""
    count = 1 if args.batching == "none" else args.max_batch_size
    every = args.prompt_logits == "all"
    if args.no_kv_cache:
        return Recompute(loaded.model, count, loaded.cuda_devices, all_logits=every)
    if reason := unfit(loaded.model.config):
        raise Unusable(f"--batching {args.batching} cannot run {args.model}: {reason}. Take --batching paged.")
    way = Way(
        static=args.static_cache,
        compiled=None if args.compile == "none" else args.compile,
        all_logits=every,
        devices=loaded.cuda_devices,
    )
    if kv_cache(args) == "grown":
        return Grown(loaded.model, way)
    return Slots(loaded.model, count, loaded.length, way)


async def warm_slots(
    args: argparse.Namespace, loaded: Loaded, thread: ThreadPoolExecutor, ranks: Ranks | None = None
) -> Warm:
    """Prompts of several lengths, then decode steps of several sizes, in the thread that will do the work: kernels are
    chosen at their first use, and some are kept per thread."""
    own = make_rows(args, loaded)
    slots = own if ranks is None else Led(own, ranks)
    try:
        words = await asyncio.get_running_loop().run_in_executor(thread, run_warm, args, loaded, slots)
    except torch.OutOfMemoryError as error:
        raise Unusable(
            f"A KV cache of {slots.rows} rows of {loaded.length} tokens does not fit beside {args.model} on "
            f"{loaded.device}: {first_line(error)} Start with a smaller --max-batch-size or --max-model-len."
        ) from error
    chosen = policy(args, loaded)
    tokens = None if args.no_kv_cache else slots.rows * loaded.length
    return Warm(lambda metrics: Batching(slots, chosen, metrics, thread), words, tokens, slots.memory)


def run_warm(args: argparse.Namespace, loaded: Loaded, slots: Rows) -> str:
    """Runs the model at the sizes that requests will have; what was run, in words."""
    lengths = [length for length in WARM_LENGTHS if length < loaded.length]
    sizes = sorted({size for size in WARM_SIZES if size < slots.rows} | {slots.rows})
    on_gpu = loaded.device != "cpu"
    for length in lengths:
        warm_prompt(slots, length)
    for size in sizes:
        while slots.used < size:
            slots.prefill([0])
        slots.decode([0] * size)
    slots.cut(0)
    words = f"prompts of {listed(lengths)} tokens, decode steps of {listed(sizes)} rows"
    if args.compile != "none":  # the second and third run of a shape record it
        for size in sizes * 2:
            slots.pretend(step_rows(size, slots.rows), 1)
            slots.decode([0] * slots.used)
        slots.cut(0)
    if on_gpu and not args.no_kv_cache:
        words += warm_fully(slots, loaded.length)
    slots.reset_memory()
    return words


def warm_prompt(slots: Rows, length: int) -> None:
    """One prompt of so many tokens, and its row free again."""
    slots.prefill([0] * length)
    slots.cut(0)


def warm_fully(slots: Rows, length: int) -> str:
    """The longest prompt and the largest steps; what was run, in words. A prompt that is too long for the memory is
    said and not an error: requests of that length will be answered with 503."""
    said = ""
    size = slots.rows
    while size:  # every row at its last position: the largest copies that a step makes
        slots.pretend(size, length - 1)
        slots.decode([0] * size)
        size //= 2
    slots.cut(0)
    try:
        warm_prompt(slots, length - 1)
        said = f", a prompt of {length - 1} tokens"
    except torch.OutOfMemoryError as error:
        slots.cut(0)
        said = f", not a prompt of {length - 1} tokens, for which the memory is too small ({first_line(error)})"
    return f", decode steps of up to {slots.rows} rows of {length} tokens{said}"


def listed(numbers: Sequence[int]) -> str:
    """Numbers for a sentence."""
    return ", ".join(map(str, numbers))


async def warm_paged(args: argparse.Namespace, loaded: Loaded, thread: ThreadPoolExecutor) -> Warm:
    """Starts transformers' manager and gives it batches of several sizes and lengths."""
    if args.step_delay_ms:
        raise Unusable("--step-delay-ms: transformers' own loop cannot be slowed; take --batching continuous.")
    rows, ends, devices = args.max_batch_size, sorted(loaded.ends), loaded.cuda_devices
    try:
        manager = make_manager(
            loaded.model, rows=rows, length=loaded.length, ends=ends, prefix_caching=args.prefix_caching
        )
    except ValueError as error:
        raise Unusable(f"--batching paged cannot run {args.model}: {error}") from error
    manager.start()
    lengths = [length for length in WARM_LENGTHS if length < loaded.length - 2]
    sizes = sorted({1, min(4, rows), rows})

    def work() -> None:
        for length, count in [*((length, 1) for length in lengths), *((1, size) for size in sizes)]:
            for _ in range(count):
                manager.add_request([0] * length, max_new_tokens=2, eos_token_id=-1)
            ended = 0
            while ended < count:
                output = manager.get_result(timeout=WARM_TIMEOUT_S)
                if output is None or output.error:
                    reason = output.error if output else "its thread has ended"
                    raise Unusable(f"--batching paged cannot run {args.model}: {reason}; the log has the rest.")
                ended += output.is_finished()
        hf_memory.reset(devices)

    try:
        await asyncio.get_running_loop().run_in_executor(thread, work)
    except Unusable:
        manager.stop(block=True, timeout=2.0, hard_stop=True)
        raise
    chosen = policy(args, loaded)
    words = f"prompts of {listed(lengths)} tokens, batches of {listed(sizes)} requests"

    def engine(metrics: Metrics) -> Engine:
        return Paged(manager, chosen, metrics, prefix_caching=args.prefix_caching, devices=devices)

    return Warm(engine, words, kv_capacity(manager), lambda: hf_memory.read(devices))
