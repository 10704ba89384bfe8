"""Which token ids prompts may be made of, and how they are drawn.

Ids come from the vocabulary without those below ``first_id`` (256: where most vocabularies keep control tokens and
single bytes) and, where the model's ``tokenizer.json`` is at hand, without its added tokens (the special ones: begin,
end, roles) and without the ids that it does not have. Everything is drawn with SHAKE-128 from a key that begins with
the seed, so that every machine makes the same prompts.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from typing import Any

import msgspec

from loadgen.errors import UsageError
from loadgen.workloads import Context
from loadgen.workloads.template import model_file

FIRST_ID = 256


def draw(items: Any, count: int, key: str) -> tuple[Any, ...]:
    """``count`` of the items, each equally likely (to one part in 2^32 / len(items)); the same for the same key."""
    chances = struct.unpack(f"<{count}I", hashlib.shake_128(key.encode()).digest(4 * count))
    size = len(items)
    return tuple([items[chance % size] for chance in chances])


def chance(key: str) -> float:
    """A number from 0 to 1 (not included), the same for the same key."""
    return int.from_bytes(hashlib.shake_128(key.encode()).digest(7), "little") / (1 << 56)


def allowed_ids(vocab_size: int | None, first_id: int | None, context: Context) -> array[int]:
    """The token ids that prompts are drawn from. Raises UsageError where their number is unknown or under two."""
    stop = vocab_size or _vocab_size(context)
    banned: set[int] = set()
    tokenizer = model_file(context.model_path, "tokenizer.json", Tokenizer)
    if tokenizer is not None:
        banned = {token.id for token in tokenizer.added_tokens}
        vocabulary = tokenizer.model.vocab
        known = max(vocabulary.values(), default=-1) if isinstance(vocabulary, dict) else len(vocabulary) - 1
        # Servers refuse ids that the tokenizer lacks, though config.json counts them (padding to a round number).
        stop = min(stop, max([known, *banned]) + 1)
    first = FIRST_ID if first_id is None else first_id
    allowed = array("I", (token for token in range(first, stop) if token not in banned))
    if len(allowed) < 2:
        raise UsageError(
            f"workload: there are {len(allowed)} token ids to draw from: the vocabulary ends at {stop}, ids begin at "
            f"first_id {first}, and {len(banned)} added tokens are left out; lower first_id."
        )
    return allowed


def described(allowed: array[int]) -> dict[str, Any]:
    """The ids that are drawn from, for a source's description."""
    return {"count": len(allowed), "first": allowed[0], "last": allowed[-1]}


class _Token(msgspec.Struct):
    id: int


class _Model(msgspec.Struct):
    vocab: dict[str, int] | list[msgspec.Raw] = msgspec.field(default_factory=dict)


class Tokenizer(msgspec.Struct):
    """The part of ``tokenizer.json`` that says which ids exist and which are added ones."""

    model: _Model = msgspec.field(default_factory=_Model)
    added_tokens: list[_Token] = msgspec.field(default_factory=list)


class Config(msgspec.Struct):
    """The part of ``config.json`` that says how many ids there are; multimodal models keep it under ``text_config``."""

    vocab_size: int | None = None
    text_config: Config | None = None


def _vocab_size(context: Context) -> int:
    config = model_file(context.model_path, "config.json", Config)
    while config is not None:
        if config.vocab_size is not None:
            return config.vocab_size
        config = config.text_config
    if context.vocab_size is not None:
        return context.vocab_size
    path = context.model_path
    where = f"{path}/config.json does not say it" if path else "the model has no local folder"
    raise UsageError(f"workload.vocab_size is missing and {where}; state how many token ids the model has.")
