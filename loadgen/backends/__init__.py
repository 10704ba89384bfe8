"""Wire protocols, one file each: a `Prompt` becomes the body of a request, an event of the reply becomes a `Chunk`.

A backend is a module with the names of the `Backend` protocol below; its file name is its name in a scenario. It has
no clock and no socket: the driver moves the bytes and stamps them. To add one, add a file; the suite in
``tests/test_backends.py`` runs over it with the transcripts in ``tests/transcripts/``.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any, Literal, Protocol, cast

import msgspec

from loadgen.errors import UsageError
from loadgen.record import Chunk, Message, Prompt


class RequestOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What every request to a target has in common.

    ``sampling`` holds temperature, top_p, top_k, seed ... as the user wrote them. ``fields`` are added to the body as
    they are. ``exact_fields`` are added when the reply must have exactly N tokens (the engine's own way, from its
    recipe); the string ``"{n}"`` in them becomes the number N.
    """

    model: str
    stream: bool = True
    sampling: dict[str, Any] = msgspec.field(default_factory=dict)
    fields: dict[str, Any] = msgspec.field(default_factory=dict)
    exact_fields: dict[str, Any] = msgspec.field(default_factory=dict)


class Backend(Protocol):
    """What a backend module offers."""

    PATH: str
    """Path of the request below the endpoint's root (``/v1/chat/completions``)."""
    FRAMING: Literal["sse", "ndjson"]
    """How a streamed reply is cut into events."""
    NEEDS_DONE: bool
    """True if a complete stream ends with its own marker; else a finish reason is enough."""
    ACCEPTS: tuple[Literal["messages", "text", "token_ids"], ...]
    """The forms of prompt that this protocol carries."""

    def body(self, prompt: Prompt, options: RequestOptions) -> dict[str, Any]:
        """The JSON body of the request. Raises UsageError for a prompt in a form that the protocol cannot carry."""

    def chunk(self, event: dict[str, Any]) -> Chunk:
        """The meaning of one event of a streamed reply (its JSON, decoded).

        Where the protocol repeats the whole reply in each event the chunk is ``cumulative``; whoever reads the stream
        keeps the last such chunk and asks ``chunk.after(last)`` for what is new. A backend keeps nothing.
        """

    def whole(self, reply: Any) -> Chunk:
        """The meaning of a reply that was not streamed (its JSON, decoded: an object, for TGI a list of one)."""


def names() -> list[str]:
    """The backends that exist, by file name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Backend:
    """The backend of this name. Raises UsageError with the list of those that exist, the nearest first."""
    if name not in names():
        import difflib

        near = difflib.get_close_matches(name, names(), n=1, cutoff=0.0)
        raise UsageError(f"backend {name!r} does not exist; did you mean {near[0]!r}? There are: {', '.join(names())}.")
    return cast(Backend, importlib.import_module(f"loadgen.backends.{name}"))


def smallest_prompt(backend: Backend, exact: bool = False) -> Prompt:
    """The least that can be asked, one token, in a form that the backend carries: is there anybody who answers?"""
    if "messages" in backend.ACCEPTS:
        return Prompt(source="probe", ask_tok=1, exact=exact, messages=(Message("user", "Hi"),))
    if "text" in backend.ACCEPTS:
        return Prompt(source="probe", ask_tok=1, exact=exact, text="Hi")
    return Prompt(source="probe", ask_tok=1, exact=exact, token_ids=(1,))


def exact_fields(options: RequestOptions, tokens: int) -> dict[str, Any]:
    """``options.exact_fields`` with ``"{n}"`` replaced: by the number where it is the whole value, else inside text."""
    return cast(dict[str, Any], _fill(options.exact_fields, tokens))


def extended(body: dict[str, Any], prompt: Prompt, options: RequestOptions) -> dict[str, Any]:
    """``body`` with the target's own fields and, for an exact length, the recipe's; objects are merged, not replaced.

    So ``fields: {sampling_params: {stop: [END]}}`` adds to the object that the backend has made.
    """
    merged = _merge(body, options.fields)
    return _merge(merged, exact_fields(options, prompt.ask_tok)) if prompt.exact else merged


def _merge(body: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    merged = dict(body)
    for name, value in extra.items():
        old = merged.get(name)
        merged[name] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def cannot_carry(prompt: Prompt, backend: str, accepts: tuple[str, ...], instead: str) -> UsageError:
    """The error for a prompt in a form that a protocol does not carry."""
    form = "messages" if prompt.messages is not None else "text" if prompt.text is not None else "token_ids"
    return UsageError(
        f"workload {prompt.source!r} makes prompts as {form}, and backend {backend} sends {' or '.join(accepts)} only; "
        f"{instead}."
    )


def _fill(value: Any, tokens: int) -> Any:
    if isinstance(value, dict):
        return {key: _fill(item, tokens) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, tokens) for item in value]
    if value == "{n}":
        return tokens
    if isinstance(value, str):
        return value.replace("{n}", str(tokens))
    return value
