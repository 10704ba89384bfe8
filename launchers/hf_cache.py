"""The keys and values of a batch: one block per layer, one row per sequence.

Each layer has a block of (rows, heads, positions, head size). Sequence i lives in row i; a decode step writes each
row's new key and value at that row's own position and hands the attention the rows in use.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Cache

CLEARED = 128
"""Positions are zeroed in steps of this many before their first use: what is masked must still be a number."""


class SlotCache(Cache):
    """The keys and values of all rows. `rows` and `positions` say where the next decode step writes and reads, and
    `longest` how many positions the attention sees."""

    def __init__(self, rows: int, length: int, *, fixed: bool = False) -> None:
        super().__init__(layers=[])
        self.shape = (rows, length)
        self.fixed = fixed
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
        used = key_states.shape[0]
        return keys[:used, :, : self.longest], values[:used, :, : self.longest]

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002 - the name is transformers'
        """Always 0: positions and masks are given to the model, and it need not work them out."""
        return 0

    def get_mask_sizes(self, *_: Any, **__: Any) -> tuple[int, int]:
        """Positions that the attention sees, and the first of them; asked where the mask has two dimensions."""
        return self.longest, 0

    def fill(self, row: int, prefilled: Any) -> None:
        """Takes a prompt's keys and values, from a prefill of its own, into a row."""
        if not self.keys:
            layers = prefilled.layers
            blocks = [self._block(layer.keys) for layer in layers], [self._block(layer.values) for layer in layers]
            self.keys, self.values = blocks  # both or none: there may be room for one only
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
        block = torch.empty((self.shape[0], heads, self.shape[1], size), dtype=states.dtype, device=states.device)
        if self.fixed:  # a recorded step then writes into it where it lies, and does not copy it in and out
            torch._dynamo.mark_static_address(block)
        return block
