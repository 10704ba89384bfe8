"""Warms a model up and says how to make its engine: nothing that is measured later may be a first time.

The first prompt of a length and the first decode step of a size choose kernels and take memory from the driver; with
an empty allocator the steps that follow are several times slower. So prompts of several lengths and steps of several
sizes are run before the server listens, and what was run is logged and stands in /version.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from hf_batching import Batching, Policy
from hf_load import Loaded, Unusable
from hf_metrics import Metrics
from hf_paged import Paged, kv_capacity, make_manager
from hf_reply import Engine
from hf_slots import Slots, unfit

WARM_LENGTHS = (1, 16, 64, 256)
WARM_TIMEOUT_S = 600
Warm = tuple[Callable[[Metrics], Engine], str, int | None]
"""How to make the engine, what was warmed in words, and the tokens that the KV cache holds."""


def policy(args: argparse.Namespace, loaded: Loaded) -> Policy:
    """How requests are let in."""
    return Policy(
        way=args.batching,
        max_waiting=args.max_waiting,
        step_delay_s=args.step_delay_ms / 1000,
        ends=loaded.ends,
        seed=args.seed,
    )


async def warm_slots(args: argparse.Namespace, loaded: Loaded, thread: ThreadPoolExecutor) -> Warm:
    """Prompts of several lengths, then decode steps of several sizes, in the thread that will do the work: kernels are
    chosen at their first use, and some are kept per thread."""
    if reason := unfit(loaded.model.config):
        raise Unusable(f"--batching {args.batching} cannot run {args.model}: {reason}. Take --batching paged.")
    rows = 1 if args.batching == "none" else args.max_batch_size
    slots = Slots(loaded.model, rows, loaded.length)
    lengths = [length for length in WARM_LENGTHS if length < loaded.length]
    sizes = sorted({1, *(size for size in (2, 4, 8, 16, 32, 64) if size < rows), rows})

    def work() -> None:
        for length in lengths:
            slots.prefill([0] * length)
            slots.drop(0)
        for size in sizes:
            while slots.used < size:
                slots.prefill([0])
            slots.decode([0] * size)
        slots.reset()

    try:
        await asyncio.get_running_loop().run_in_executor(thread, work)
    except torch.OutOfMemoryError as error:
        raise Unusable(
            f"A KV cache of {rows} rows of {loaded.length} tokens does not fit beside {args.model} on {loaded.device}: "
            f"{str(error).splitlines()[0]} Start with a smaller --max-batch-size or --max-model-len."
        ) from error
    chosen = policy(args, loaded)
    words = f"prompts of {', '.join(map(str, lengths))} tokens, decode steps of {', '.join(map(str, sizes))} rows"
    return lambda metrics: Batching(slots, chosen, metrics, thread), words, rows * loaded.length


async def warm_paged(args: argparse.Namespace, loaded: Loaded, thread: ThreadPoolExecutor) -> Warm:
    """Starts transformers' manager and gives it batches of several sizes and lengths."""
    if args.step_delay_ms:
        raise Unusable("--step-delay-ms: transformers' own loop cannot be slowed; take --batching continuous.")
    rows, ends = args.max_batch_size, sorted(loaded.ends)
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

    try:
        await asyncio.get_running_loop().run_in_executor(thread, work)
    except Unusable:
        manager.stop(block=True, timeout=2.0, hard_stop=True)
        raise
    chosen = policy(args, loaded)
    words = f"prompts of {', '.join(map(str, lengths))} tokens, batches of {', '.join(map(str, sizes))} requests"

    def engine(metrics: Metrics) -> Engine:
        return Paged(manager, chosen, metrics, prefix_caching=args.prefix_caching)

    return engine, words, kv_capacity(manager)
