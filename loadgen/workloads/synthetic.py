"""Prompts made of chance, for loads whose input length is stated: random token ids, or random English words.

``kind: ids`` gives ``input_tokens`` token ids, sent as they are, so that the server reads exactly that many (one or
more). Which ids there are is told in ``ids``; ``vocab_size`` is read from the model's ``config.json`` if it is not
given.

``kind: words`` gives a text of ``words`` words; how many tokens that is, the server says. It is sent as a user's
message, or with ``raw: true`` as text outside any chat template.

A length is a number or a distribution (see ``loadgen/lengths.py``). What prompts share::

    shared_prefix_tokens: 500                               the same beginning in every prompt (ids)
    prefix: {pool: 10, tokens: 1024, share: 0.8}            8 of 10 prompts begin with one of ten beginnings (ids)
    prefix: {pool: 3, words: 200}                           every prompt has one of three system messages (words)

The prefix is a part of ``input_tokens``, and comes on top of ``words``. Everything is drawn from (seed, session).
"""

from __future__ import annotations

import hashlib
from array import array
from typing import Annotated, Any, Literal

import msgspec

from loadgen.errors import UsageError
from loadgen.lengths import Count, Draw, Lengths
from loadgen.record import Message, Prompt
from loadgen.workloads import Context, parse
from loadgen.workloads.ids import allowed_ids, chance, described, draw
from loadgen.workloads.outline import Outline
from loadgen.workloads.template import Form, Shaper


class Prefix(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``share`` of the prompts begin with one of ``pool`` prefixes, each equally often, of so many tokens or words."""

    pool: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1
    tokens: Count | None = None
    words: Count | None = None
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0

    def of(self, seed: int, index: int) -> int | None:
        """Which prefix session ``index`` begins with; None for none."""
        if self.share < 1 and chance(f"{seed}:shared:{index}") >= self.share:
            return None
        return int(chance(f"{seed}:pool:{index}") * self.pool)


class Settings(msgspec.Struct, frozen=True):
    """See the head of the file; None where a setting was not given."""

    kind: Literal["ids", "words"] = "ids"
    input_tokens: Count | Lengths | None = None
    vocab_size: Count | None = None
    first_id: Annotated[int, msgspec.Meta(ge=0)] | None = None
    shared_prefix_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    prefix: Prefix | None = None
    words: Count | Lengths | None = None
    raw: bool | None = None
    form: Form | None = msgspec.field(name="as", default=None)


_IDS_ONLY = ("input_tokens", "vocab_size", "first_id", "shared_prefix_tokens")
_WORDS_ONLY = ("words", "raw", "as")


class Ids:
    """Random token ids; no two sessions share more than the prefix that was asked for."""

    name = "synthetic"
    size: int | None = None

    def __init__(self, settings: Settings, lengths: Draw, allowed: array[int], context: Context) -> None:
        self._settings = settings
        self._lengths = lengths
        self._allowed = allowed
        self._context = context
        self._shaper = Shaper(self.name, context, templated=False)
        self._shared = draw(allowed, settings.shared_prefix_tokens or 0, f"{context.seed}:prefix")

    def session(self, index: int) -> tuple[Prompt, ...]:
        """One prompt, with as many ids as its length says."""
        seed, prefix = self._context.seed, self._prefix(index)
        length = self._lengths.at(seed, "length", index)
        own = draw(self._allowed, length - len(prefix), f"{seed}:ids:{index}")
        return (self._shaper.as_ids(prefix + own),)

    def outline(self, index: int) -> Outline:
        """The length, and which prefix the prompt begins with."""
        seed, pool = self._context.seed, self._settings.prefix
        which, tokens = (pool.of(seed, index), pool.tokens or 0) if pool else (0, len(self._shared))
        blocks = ((which, tokens),) if which is not None and tokens else ()
        return Outline(self.name, self._lengths.at(seed, "length", index), self._context.ask_tok, blocks)

    def _prefix(self, index: int) -> tuple[int, ...]:
        pool = self._settings.prefix
        if pool is None:
            return self._shared
        which = pool.of(self._context.seed, index)
        return () if which is None else draw(self._allowed, pool.tokens or 0, f"{self._context.seed}:prefix:{which}")

    def describe(self) -> dict[str, Any]:
        """The length, what is shared, and the ids that are drawn from."""
        return {
            "kind": self.name,
            "size": None,
            "of": "ids",
            "input_tokens": msgspec.to_builtins(self._lengths.said),
            "shared_prefix_tokens": len(self._shared),
            "prefix": msgspec.to_builtins(self._settings.prefix),
            "ids": described(self._allowed),
            "sha256": hashlib.sha256(self._allowed.tobytes()).hexdigest(),
        }


class Words:
    """Random words."""

    name = "synthetic"
    size: int | None = None

    def __init__(self, settings: Settings, lengths: Draw, context: Context) -> None:
        self._settings = settings
        self._lengths = lengths
        self._seed = context.seed
        self._vocabulary = WORDS.split()
        self._shaper = Shaper(self.name, context, settings.form or "text", templated=not settings.raw)

    def session(self, index: int) -> tuple[Prompt, ...]:
        """One prompt, with as many words as its length says, after the prefix that it shares."""
        text = self._text(self._lengths.at(self._seed, "length", index), f"words:{index}")
        shared = self._prefix(index)
        if self._settings.raw:
            return (self._shaper.as_text(f"{shared} {text}" if shared else text),)
        system = (Message(role="system", content=shared),) if shared else ()
        return (self._shaper.prompt((*system, Message(role="user", content=text))),)

    def _prefix(self, index: int) -> str:
        pool = self._settings.prefix
        which = None if pool is None else pool.of(self._seed, index)
        return "" if pool is None or which is None else self._text(pool.words or 0, f"prefix:{which}")

    def _text(self, count: int, what: str) -> str:
        return " ".join(draw(self._vocabulary, count, f"{self._seed}:{what}"))

    def describe(self) -> dict[str, Any]:
        """The length, what is shared, and the SHA-256 of the words that are drawn from."""
        return {
            "kind": self.name,
            "size": None,
            "of": "words",
            "words": msgspec.to_builtins(self._lengths.said),
            "prefix": msgspec.to_builtins(self._settings.prefix),
            "raw": bool(self._settings.raw),
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
    drawn = Draw(f"workload.{wanted}", lengths, context.folder)
    _check_prefix(chosen, drawn.shortest)
    if chosen.kind == "words":
        return Words(chosen, drawn, context)
    return Ids(chosen, drawn, allowed_ids(chosen.vocab_size, chosen.first_id, context), context)


def _check_prefix(chosen: Settings, shortest: int) -> None:
    """Raises UsageError for a prefix that is counted in the wrong unit, stated twice or longer than a prompt."""
    pool, tokens = chosen.prefix, chosen.shared_prefix_tokens
    key = "shared_prefix_tokens"
    if pool is not None:
        unit, other = ("tokens", "words") if chosen.kind == "ids" else ("words", "tokens")
        if getattr(pool, unit) is None or getattr(pool, other) is not None:
            raise UsageError(f"workload.prefix: a prefix of kind: {chosen.kind} is so many {unit}; state {unit} alone.")
        if tokens is not None:
            raise UsageError(
                "workload.prefix: shared_prefix_tokens says the same of a pool of one; remove one of them."
            )
        key, tokens = "prefix.tokens", pool.tokens
    if (tokens or 0) >= shortest:
        raise UsageError(
            f"workload.{key}: {tokens} leaves nothing of its own to a prompt of {shortest} tokens; the prefix must be "
            "shorter than the shortest prompt."
        )


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
