"""Conversations of several turns, whose history grows by the replies that they really get.

Made ones: ``turns`` of them, the ``first`` question and each of the ``later`` ones from another source, by its settings
(``{words: 300}`` are random words, ``{prompts: natural, tags: [chat]}`` the shipped prompts); ``later`` is like
``first`` if it is not given. ``system`` is a system message that all conversations share: its text, or the settings of
a source. From a file: ``path`` names ShareGPT conversations or JSONL with ``messages`` (see ``conversation_files``),
``order`` their order, and ``turns`` is the most that one may have.

``think_s`` is the time between the end of a reply and the next turn: a number of seconds, ``{exponential: {mean: 5}}``
or ``{lognormal: {mean: 5, sd: 10}}``, drawn from (seed, conversation, turn). Turns are chat messages. A backend that
carries none needs ``template: client``: the whole history is then rendered here anew for each turn, as text or (``as:
ids``) as token ids; what is random token ids without a template has no history, and is refused.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import Annotated, Any

import msgspec

from loadgen import lengths, workloads
from loadgen.errors import UsageError
from loadgen.record import Message, Prompt
from loadgen.workloads import Context, Source, conversation_files, data_file, parse
from loadgen.workloads.order import Order, place
from loadgen.workloads.template import Form, Shaper

NAME = "conversation"
MOST_TURNS = 1000
_REMEMBERED = 1024
"""Conversations whose questions are kept from one turn to the next, rather than made again."""
Seconds = Annotated[float, msgspec.Meta(ge=0, le=86400)]
Spread = Annotated[float, msgspec.Meta(gt=0, le=86400)]


class Exponential(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Think times without memory."""

    mean: Spread


class Lognormal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Many short think times and few long ones; mean and standard deviation of the times themselves."""

    mean: Spread
    sd: Spread


class Think(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A distribution of think times by its name: one of the two."""

    exponential: Exponential | None = None
    lognormal: Lognormal | None = None

    def __post_init__(self) -> None:
        if (self.exponential is None) == (self.lognormal is None):
            raise ValueError("a distribution of think times is exponential or lognormal, one of the two")


class Settings(msgspec.Struct, frozen=True):
    """See the head of the file; None where a setting was not given."""

    turns: Any = None
    first: dict[str, Any] | None = None
    later: dict[str, Any] | None = None
    system: str | dict[str, Any] | None = None
    think_s: Seconds | Think = 0.0
    path: str | None = None
    order: Order | None = None
    form: Form = msgspec.field(name="as", default="text")


class Made:
    """What users ask in conversations whose questions come from other sources."""

    size: int | None = None

    def __init__(self, settings: Settings, context: Context) -> None:
        first = settings.first or {}
        again = msgspec.structs.replace(context, seed=_seed(context.seed, "later"))
        self._seed = context.seed
        self._turns = _turns(settings.turns, context.folder)
        self._system = _system(settings.system, context)
        self._first = _source("first", first, context)
        self._later = _source("later", first if settings.later is None else settings.later, again)

    def asked(self, index: int) -> tuple[conversation_files.Turns, int | None]:
        """What is new in each turn of conversation ``index``, and how many tokens its replies are asked for."""
        first = self._first.session(index)[0]
        begin = (*self._system, *(_users(first) if self._system else first.messages or ()))
        start, count = index * self._turns.longest, self._turns.at(self._seed, "turns", index) - 1
        later = [_users(self._later.session(start + number)[0]) for number in range(count)]
        return (begin, *later), first.ask_tok

    def describe(self) -> dict[str, Any]:
        """Both sources."""
        return {
            "first": self._first.describe(),
            "later": self._later.describe(),
            "system_sha256": _sha(self._system),
        }


class Read:
    """What users asked in the conversations of a file."""

    def __init__(self, settings: Settings, context: Context) -> None:
        self._settings = settings
        self._seed, self._exact = context.seed, context.exact
        self._turns = None if settings.turns is None else _turns(settings.turns, context.folder)
        self._system = _system(settings.system, context)
        self._talks = conversation_files.read(data_file(settings.path or "", context))
        self.size: int | None = len(self._talks.turns)

    def asked(self, index: int) -> tuple[conversation_files.Turns, int | None]:
        """What is new in each turn of conversation ``index``, and how many tokens its replies are asked for at most
        (None: the scenario's number)."""
        at = place(index, len(self._talks.turns), self._seed, self._order)
        first, *later = self._talks.turns[at]
        most = len(later) if self._turns is None else self._turns.at(self._seed, "turns", index) - 1
        begin = (*self._system, *(one for one in first if one.role == "user")) if self._system else first
        return (begin, *later[:most]), None if self._exact else self._talks.ask_tok[at]

    def describe(self) -> dict[str, Any]:
        """The file's path as the scenario wrote it, its SHA-256, its order, what was dropped for which reason."""
        return {
            "path": self._settings.path,
            "order": self._order,
            "dropped": dict(self._talks.dropped),
            "sha256": self._talks.sha256,
            "system_sha256": _sha(self._system),
        }

    @property
    def _order(self) -> Order:
        return self._settings.order or "seeded"


