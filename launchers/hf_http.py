"""The server's HTTP side: OpenAI's chat and completions, and what a launcher asks (/health, /metrics, /version).

In: requests. Out: for a stream, one event per token, written when the engine hands the token over. An event is never
held for the next one. The status line waits for the first token, so that a request that fails in its prefill gets a
status of its own, and the role comes with the first token: a client that times the first event times a token.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hf_ask import Reader
from hf_metrics import Metrics
from hf_reply import Ask, Engine, Refused, Reply, Token
from hf_text import Detokenizer
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send


@dataclass(frozen=True)
class Service:
    """What the routes need. ``decode`` makes text of token ids; ``about`` is the page /version; ``broken`` says in a
    sentence why the engine is dead, or None."""

    reader: Reader
    engine: Engine
    metrics: Metrics
    decode: Callable[[list[int]], str]
    about: Mapping[str, Any]
    broken: Callable[[], str | None]


def app(service: Service) -> Starlette:
    """The ASGI application."""
    numbers = itertools.count(1)

    async def generate(request: Request) -> Response:
        body = parse(await request.body())
        ask = service.reader.ask(body, chat=request.url.path.endswith("/chat/completions"))
        reply = service.engine.submit(ask)
        shape = Shape(ask, service.reader.served_name, next(numbers))
        return Answer(service, reply, shape)

    async def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": [model_card(service)]})

    async def health(_: Request) -> Response:
        if reason := service.broken():
            return error_response(Refused(503, reason, code="engine_dead"))
        return JSONResponse({"status": "ok"})

    async def metrics(_: Request) -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def version(_: Request) -> Response:
        return JSONResponse(service.about)

    async def reset_peak_memory(_: Request) -> Response:
        await service.engine.reset_memory()
        return JSONResponse({"status": "ok"})

    async def refused(request: Request, error: Exception) -> Response:
        service.metrics.refused()
        return error_response(refusal(request, error))

    return Starlette(
        routes=[
            Route("/v1/chat/completions", generate, methods=["POST"]),
            Route("/v1/completions", generate, methods=["POST"]),
            Route("/v1/models", models),
            Route("/health", health),
            Route("/metrics", metrics),
            Route("/version", version),
            Route("/reset_peak_memory", reset_peak_memory, methods=["POST"]),
        ],
        exception_handlers={Refused: refused, HTTPException: refused, Exception: refused},
    )


def parse(body: bytes) -> Any:
    """The JSON of a body. Raises Refused (400) saying where it is broken."""
    try:
        return json.loads(body)
    except ValueError as error:
        raise Refused(400, f"The body is not JSON: {error}.") from None


def refusal(request: Request, error: Exception) -> Refused:
    """Whatever went wrong, as what the client is told."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, HTTPException):
        return Refused(error.status_code, f"{request.method} {request.url.path}: {error.detail}.")
    traceback.print_exception(error)
    return Refused(500, f"The server failed: {type(error).__name__}: {error}. Its log has the rest.")


