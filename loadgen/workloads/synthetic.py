"""Prompts made of chance, for loads whose input length is stated: random token ids, or random English words.

``kind: ids`` gives ``input_tokens`` token ids, sent as they are, so that the server reads exactly that many (one or
more). They are drawn evenly from the vocabulary without the ids below ``first_id`` (256: where most vocabularies keep
control tokens and single bytes) and, where the model's ``tokenizer.json`` is at hand, without its added tokens (the
special ones: begin, end, roles) and without the ids that it does not have. ``vocab_size`` is read from the model's
``config.json`` if it is not given. ``shared_prefix_tokens`` of them are the same in every prompt.

``kind: words`` gives a text of ``words`` words; how many tokens that is, the server says. It is sent as a user's
message, or with ``raw: true`` as text outside any chat template.

A length is a number or a distribution: ``{uniform: {min: 100, max: 200}}``. Everything is drawn with SHAKE-128 from
(seed, session), so that every machine makes the same prompts.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from typing import Annotated, Any, Literal

import msgspec

from loadgen.errors import UsageError
from loadgen.record import Message, Prompt
from loadgen.workloads import Context, parse
from loadgen.workloads.template import Form, Shaper, model_file

Count = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]


class Uniform(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every whole number from ``min`` to ``max``, both included, equally often."""

    min: Count
    max: Count


