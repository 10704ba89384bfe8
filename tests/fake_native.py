"""The engines' own protocols, as the fake server words them: TGI, llama.cpp, Ollama, SGLang. Pure; see `fake_wire`."""

from __future__ import annotations

from typing import Any

from fake_script import Script
from fake_wire import FIRST_ID, Ask, Completions, Dialect


class Tgi(Dialect):
    """TGI's own protocol: one token an event, the last one with the whole text and the details; no end marker."""

    finish_with_last = True

    def role(self) -> Any:
        return None

    def token(self, start: int, size: int, last: bool, text: str | None = None) -> Any:
        special = last and self.script.special_eos
        shown = "</s>" if special else self.texts(start, size) if text is None else text
        token = {"id": FIRST_ID + start, "text": shown, "logprob": -0.5, "special": special}
        event: dict[str, Any] = {"index": start + 1, "token": token, "generated_text": None, "details": None}
        if last:
            event["generated_text"] = self.texts(0, start if special else start + size)
            event["details"] = self._details() if self.ask.usage else None
        return event

    def finish(self) -> Any:
        return None

    def usage(self) -> Any:
        return None

    def done(self) -> str | None:
        return None

    def error(self, message: str) -> Any:
        return {"error": message, "error_type": "generation"}

    def whole(self) -> Any:
        reply: dict[str, Any] = {"generated_text": self.texts(0, self.ask.tokens)}
        if self.ask.usage:
            tokens = [
                {"id": FIRST_ID + i, "text": self.text(i), "logprob": -0.5, "special": False}
                for i in range(self.ask.tokens)
            ]
            reply["details"] = {**self._details(), "prefill": [], "tokens": tokens}
        return [reply] if self.ask.whole_list else reply

    def _details(self) -> dict[str, Any]:
        reason = "eos_token" if self.script.special_eos else "length"
        counts = {"generated_tokens": self.ask.tokens, "input_length": self.ask.in_tok}
        return {"finish_reason": reason, "seed": None, **counts}


class LlamaCpp(Dialect):
    """llama-server's own protocol: token ids in ``tokens``, timings in the last event, no end marker."""

    def role(self) -> Any:
        return None

    def token(self, start: int, size: int, last: bool, text: str | None = None) -> Any:
        shown = self.texts(start, size) if text is None else text
        return {"index": 0, "content": shown, "tokens": self.ids(start, size), "stop": False, "id_slot": 0}

    def finish(self) -> Any:
        return {"index": 0, "content": "", "tokens": [], "id_slot": 0, "stop": True, **self._end()}

    def usage(self) -> Any:
        return None

    def done(self) -> str | None:
        return None

    def whole(self) -> Any:
        shown = {"content": self.texts(0, self.ask.tokens), "tokens": self.ids(0, self.ask.tokens)}
        return {"index": 0, **shown, "id_slot": 0, "stop": True, **self._end()}

    def _end(self) -> dict[str, Any]:
        n, fresh = self.ask.tokens, self.ask.in_tok - self.ask.cached
        timings = {"cache_n": self.ask.cached, "prompt_n": fresh, "prompt_ms": 5.0, "predicted_n": n}
        timings["predicted_ms"] = 10.0 * n
        counts = {"tokens_predicted": n, "tokens_evaluated": self.ask.in_tok, "tokens_cached": self.ask.in_tok + n}
        return {"model": self.script.model, "stop_type": "limit", "truncated": False, **counts, "timings": timings}


class Ollama(Dialect):
    """Ollama's own protocol: one JSON a line, counters in nanoseconds on the last."""

    content_type = "application/x-ndjson"

    def role(self) -> Any:
        return None

    def token(self, start: int, size: int, last: bool, text: str | None = None) -> Any:
        name = "thinking" if start < self.script.reasoning_tokens else "content"
        return self._line({"role": "assistant", name: self.texts(start, size) if text is None else text})

    def finish(self) -> Any:
        return self._end("")

    def usage(self) -> Any:
        return None

    def done(self) -> str | None:
        return None

    def error(self, message: str) -> Any:
        return {"error": message}

    def whole(self) -> Any:
        return self._end(self.texts(0, self.ask.tokens))

    def _end(self, text: str) -> dict[str, Any]:
        n = self.ask.tokens
        times = {"total_duration": 10_000_000 * n + 5_000_000, "load_duration": 1000, "prompt_eval_duration": 5_000_000}
        counts = {"prompt_eval_count": self.ask.in_tok, "eval_count": n, "eval_duration": 10_000_000 * n}
        line = self._line({"role": "assistant", "content": text})
        return {**line, "done": True, "done_reason": "length", **times, **counts}

    def _line(self, message: dict[str, Any]) -> dict[str, Any]:
        head = {"model": self.script.model, "created_at": "2026-01-01T00:00:00Z", "done": False}
        return {**head, "message": message}


class OllamaGenerate(Ollama):
    """The same over ``/api/generate``: the text stands in ``response``."""

    def _line(self, message: dict[str, Any]) -> dict[str, Any]:
        head = {"model": self.script.model, "created_at": "2026-01-01T00:00:00Z", "done": False}
        thinking = {"thinking": message["thinking"]} if "thinking" in message else {}
        return {**head, "response": message.get("content", ""), **thinking}


class Sglang(Dialect):
    """SGLang's own protocol: every event holds the whole text and all ids so far."""

    finish_with_last = True

    def role(self) -> Any:
        return None

    def token(self, start: int, size: int, last: bool, text: str | None = None) -> Any:
        return self._so_far(start + size, last, text or "")

    def finish(self) -> Any:
        return None

    def usage(self) -> Any:
        return None

    def error(self, message: str) -> Any:
        return {"error": {"message": message}}

    def whole(self) -> Any:
        return self._so_far(self.ask.tokens, True, "")

    def _so_far(self, n: int, last: bool, extra: str) -> dict[str, Any]:
        reason = {"type": "length", "length": self.ask.tokens} if last else None
        counts = {"prompt_tokens": self.ask.in_tok, "completion_tokens": n, "cached_tokens": self.ask.cached}
        meta = {"id": "fake-1", "finish_reason": reason, **counts, "e2e_latency": 0.05 + 0.01 * n}
        return {"text": self.texts(0, n) + extra, "output_ids": self.ids(0, n), "meta_info": meta}


_DIALECTS: dict[str, type[Dialect]] = {
    "openai_chat": Dialect,
    "openai_completions": Completions,
    "tgi": Tgi,
    "llamacpp": LlamaCpp,
    "ollama": Ollama,
    "ollama_generate": OllamaGenerate,
    "sglang": Sglang,
}


def dialect_of(script: Script, ask: Ask) -> Dialect:
    """The dialect that a request is answered in."""
    return _DIALECTS[ask.dialect](script, ask)