def error_body(error: Refused) -> dict[str, Any]:
    """OpenAI's error object."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}


def error_response(error: Refused) -> Response:
    """An error before the first token."""
    headers = {"retry-after": "1"} if error.status == 503 else None
    return JSONResponse(error_body(error), error.status, headers)


def model_card(service: Service) -> dict[str, Any]:
    """The served model, as /v1/models lists it."""
    return {
        "id": service.reader.served_name,
        "object": "model",
        "created": service.about["started"],
        "owned_by": "loadgen",
        "root": service.about["model"],
        "max_model_len": service.reader.length,
    }


class Shape:
    """The JSON of one reply, in the shape of its endpoint."""

    def __init__(self, ask: Ask, model: str, number: int) -> None:
        self.chat = ask.chat
        name = f"{'chatcmpl' if ask.chat else 'cmpl'}-{number:08d}"
        whole = "chat.completion" if ask.chat else "text_completion"
        kind = "chat.completion.chunk" if ask.chat and ask.stream else whole
        self.head = {"id": name, "object": kind, "created": int(time.time()), "model": model}
        self._begin = "data: " + json.dumps(self.head)[:-1] + ', "choices": [{"index": 0, '

    def event(self, text: str, token: Token, first: bool) -> bytes:
        """One token as a server-sent event."""
        said = f'"text": {json.dumps(text)}'
        if self.chat:
            delta = {"role": "assistant", "content": text} if first else {"content": text}
            said = f'"delta": {json.dumps(delta)}'
        rest = f', "token_ids": [{token.id}], "logprobs": null, "finish_reason": {json.dumps(token.finish)}}}]}}\n\n'
        return (self._begin + said + rest).encode()

    def end(self, reply: Reply) -> bytes:
        """What follows the last token: the usage where it was asked for, and the mark of the end."""
        last = ""
        if reply.ask.include_usage:
            last = f"data: {json.dumps({**self.head, 'choices': [], **account(reply)})}\n\n"
        return (last + "data: [DONE]\n\n").encode()

    def whole(self, text: str, ids: list[int], reply: Reply, finish: str) -> dict[str, Any]:
        """A reply that is not streamed."""
        said = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        choice = {"index": 0, **said, "token_ids": ids, "logprobs": None, "finish_reason": finish}
        return {**self.head, "choices": [choice], **account(reply)}


def account(reply: Reply) -> dict[str, Any]:
    """Usage, and the server's own times of this request in milliseconds."""
    prompt = len(reply.ask.prompt)
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": reply.tokens,
        "total_tokens": prompt + reply.tokens,
    }
    if reply.cached is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": reply.cached}
    times = {
        "queue_time_ms": milliseconds(reply.arrived, reply.started),
        "time_to_first_token_ms": milliseconds(reply.arrived, reply.first),
        "generation_time_ms": milliseconds(reply.first, reply.last),
    }
    return {"usage": usage, "metrics": times}


def milliseconds(start: float | None, end: float | None) -> float | None:
    """The time between two moments, None where one of them is not known."""
    return None if start is None or end is None else round((end - start) * 1000, 3)


class Answer(Response):
    """A reply on its way to the client, streamed or whole. A client that goes away cancels the request."""

    def __init__(self, service: Service, reply: Reply, shape: Shape) -> None:
        self.background = None
        self._service = service
        self._reply = reply
        self._shape = shape

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        watch = asyncio.create_task(self._watch(receive))
        try:
            first = await self._reply.next()
            await (self._stream(first, send) if self._reply.ask.stream else self._whole(first, scope, receive, send))
        except Refused as error:
            await error_response(error)(scope, receive, send)
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch
            self._give_up()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._give_up()

    def _give_up(self) -> None:
        self._reply.cancel()
        self._service.engine.wake()

    async def _stream(self, token: Token, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        detokenizer, first = Detokenizer(self._service.decode), True
        try:
            while True:
                text = detokenizer.add(token.id) + (detokenizer.end() if token.finish else "")
                await send(body(self._shape.event(text, token, first)))
                if token.finish:
                    break
                token, first = await self._reply.next(), False
            await send(body(self._shape.end(self._reply), more=False))
        except Refused as error:
            await send(body(f"data: {json.dumps(error_body(error))}\n\n".encode(), more=False))

    async def _whole(self, token: Token, scope: Scope, receive: Receive, send: Send) -> None:
        detokenizer, text, ids = Detokenizer(self._service.decode), "", [token.id]
        text = detokenizer.add(token.id)
        while token.finish is None:
            token = await self._reply.next()
            ids.append(token.id)
            text += detokenizer.add(token.id)
        reply = self._shape.whole(text + detokenizer.end(), ids, self._reply, token.finish)
        await JSONResponse(reply)(scope, receive, send)


def body(content: bytes, *, more: bool = True) -> dict[str, Any]:
    """A piece of a streamed body."""
    return {"type": "http.response.body", "body": content, "more_body": more}
