"""One sequence at a time, with a KV cache that grows by a token a step: what transformers' ``generate`` does.

The cache takes as much memory as its text is long, where `hf_slots` reserves its whole length at the first prompt. So
the peak of a request is that of its own lengths, which is what published tables of memory mean. The price is theirs,
too: every step copies the cache, to make place for one token.

In: token ids. Out: the logits of the next token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hf_memory
import torch
from hf_slots import Way, takes_logits_to_keep
from transformers import DynamicCache


class Grown:
    """A model and the one text that it works on; the methods are those of `hf_slots.Rows`."""

    rows = 1

    def __init__(self, model: Any, way: Way) -> None:
        self.model = model
        self._way = way
        self._cache: Any = None
        self._keep = {"logits_to_keep": 1} if takes_logits_to_keep(model) and not way.all_logits else {}

    @property
    def used(self) -> int:
        """1 while there is a text, else 0."""
        return int(self._cache is not None)

    @torch.inference_mode()
    def prefill(self, prompt: Sequence[int]) -> torch.Tensor:
        """Computes a prompt; the logits (vocabulary) of its first new token."""
        cache = DynamicCache(config=self.model.config)
        logits = self._run(prompt, cache, **self._keep)
        self._cache = cache
        return logits

    @torch.inference_mode()
    def decode(self, tokens: Sequence[int]) -> torch.Tensor:
        """Adds a token; the logits (1, vocabulary) of the next one."""
        return self._run(tokens, self._cache)[None]

    def drop(self, row: int) -> None:  # noqa: ARG002 - there is only one
        """Frees the cache."""
        self._cache = None

    def cut(self, used: int) -> None:
        """Frees the cache, unless its row is to stay."""
        if not used:
            self._cache = None

    def pretend(self, rows: int, length: int) -> None:
        """Gives the row a cache of so many zeros; none for no row."""
        self._cache = None
        if not rows:
            return
        self.prefill([0])
        for layer in self._cache.layers:
            layer.keys, layer.values = (_zeros_like(states, length) for states in (layer.keys, layer.values))

    def memory(self) -> hf_memory.Memory | None:
        """The GPUs' memory since the last reset, None on a CPU."""
        return hf_memory.read(self._way.devices)

    def reset_memory(self) -> None:
        """Starts the peaks of memory anew."""
        hf_memory.reset(self._way.devices)

    def _run(self, tokens: Sequence[int], cache: Any, **keep: int) -> torch.Tensor:
        ids = torch.tensor([list(tokens)], device=self.model.device)
        logits = self.model(input_ids=ids, past_key_values=cache, use_cache=True, **keep).logits
        every: torch.Tensor = logits.float() if self._way.all_logits else logits[:, -1:].float()
        return every[0, -1]


def _zeros_like(states: torch.Tensor, length: int) -> torch.Tensor:
    """Keys or values (1, heads, positions, head size) of another length."""
    batch, heads, _, size = states.shape
    return torch.zeros((batch, heads, length, size), dtype=states.dtype, device=states.device)