class Lengths(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A distribution of lengths by its name. The next one is a field here and a line in `length_at`."""

    uniform: Uniform


class Settings(msgspec.Struct, frozen=True):
    """See the head of the file; None where a setting was not given."""

    kind: Literal["ids", "words"] = "ids"
    input_tokens: Count | Lengths | None = None
    vocab_size: Count | None = None
    first_id: Annotated[int, msgspec.Meta(ge=0)] | None = None
    shared_prefix_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    words: Count | Lengths | None = None
    raw: bool | None = None
    form: Form | None = msgspec.field(name="as", default=None)


_IDS_ONLY = ("input_tokens", "vocab_size", "first_id", "shared_prefix_tokens")
_WORDS_ONLY = ("words", "raw", "as")


class Ids:
    """Random token ids; no two sessions share more than the prefix that was asked for."""

    name = "synthetic"
    size: int | None = None

    def __init__(self, settings: Settings, lengths: int | Lengths, allowed: array[int], context: Context) -> None:
        self._settings = settings
        self._lengths = lengths
        self._allowed = allowed
        self._seed = context.seed
        self._shaper = Shaper(self.name, context, templated=False)
        self._prefix = draw(allowed, settings.shared_prefix_tokens or 0, f"{context.seed}:prefix")

    def session(self, index: int) -> tuple[Prompt, ...]:
        """One prompt, with as many ids as its length says."""
        length = length_at(self._lengths, self._seed, index)
        own = draw(self._allowed, length - len(self._prefix), f"{self._seed}:ids:{index}")
        return (self._shaper.as_ids(self._prefix + own),)

    def describe(self) -> dict[str, Any]:
        """The length, and the ids that are drawn from."""
        return {
            "kind": self.name,
            "size": None,
            "of": "ids",
            "input_tokens": msgspec.to_builtins(self._lengths),
            "shared_prefix_tokens": len(self._prefix),
            "ids": {"count": len(self._allowed), "first": self._allowed[0], "last": self._allowed[-1]},
            "sha256": hashlib.sha256(self._allowed.tobytes()).hexdigest(),
        }


class Words:
    """Random words."""

    name = "synthetic"
    size: int | None = None

    def __init__(self, settings: Settings, lengths: int | Lengths, context: Context) -> None:
        self._raw = bool(settings.raw)
        self._lengths = lengths
        self._seed = context.seed
        self._vocabulary = WORDS.split()
        self._shaper = Shaper(self.name, context, settings.form or "text", templated=not settings.raw)

    def session(self, index: int) -> tuple[Prompt, ...]:
        """One prompt, with as many words as its length says."""
        length = length_at(self._lengths, self._seed, index)
        text = " ".join(draw(self._vocabulary, length, f"{self._seed}:words:{index}"))
        if self._raw:
            return (self._shaper.as_text(text),)
        return (self._shaper.prompt((Message(role="user", content=text),)),)

    def describe(self) -> dict[str, Any]:
        """The length, and the SHA-256 of the words that are drawn from."""
        return {
            "kind": self.name,
            "size": None,
            "of": "words",
            "words": msgspec.to_builtins(self._lengths),
            "raw": self._raw,
            "sha256": hashlib.sha256(WORDS.encode()).hexdigest(),
            **self._shaper.describe(),
        }


def open(settings: dict[str, Any], context: Context) -> Ids | Words:
    """The generator with these settings. Raises UsageError for settings that contradict each other."""
    chosen = parse("synthetic", settings, Settings)
    for key in _WORDS_ONLY if chosen.kind == "ids" else _IDS_ONLY:
        if key in settings:
            owner, other = ("words", "ids") if chosen.kind == "ids" else ("ids", "words")
            raise UsageError(f"workload.{key} belongs to kind: {owner}, and this is kind: {other}; remove one of them.")
    wanted = "input_tokens" if chosen.kind == "ids" else "words"
    lengths = chosen.input_tokens if chosen.kind == "ids" else chosen.words
    if lengths is None:
        raise UsageError(f"workload.{wanted} is missing: kind: {chosen.kind} needs the length of a prompt.")
    shortest = _shortest(wanted, lengths)
    if chosen.kind == "words":
        return Words(chosen, lengths, context)
    if (chosen.shared_prefix_tokens or 0) >= shortest:
        raise UsageError(
            f"workload.shared_prefix_tokens: {chosen.shared_prefix_tokens} leaves nothing of its own to a prompt of "
            f"{shortest} tokens; the prefix must be shorter than the shortest prompt."
        )
    return Ids(chosen, lengths, allowed_ids(chosen, context.model_path), context)


def length_at(lengths: int | Lengths, seed: int, index: int) -> int:
    """The length of session ``index``: the one place where distributions are drawn from."""
    if isinstance(lengths, int):
        return lengths
    low, high = lengths.uniform.min, lengths.uniform.max
    chance = int.from_bytes(hashlib.shake_128(f"{seed}:length:{index}".encode()).digest(8), "little")
    return low + chance % (high - low + 1)


def draw(items: Any, count: int, key: str) -> tuple[Any, ...]:
    """``count`` of the items, each equally likely (to one part in 2^32 / len(items)); the same for the same key."""
    chances = struct.unpack(f"<{count}I", hashlib.shake_128(key.encode()).digest(4 * count))
    size = len(items)
    return tuple([items[chance % size] for chance in chances])


def allowed_ids(settings: Settings, model_path: str | None) -> array[int]:
    """The token ids that prompts are drawn from. Raises UsageError where their number is unknown or under two."""
    stop = settings.vocab_size or _vocab_size(model_path)
    banned: set[int] = set()
    tokenizer = model_file(model_path, "tokenizer.json", Tokenizer)
    if tokenizer is not None:
        banned = {token.id for token in tokenizer.added_tokens}
        vocabulary = tokenizer.model.vocab
        known = max(vocabulary.values(), default=-1) if isinstance(vocabulary, dict) else len(vocabulary) - 1
        # Servers refuse ids that the tokenizer lacks, though config.json counts them (padding to a round number).
        stop = min(stop, max([known, *banned]) + 1)
    first = 256 if settings.first_id is None else settings.first_id
    allowed = array("I", (token for token in range(first, stop) if token not in banned))
    if len(allowed) < 2:
        raise UsageError(
            f"workload: prompts: synthetic has {len(allowed)} token ids to draw from: the vocabulary ends at {stop}, "
            f"ids begin at first_id {first}, and {len(banned)} added tokens are left out; lower first_id."
        )
    return allowed


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


def _vocab_size(model_path: str | None) -> int:
    config = model_file(model_path, "config.json", Config)
    while config is not None:
        if config.vocab_size is not None:
            return config.vocab_size
        config = config.text_config
    where = f"{model_path}/config.json does not say it" if model_path else "the model has no local folder"
    raise UsageError(f"workload.vocab_size is missing and {where}; state how many token ids the model has.")


def _shortest(key: str, lengths: int | Lengths) -> int:
    """The smallest length. Raises UsageError for a range that is empty."""
    if isinstance(lengths, int):
        return lengths
    low, high = lengths.uniform.min, lengths.uniform.max
    if low > high:
        raise UsageError(f"workload.{key}.uniform: min {low} is above max {high}; exchange them.")
    return low


WORDS = """
able above across after again air almost alone along already always among animal answer apple arm around art ask away
baby back ball bank base bath beach bean bear bed before begin behind bell below best better big bird black blue boat
body bone book both bottle box boy branch bread break bridge bright bring brother brown build busy buy cake call camp
car card care carry cat catch chair chance change cheap child circle city class clean clear clock close cloud coat
cold come cook cool copy corn corner cost cotton count country cover cow cross cup cut dance dark day deep desk dinner
dog door doubt down draw dream dress drink drive drop dry dust each ear early earth east easy eat edge egg eight empty
end engine enough evening every example eye face fair fall family far farm fast father feel few field fight fill find
fire first fish five flat floor flower fly follow food foot forest forget form four free fresh friend front fruit full
game garden gate gentle gift girl give glad glass gold good grass great green grey ground group grow guess hair half
hall hand happen happy hard hat head hear heart heat heavy help here high hill hold home hope horse hot hour house ice
idea inside iron island join jump keep key kind king kitchen knee knife know lady lake land large last late laugh lead
leaf learn leave left leg letter life lift light line lion list little long look lose loud love low lunch
"""
