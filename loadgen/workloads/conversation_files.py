"""Conversations out of files: what their users said, in turns. What their assistants said is left out: the history of
a conversation that is held now grows by the replies that it gets.

In: a ShareGPT file (one JSON array), or JSONL with ``messages`` (or one ``prompt``) a line, as ``prompts: sharegpt``
and ``prompts: jsonl`` read them. A system message is kept at the start alone; empty messages are left out.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from loadgen.errors import UsageError
from loadgen.record import Message
from loadgen.workloads import jsonl, sharegpt

Turns = tuple[tuple[Message, ...], ...]

_BOM = b"\xef\xbb\xbf"


class Talks(msgspec.Struct, frozen=True):
    """What a file gave: its conversations, how many tokens their lines ask for at most (None: the scenario's), and how
    many entries were dropped for which reason."""

    turns: list[Turns]
    ask_tok: list[int | None]
    dropped: Counter[str]
    sha256: str


def read(path: Path) -> Talks:
    """The conversations of a file. Raises UsageError for a file that is none, or in which nobody asks anything."""
    try:
        with path.open("rb") as file:
            start = file.read(1024).removeprefix(_BOM).lstrip()
        return _sharegpt(path) if start.startswith(b"[") else _jsonl(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error


def _sharegpt(path: Path) -> Talks:
    found = sharegpt.questions(path, lambda said: tuple(one for one in said if one.role != "assistant"))
    turns = [turns_of(said) for said in found.prompts]
    return Talks(turns, [None] * len(turns), found.dropped, found.sha256)


def _jsonl(path: Path) -> Talks:
    digest = hashlib.sha256()
    decoder = msgspec.json.Decoder(jsonl.Line)
    found = Talks([], [], Counter(), "")
    with path.open("rb") as file:
        for number, data in enumerate(file, 1):
            digest.update(data)
            if not data.removeprefix(_BOM).strip():
                continue
            where = f"{path}:{number}"
            line = jsonl.read_line(decoder, data.removeprefix(_BOM) if number == 1 else data, where)
            if line.token_ids is not None:
                raise UsageError(f"{where}: a conversation is made of messages, and this line has token_ids.")
            turns = turns_of(line.messages or (Message(role="user", content=line.prompt or ""),))
            if not turns:
                raise UsageError(f"{where}: nobody asks anything: there is no message of the user's.")
            found.turns.append(turns)
            found.ask_tok.append(line.output_tokens)
    if not found.turns:
        raise UsageError(f"{path} holds no conversation; write one JSON object a line, with its messages.")
    return msgspec.structs.replace(found, sha256=digest.hexdigest())


def turns_of(said: Sequence[Message]) -> Turns:
    """A turn for each message of the user's, the first with the system message before it if there is one."""
    asked = [(one,) for one in said if one.role == "user" and one.content.strip()]
    system = tuple(one for one in said[:1] if one.role == "system")
    return (system + asked[0], *asked[1:]) if asked else ()
