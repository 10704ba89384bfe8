"""A request's JSON -> `Ask`, or a sentence why not.

OpenAI's fields, and those that vLLM adds and load generators need (ignore_eos, min_tokens, top_k). Nothing is passed
over in silence: a misspelt ``ignore_eos`` that is ignored makes replies of another length and spoils a measurement.
Fields of OpenAI that this server does not do are taken with the value that changes nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hf_reply import Ask, Refused

DONE = (
    "model",
    "messages",
    "prompt",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "min_tokens",
    "ignore_eos",
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "user",
)
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "stop": ("", []),
    "echo": (False,),
    "suffix": ("",),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "min_p": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "return_token_ids": (True, False),
    "add_special_tokens": (False,),
    "metadata": ({},),
    "store": (False,),
}
COMPLETION_TOKENS = 16
"""OpenAI's default of max_tokens for completions."""


@dataclass(frozen=True)
class Reader:
    """Reads requests for one model. ``render`` makes token ids of messages, ``encode`` of text; ``length`` is the most
    tokens that prompt and reply have together, ``vocabulary`` the number of ids that the model knows."""

    served_name: str
    length: int
    vocabulary: int
    render: Callable[[list[dict[str, str]]], list[int]]
    encode: Callable[[str], list[int]]

    def ask(self, body: Any, *, chat: bool) -> Ask:
        """The request that a body makes. Raises Refused (400, 404)."""
        if not isinstance(body, dict):
            raise bad('The body is not a JSON object; send one such as {"model": ..., "max_tokens": 16, ...}.')
        check_fields(body)
        if (model := body.get("model")) not in (None, self.served_name):
            raise Refused(
                404,
                f"The model {model!r} does not exist here; this server serves {self.served_name!r}.",
                param="model",
                code="model_not_found",
            )
        prompt = self._messages(body) if chat else self._prompt(body)
        stream = flag(body, "stream")
        most = self._max_tokens(body, len(prompt), chat=chat)
        fewest = whole(body, "min_tokens", 0, least=0)
        if fewest > most:
            raise bad(f"min_tokens is {fewest} and max_tokens {most}; the first may not be the greater.", "min_tokens")
        return Ask(
            prompt=prompt,
            max_tokens=most,
            min_tokens=fewest,
            ignore_eos=flag(body, "ignore_eos"),
            temperature=number(body, "temperature", 1.0, least=0.0),
            top_p=number(body, "top_p", 1.0, least=0.0, most=1.0),
            top_k=max(0, whole(body, "top_k", 0, least=-1)),
            seed=None if body.get("seed") is None else whole(body, "seed", 0, least=None),
            stream=stream,
            include_usage=include_usage(body, stream),
            chat=chat,
        )

    def _max_tokens(self, body: Mapping[str, Any], prompt: int, *, chat: bool) -> int:
        if not prompt:
            raise bad("The prompt is empty; a reply needs one token to start from.", "messages" if chat else "prompt")
        if prompt >= self.length:
            raise bad(
                f"The prompt has {prompt} tokens, and prompt and reply may have {self.length} together; send a shorter "
                "prompt, or start the server with a higher --max-model-len.",
                code="context_length_exceeded",
            )
        name = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
        room = self.length - prompt
        most = whole(body, name, room if chat else min(room, COMPLETION_TOKENS), least=1)
        if most > room:
            raise bad(
                f"{name} is {most} and the prompt has {prompt} tokens: {most + prompt} together, and this server takes "
                f"{self.length}; ask for at most {room}, or start it with a higher --max-model-len.",
                name,
                code="context_length_exceeded",
            )
        return most

    def _messages(self, body: Mapping[str, Any]) -> list[int]:
        if "prompt" in body:
            raise bad("prompt belongs to /v1/completions; /v1/chat/completions takes messages.", "prompt")
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise bad('messages must be a list with at least one message: [{"role": ..., "content": ...}].', "messages")
        return self.render([message(index, item) for index, item in enumerate(messages)])

    def _prompt(self, body: Mapping[str, Any]) -> list[int]:
        if "messages" in body:
            raise bad("messages belong to /v1/chat/completions; /v1/completions takes a prompt.", "messages")
        prompt = body.get("prompt")
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], (str, list)):
            if len(prompt) > 1:
                raise bad(f"prompt holds {len(prompt)} prompts; this server takes one a request.", "prompt")
            prompt = prompt[0]
        if isinstance(prompt, str):
            return self.encode(prompt)
        if not isinstance(prompt, list):
            raise bad("prompt must be a text or a list of token ids.", "prompt")
        for place, token in enumerate(prompt):
            if type(token) is not int or not 0 <= token < self.vocabulary:
                raise bad(
                    f"prompt[{place}] is {token!r}, and a token id of this model is a whole number from 0 to "
                    f"{self.vocabulary - 1}.",
                    "prompt",
                )
        return list(prompt)


def check_fields(body: Mapping[str, Any]) -> None:
    """Raises Refused for a field that this server does not know, or a value that asks for what it does not do."""
    known = sorted({*DONE, *NEUTRAL})
    for name, value in body.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise bad(f"Unknown field {name!r}; the nearest known is {near!r}. Known: {', '.join(known)}.", name)
        if name in NEUTRAL and value is not None and value not in NEUTRAL[name]:
            allowed = " or ".join(repr(each) for each in NEUTRAL[name])
            raise bad(f"{name}: this server does not do {value!r}; leave it out, or send {allowed}.", name)


def message(index: int, item: Any) -> dict[str, str]:
    """One message, its content joined where it comes in text parts."""
    if not isinstance(item, dict) or not isinstance(item.get("role"), str):
        raise bad(f"messages[{index}] must be an object with a role and a content.", "messages")
    content = item.get("content")
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        raise bad(f"messages[{index}].content must be a text, or a list of text parts.", "messages")
    return {"role": item["role"], "content": content}


def include_usage(body: Mapping[str, Any], stream: bool) -> bool:
    """``stream_options.include_usage``; options without a stream are a mistake of the caller."""
    options = body.get("stream_options")
    if options is None:
        return False
    if not stream or not isinstance(options, dict):
        raise bad("stream_options is an object, and needs stream: true.", "stream_options")
    if unknown := sorted(options.keys() - {"include_usage", "include_obfuscation"}):
        raise bad(f"stream_options.{unknown[0]} is unknown; this server knows include_usage.", "stream_options")
    return flag(options, "include_usage")


def flag(body: Mapping[str, Any], name: str) -> bool:
    """A boolean field; False where it is absent or null."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise bad(f"{name} is {value!r} and must be true or false.", name)
    return bool(value)


def whole(body: Mapping[str, Any], name: str, default: int, *, least: int | None) -> int:
    """A whole number, ``least`` or more."""
    value = body.get(name)
    if value is None:
        return default
    if type(value) is not int or (least is not None and value < least):
        raise bad(
            f"{name} is {value!r} and must be a whole number" + (f" of {least} or more." if least is not None else "."),
            name,
        )
    return value


def number(body: Mapping[str, Any], name: str, default: float, *, least: float, most: float | None = None) -> float:
    """A number between ``least`` and ``most``."""
    value = body.get(name)
    if value is None:
        return default
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not least <= value <= (value if most is None else most)
    ):
        raise bad(
            f"{name} is {value!r} and must be a number from {least:g} "
            + (f"to {most:g}." if most is not None else "up."),
            name,
        )
    return float(value)


def bad(message: str, param: str | None = None, *, code: str | None = None) -> Refused:
    """A 400."""
    return Refused(400, message, param=param, code=code)
