"""What the fake server is to do: the script, checked on reading, and the choice of a fault for each request.

In: JSON (or a dict) with the names of `Script`; unknown names are refused, since a typo would make a test pass for
nothing. Out: a `Script`. Times are milliseconds after the request was read, unless they say otherwise.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, fields
from typing import Any

DIALECTS = ("openai_chat", "openai_completions", "tgi", "llamacpp", "ollama", "ollama_generate", "sglang")
CHOICES = {
    "role_chunk": ("none", "early", "with_first"),
    "usage": ("none", "own_chunk", "in_finish", "continuous"),
    "finish": ("none", "own", "with_last"),
    "newline": ("\n", "\r\n"),
    "framing": ("chunked", "close", "length"),
    "head": ("early", "with_first"),
    "reasoning": ("", "reasoning", "reasoning_content"),
}
FAULTS = {
    # kind: the parameters it takes beside kind, nth, every, fraction, seed
    "http": ("status", "retry_after", "location", "body", "type"),  # a reply other than 200, or a 200 that is a page
    "slow_head": ("gap_ms",),  # the head of the reply arrives byte by byte
    "never": (),  # the request is read and nothing is ever answered
    "hangup": (),  # the connection is closed instead of an answer
    "refuse": (),  # from this request on the port is closed
    "error_event": ("after", "body"),  # an error inside a 200, after so many tokens
    "cut": ("after",),  # FIN in the middle
    "reset": ("after",),  # RST in the middle
    "stall": ("after",),  # the stream goes silent in the middle
    "half_json": ("after", "clean"),  # half an event, then FIN; clean: the framing says that this was all, and no FIN
    "bad_chunk": ("after",),  # a chunk size that is no number
    "bad_utf8": ("after",),  # an event whose text is not UTF-8
    "huge_event": ("after", "bytes"),  # one event with that many bytes of text
    "gzip_bomb": ("bytes",),  # a compressed event that grows to that many bytes
    "surplus": ("body",),  # bytes after the end of the reply, on the kept connection
    "empty": (),  # a complete reply without a token
    "no_finish": (),  # everything but the finish reason and the end marker
    "no_end": (),  # everything but the end of the framing; the connection stays open
}
_WHICH = ("kind", "nth", "every", "fraction", "seed")


@dataclass(frozen=True)
class Script:
    """One server's behaviour. The defaults are a plain paced stream: first token after 50 ms, then one every 10 ms.

    ``tokens`` None means as many as the request asks for. ``tokens_per_event`` may be a list, taken in turn.
    ``gap_ms`` lies between two writes, and ``gap_per_running_ms`` more for each request that runs when the gap begins
    (its own as well); each write holds ``events_per_write`` events. ``texts`` are the token texts,
    taken in turn (an empty one is a token without text yet); empty means ``w0 w1 ...``. ``token_ids`` adds ids where
    the dialect has them. ``tail_ms`` delays what follows the last token. ``comment_ms`` writes a comment that often
    while there is silence before the first token; ``comment_every`` puts one before every n-th event.
    ``split_bytes`` cuts every write into pieces of that size, ``split_gap_ms`` apart. ``in_tok`` None counts the
    words or ids of the prompt. ``prefix_cache`` counts prompt tokens seen before as cached, in blocks of 16.
    ``batch`` above 0 replaces the pacing by a machine that runs at most so many requests at once and gives each a
    token every ``step_ms + per_request_ms x (requests running)``; ``prefill_ms`` is added to a step for each request
    that joins in it. ``start_ms`` is how long /health answers 503. ``idle_close_ms`` closes kept connections.
    """

    dialect: str = ""
    ttft_ms: float = 50.0
    gap_ms: float = 10.0
    gap_per_running_ms: float = 0.0
    tokens: int | None = None
    tokens_per_event: int | list[int] = 1
    events_per_write: int = 1
    texts: list[str] = field(default_factory=list)
    token_ids: bool = False
    special_eos: bool = False
    reasoning: str = ""
    reasoning_tokens: int = 0
    role_chunk: str = "with_first"
    usage: str = "own_chunk"
    finish: str = "own"
    done: bool = True
    tail_ms: float = 0.0
    newline: str = "\n"
    space: bool = True
    comment_ms: float = 0.0
    comment_every: int = 0
    event_name: str = ""
    framing: str = "chunked"
    head: str = "early"
    keep_alive: bool = True
    gzip: bool = False
    split_bytes: int = 0
    split_gap_ms: float = 0.0
    model: str = "fake"
    in_tok: int | None = None
    prefix_cache: bool = False
    api_key: str = ""
    batch: int = 0
    step_ms: float = 10.0
    per_request_ms: float = 0.0
    prefill_ms: float = 0.0
    start_ms: float = 0.0
    idle_close_ms: float = 0.0
    log_body: bool = True
    faults: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it may be one of {allowed}")
        if self.dialect and self.dialect not in DIALECTS:
            raise ValueError(f"dialect is {self.dialect!r}; it may be one of {DIALECTS}")
        for fault in self.faults:
            kind = fault.get("kind")
            if kind not in FAULTS:
                raise ValueError(f"fault {kind!r} is not known; there are {', '.join(FAULTS)}")
            for name in fault:
                if name not in FAULTS[kind] + _WHICH:
                    raise ValueError(f"fault {kind} takes no {name!r}; it takes {FAULTS[kind] + _WHICH}")

    def event_sizes(self, tokens: int) -> list[int]:
        """How many tokens each event holds, adding up to ``tokens``."""
        sizes = self.tokens_per_event if isinstance(self.tokens_per_event, list) else [self.tokens_per_event]
        found: list[int] = []
        while tokens > 0:
            found.append(min(sizes[len(found) % len(sizes)], tokens))
            tokens -= found[-1]
        return found

    def fault_of(self, index: int) -> dict[str, Any] | None:
        """The fault of the request with this number (from 0, in order of arrival), the first that applies.

        A fault applies to the request ``nth`` (a number or a list), to one in ``every``, to a ``fraction`` drawn from
        ``seed``, or, without any of these, to all.
        """
        for fault in self.faults:
            if "nth" in fault:
                nth = fault["nth"]
                hit = index in nth if isinstance(nth, list) else index == nth
            elif "every" in fault:
                hit = index % fault["every"] == fault["every"] - 1
            elif "fraction" in fault:
                hit = random.Random(f"{fault.get('seed', 0)}:{index}").random() < fault["fraction"]
            else:
                hit = True
            if hit:
                return fault
        return None


def read_script(values: dict[str, Any]) -> Script:
    """The script of a decoded JSON object. Raises ValueError for a name or value that does not exist."""
    known = {f.name for f in fields(Script)}
    for name in values:
        if name not in known:
            raise ValueError(f"the script has no {name!r}; it has {', '.join(sorted(known))}")
    return Script(**values)