class Conversation:
    """Turns one after the other, in the form that the target takes. ``made_of`` says what the users ask."""

    name = NAME

    def __init__(self, settings: Settings, context: Context, made_of: Made | Read) -> None:
        self.size = made_of.size
        self._settings = settings
        self._seed = context.seed
        self._shaper = Shaper(self.name, context, settings.form)
        self._made_of = made_of
        self._asked = lru_cache(maxsize=_REMEMBERED)(made_of.asked)

    def session(self, index: int) -> tuple[Prompt, ...]:
        """The turns of a conversation; the later ones hold what is new in them."""
        said, ask_tok = self._asked(index)
        first = self._shaper.prompt(said[0], ask_tok)
        later = [
            Prompt(
                source=self.name,
                ask_tok=first.ask_tok,
                exact=first.exact,
                messages=messages,
                think_s=think_time(self._settings.think_s, f"{self._seed}:think:{index}:{turn}"),
            )
            for turn, messages in enumerate(said[1:], 1)
        ]
        return (first, *later)

    def turn(self, index: int, turn: int, replies: Sequence[str]) -> Prompt:
        """A later turn with all that was said before it."""
        said, ask_tok = self._asked(index)
        history = [*said[0]]
        for reply, messages in zip(replies[:turn], said[1:], strict=False):
            history += [Message(role="assistant", content=reply), *messages]
        return self._shaper.prompt(history, ask_tok)

    def describe(self) -> dict[str, Any]:
        """Turns and think time; what the conversations are made of."""
        return {
            "kind": self.name,
            "size": self.size,
            "turns": self._settings.turns,
            "think_s": msgspec.to_builtins(self._settings.think_s),
            **self._made_of.describe(),
            **self._shaper.describe(),
        }


def open(settings: dict[str, Any], context: Context) -> Conversation:
    """Conversations with these settings. Raises UsageError for settings that contradict each other, for a source or a
    file that cannot be used, and for a template that refuses a second turn."""
    chosen = parse("conversation", settings, Settings)
    for key in ("first", "later") if chosen.path is not None else ("order",):
        if getattr(chosen, key) is not None:
            reason = "belongs to made conversations, and path names a file" if chosen.path else "belongs to a file"
            raise UsageError(f"workload.{key} {reason}; remove one of them, or name the file with path.")
    if chosen.path is None and (chosen.first is None or chosen.turns is None):
        raise UsageError(
            "workload: prompts: conversation needs turns and first (such as turns: 4, first: {words: 300}), or the "
            "path of a file of conversations."
        )
    made_of = Made(chosen, context) if chosen.path is None else Read(chosen, context)
    source = Conversation(chosen, context, made_of)
    if len(source.session(0)) > 1:
        source.turn(0, 1, ["Yes."])
    return source


def think_time(think: float | Think, key: str) -> float:
    """A think time in seconds, the same for the same key: by the inverse of its distribution function."""
    if isinstance(think, int | float):
        return float(think)
    chance = (int.from_bytes(hashlib.shake_128(key.encode()).digest(8), "little") + 0.5) / 2**64
    if think.exponential is not None:
        return -think.exponential.mean * math.log1p(-min(chance, 1 - 1e-12))
    assert think.lognormal is not None
    variance = math.log1p((think.lognormal.sd / think.lognormal.mean) ** 2)
    normal = NormalDist(math.log(think.lognormal.mean) - variance / 2, math.sqrt(variance))
    return math.exp(normal.inv_cdf(min(max(chance, 1e-12), 1 - 1e-12)))


def _turns(value: Any, folder: str) -> lengths.Draw:
    drawn = lengths.Draw("workload.turns", lengths.parse("workload.turns", value), folder)
    if drawn.longest > MOST_TURNS:
        raise UsageError(
            f"workload.turns: a conversation may have {drawn.longest:,} turns; {MOST_TURNS} are the most that is meant."
        )
    return drawn


def _system(system: str | dict[str, Any] | None, context: Context) -> tuple[Message, ...]:
    """The shared system message, none if there is none."""
    if system is None:
        return ()
    if isinstance(system, dict):
        of_all = msgspec.structs.replace(context, seed=_seed(context.seed, "system"))
        system = "\n\n".join(one.content for one in _users(_source("system", system, of_all).session(0)[0]))
    if not system.strip():
        raise UsageError("workload.system is empty; leave it out for conversations without a system message.")
    return (Message(role="system", content=system),)


def _source(word: str, settings: dict[str, Any], context: Context) -> Source:
    """The source that questions are taken from, opened for messages whoever renders them later."""
    words = dict(settings)
    name = str(words.pop("prompts", "synthetic"))
    if name == "synthetic":
        words.setdefault("kind", "words")
    try:
        if name == NAME:
            raise UsageError("workload.prompts: a conversation is not made of conversations; name another source.")
        source = workloads.load(name).open(words, msgspec.structs.replace(context, template="server"))
    except UsageError as error:
        raise UsageError(str(error).replace("workload", f"workload.{word}", 1)) from error
    if source.session(0)[0].messages is None:
        raise UsageError(
            f"workload.{word}: prompts: {name} makes token ids or raw text with these settings, and a conversation is "
            "made of chat messages: its history has to hold the replies. Use kind: words, without raw."
        )
    return source


def _seed(seed: int, what: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{what}".encode()).digest()[:6], "big")


def _users(prompt: Prompt) -> tuple[Message, ...]:
    return tuple(message for message in prompt.messages or () if message.role == "user")


def _sha(messages: Sequence[Message]) -> str | None:
    return hashlib.sha256(messages[0].content.encode()).hexdigest() if messages else None
