"""Batching by transformers' own ContinuousBatchingManager: a paged cache, prompts computed in pieces beside decodes.

It runs in a thread of its own and hands each step's tokens to the event loop without waiting for them to be sent. It
decodes greedily only: its sampling is a property of the whole batch. Sizes are given so that it starts small on a CPU,
where its defaults take gigabytes; on a GPU its own choices stand.

Measured over HTTP on one core with two small models, against `hf_batching`: one request at a time 5 to 10 % slower; 16
at once with prompts of 100 tokens as fast, with prompts of 450 tokens a quarter to a third slower; the first token
takes three times as long at 16, because prompts share the steps with the decodes. Without flash attention every packed
sequence attends over the keys of all others, masked. So it is asked for by name.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
from collections.abc import Sequence
from typing import Any

import hf_memory
from hf_batching import Policy
from hf_metrics import Metrics
from hf_reply import Ask, Refused, Reply, Token

PAGE = 32
CPU_BATCH_TOKENS = 256
CPU_FULL_SEQUENCES = 4
"""On a CPU the cache holds this many sequences of the greatest length, or more shorter ones."""


def make_manager(model: Any, *, rows: int, length: int, ends: Sequence[int], prefix_caching: bool) -> Any:
    """transformers' manager for a model, not started."""
    hub: Any = importlib.import_module("transformers")
    names = {field.name for field in dataclasses.fields(hub.ContinuousBatchingConfig)}
    sizes: dict[str, Any] = {"max_requests_per_batch": rows, "allow_block_sharing": prefix_caching}
    if model.device.type == "cpu":
        sizes |= {
            "page_size" if "page_size" in names else "block_size": PAGE,
            "num_blocks": -(-length * min(rows, CPU_FULL_SEQUENCES) // PAGE),
            "max_batch_tokens": max(CPU_BATCH_TOKENS, rows),
            "use_async_batching": False,
            "use_cuda_graph": False,
            "auto_switch_to_flash": False,
        }
    # the names changed between versions of transformers 5: only those that this one has are given
    config = hub.ContinuousBatchingConfig(**{name: value for name, value in sizes.items() if name in names})
    ending = hub.GenerationConfig(do_sample=False, eos_token_id=list(ends) or -1, max_new_tokens=length)
    return model.init_continuous_batching(generation_config=ending, continuous_batching_config=config)


def kv_capacity(manager: Any) -> int | None:
    """Tokens that the cache holds, once the manager has made it; None where this version does not say."""
    config = manager.continuous_batching_config
    page = getattr(config, "page_size", None) or getattr(config, "block_size", None)
    blocks = getattr(config, "num_blocks", None)
    return page * blocks if page and blocks else None


class Paged:
    """The engine over transformers' manager, which runs already."""

    def __init__(
        self, manager: Any, policy: Policy, metrics: Metrics, *, prefix_caching: bool, devices: Sequence[int] = ()
    ) -> None:
        self._manager = manager
        self._policy = policy
        self._metrics = metrics
        self._prefix_caching = prefix_caching
        self._devices = devices
        self._replies: dict[str, Reply] = {}
        self._count = 0
        self._step = 0  # tokens handed over in this round of the event loop, which is one step of the manager
        self._news = asyncio.Event()
        self._stopping = False
        self._dead = False

    def submit(self, ask: Ask) -> Reply:
        """Gives a request to the manager. Raises Refused: 400 for sampling and min_tokens, 503 if full or stopping."""
        self._refuse(ask)
        reply = Reply(ask, cached=None if self._prefix_caching else 0)
        self._count += 1
        name = f"r{self._count}"
        self._replies[name] = reply
        self._manager.register_result_handler(name, lambda output: self._take(name, output))
        taken = self._manager.add_request(
            ask.prompt,
            request_id=name,
            max_new_tokens=ask.max_tokens,
            streaming=True,
            eos_token_id=-1 if ask.ignore_eos else None,
        )
        if taken is None:
            self._forget(name)
            self._dead = True
            self.wake()
            raise Refused(503, "transformers' batching has stopped; the server's log says why.", code="stopping")
        self._gauge()
        return reply

    def wake(self) -> None:
        """Looks again at what was cancelled."""
        self._news.set()

    async def reset_memory(self) -> None:
        """Starts the peaks of memory anew; a step of the manager may be under way."""
        hf_memory.reset(self._devices)

    def stop(self) -> None:
        """Ends at once: the manager has no way to go on for a little while."""
        self._stopping = True
        self.wake()

    async def run(self) -> None:
        """Passes cancellations on until `stop`. Raises RuntimeError when the manager's thread has died."""
        while not self._stopping and not self._dead:
            await self._news.wait()
            self._news.clear()
            for name in [name for name, reply in self._replies.items() if reply.cancelled]:
                self._manager.cancel_request(name)
                self._forget(name)
                self._metrics.ended("cancelled")
            self._gauge()
        self._manager.stop(block=True, timeout=GIVE_UP_S, hard_stop=True)
        for name in list(self._replies):
            self._end(name, Refused(503, "The server was stopped before this reply was whole.", code="stopping"))
        await asyncio.sleep(0)
        if self._dead:
            raise RuntimeError("transformers' batching thread has died; its error stands above in this log")

    def _refuse(self, ask: Ask) -> None:
        if self._stopping:
            raise Refused(503, "The server is stopping and takes no more requests.", code="stopping")
        if len(self._replies) >= self._policy.max_waiting:
            raise Refused(
                503, f"{len(self._replies)} requests are here already; send fewer at once.", code="queue_full"
            )
        if ask.temperature > 0:
            raise Refused(
                400,
                "temperature: batching paged decodes greedily only; send temperature 0, or start the server with "
                "--batching continuous.",
                param="temperature",
            )
        if ask.min_tokens and not ask.ignore_eos:
            raise Refused(
                400,
                "min_tokens: batching paged has it only together with ignore_eos; send ignore_eos, or start the server "
                "with --batching continuous.",
                param="min_tokens",
            )

    def _take(self, name: str, output: Any) -> None:
        """One output of the manager, in the event loop: the tokens of a request so far, or its failure."""
        reply = self._replies.get(name)
        if reply is None:
            return
        if output.error is not None:
            self._end(name, Refused(500, f"The model failed: {output.error}. The server's log has the rest."))
            return
        for token in output.generated_tokens[reply.tokens :]:
            if reply.started is None:
                self._metrics.started(reply, at=output.lifespan[0])
            last = output.is_finished() and reply.tokens + 1 == len(output.generated_tokens)
            finish = ("stop" if token in self._policy.ends and not reply.ask.ignore_eos else "length") if last else None
            if reply.tokens:  # the first token comes of a prefill and is no decode step
                self._count_step()
            reply.put(Token(token, finish))
            self._metrics.token(reply)
            if finish:
                self._forget(name)
                self._metrics.ended(finish)
        self._gauge()

    def _count_step(self) -> None:
        """The manager hands over a whole step in one callback of the event loop: what comes after it is another."""
        if not self._step:
            asyncio.get_running_loop().call_soon(self._end_step)
        self._step += 1

    def _end_step(self) -> None:
        self._metrics.step(self._step)
        self._step = 0

    def _end(self, name: str, error: Refused) -> None:
        self._metrics.ended("error")
        self._replies[name].fail(error)
        self._forget(name)

    def _forget(self, name: str) -> None:
        self._replies.pop(name, None)
        self._manager.output_router.result_handlers.pop(name, None)  # it forgets the finished, not the cancelled

    def _gauge(self) -> None:
        running = sum(reply.first is not None for reply in self._replies.values())
        self._metrics.running.set(running)
        self._metrics.waiting.set(len(self._replies) - running)


GIVE_UP_S = 2.0
"""Time that the manager's thread gets to end."""
