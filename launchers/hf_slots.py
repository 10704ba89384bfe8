"""The model with a place for each sequence of the batch: prefill of one prompt, one decode step of all.

In: token ids. Out: the logits of the next token. Each layer keeps its keys and values in one block of
(rows, heads, positions, head size); sequence i lives in row i, rows 0..n-1 are in use, and a row that ends is filled
with the last one, so that a step computes no empty place. A step attends over as many positions as the longest row
has; the shorter rows mask the rest. That reads some padding, and it is the price for plain dense attention: the paged
way (`hf_paged`) packs all sequences into one, which on a CPU makes every sequence attend to the keys of all others.

Only models whose every layer has full attention fit; `unfit` says so in a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache, DynamicCache

CLEARED = 128
"""Positions are zeroed in steps of this many before their first use: what is masked must still be a number."""


class SlotCache(Cache):
    """The keys and values of all rows. `rows` and `positions` say where the next decode step writes and reads."""

    def __init__(self, rows: int, length: int) -> None:
        super().__init__(layers=[])
        self.shape = (rows, length)
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self.cleared = 0
        self.rows = torch.empty(0, dtype=torch.long)
        self.positions = self.rows
        self.longest = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Called by each attention layer in a decode step: keeps the new token's key and value, returns all."""
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        rows, positions = self.rows.to(keys.device), self.positions.to(keys.device)
        keys[rows, :, positions] = key_states[:, :, 0]
        values[rows, :, positions] = value_states[:, :, 0]
        used = len(rows)
        return keys[:used, :, : self.longest], values[:used, :, : self.longest]

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002 - the name is transformers'
        """Always 0: positions and masks are given to the model, and it need not work them out."""
        return 0

    def fill(self, row: int, prefilled: Any) -> None:
        """Takes a prompt's keys and values, from a prefill of its own, into a row."""
        if not self.keys:
            self.keys = [self._block(layer.keys) for layer in prefilled.layers]
            self.values = [self._block(layer.values) for layer in prefilled.layers]
        length = prefilled.get_seq_length()
        self.clear_to(length)
        for layer, keys, values in zip(prefilled.layers, self.keys, self.values, strict=True):
            keys[row, :, :length] = layer.keys[0]
            values[row, :, :length] = layer.values[0]

    def move(self, source: int, target: int, length: int) -> None:
        """Copies a row to another place."""
        for block in (*self.keys, *self.values):
            block[target, :, :length] = block[source, :, :length]

    def clear_to(self, length: int) -> None:
        """Makes the positions below ``length`` hold numbers. The blocks are not zeroed whole at the start, so that a
        CPU's memory is taken up by what is used and not by what could be."""
        if length <= self.cleared:
            return
        upto = min(-(-length // CLEARED) * CLEARED, self.shape[1])
        for block in (*self.keys, *self.values):
            block[:, :, self.cleared : upto] = 0
        self.cleared = upto

    def _block(self, states: torch.Tensor) -> torch.Tensor:
        _, heads, _, size = states.shape
        return torch.empty((self.shape[0], heads, self.shape[1], size), dtype=states.dtype, device=states.device)


class Slots:
    """A model and its rows. Every method is called from one thread; ``used`` rows are in use."""

    def __init__(self, model: Any, rows: int, length: int) -> None:
        self.model = model
        self.rows = rows
        self.length = length
        self.lengths: list[int] = []
        self._cache = SlotCache(rows, length)
        self._keep_last = {"logits_to_keep": 1} if _takes_logits_to_keep(model) else {}

    @property
    def used(self) -> int:
        """Rows in use."""
        return len(self.lengths)

    @torch.inference_mode()
    def prefill(self, prompt: Sequence[int]) -> torch.Tensor:
        """Computes a prompt into the next free row; the logits (vocabulary) of its first new token."""
        cache = DynamicCache(config=self.model.config)
        ids = torch.tensor([prompt], device=self.model.device)
        output = self.model(input_ids=ids, past_key_values=cache, use_cache=True, **self._keep_last)
        logits: torch.Tensor = output.logits[0, -1]
        self._cache.fill(self.used, cache)
        self.lengths.append(len(prompt))
        return logits.float()

    @torch.inference_mode()
    def decode(self, tokens: Sequence[int]) -> torch.Tensor:
        """One step: the newest token of each row goes in, the logits (rows, vocabulary) of the next come out."""
        device, cache = self.model.device, self._cache
        cache.positions = torch.tensor(self.lengths, device=device)
        cache.rows = torch.arange(self.used, device=device)
        cache.longest = max(self.lengths) + 1
        cache.clear_to(cache.longest)
        hidden = torch.arange(cache.longest, device=device) > cache.positions[:, None]
        mask = torch.zeros(hidden.shape, dtype=self.model.dtype, device=device).masked_fill_(hidden, float("-inf"))
        output = self.model(
            input_ids=torch.tensor(tokens, device=device)[:, None],
            attention_mask=mask[:, None, None],
            position_ids=cache.positions[:, None],
            past_key_values=cache,
            use_cache=True,
        )
        self.lengths = [length + 1 for length in self.lengths]
        logits: torch.Tensor = output.logits[:, -1]
        return logits.float()

    @torch.inference_mode()
    def drop(self, row: int) -> None:
        """Frees a row; the last row takes its place."""
        last = self.used - 1
        if row != last:
            self._cache.move(last, row, self.lengths[last])
            self.lengths[row] = self.lengths[last]
        self.lengths.pop()

    def reset(self) -> None:
        """Frees every row, after a step that failed in the middle."""
        self.lengths = []


def unfit(config: Any) -> str | None:
    """Why a model cannot be run in slots, as the second half of a sentence; None where it can."""
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    if kinds - {"full_attention"}:
        return f"its layers are {', '.join(sorted(kinds))}, and slots hold full attention only"
    attention = text._attn_implementation
    if attention not in ("sdpa", "eager"):
        return f"slots need --attn sdpa or eager, and it is {attention}"
    return None


def _takes_logits_to_keep(model: Any) -> bool:
    asks = getattr(model, "_supports_logits_to_keep", None)
    return bool(callable(asks) and asks())
