"""The official ``openai`` package (extra ``openai``): events are its own models, stamped when it gives them."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from loadgen import backends
from loadgen.drive.body import Gunzip
from loadgen.drive.clients import Broken, Heard, Piece, broken, head_of
from loadgen.drive.clock import now_ns
from loadgen.drive.http import MalformedReply, parse_endpoint
from loadgen.drive.job import Job
from loadgen.drive.reply import Reply
from loadgen.errors import UsageError

_KNOWN = {
    "model",
    "messages",
    "prompt",
    "max_tokens",
    "stream",
    "stream_options",
    "temperature",
    "top_p",
    "seed",
    "stop",
}
"""Fields that its methods name; all others go into ``extra_body``."""


class Wire:
    """The bytes of one reply on their way into the package, whose decoder keeps an event of any length.

    ``reply`` understands them as our own driver would, so that the limits and the words are the same; what counts
    is the events that the package makes of them.
    """

    def __init__(self, job: Job, http: Any, heard: Heard) -> None:
        self._job = job
        self._http = http
        self._heard = heard
        self._gunzip: Gunzip | None = None
        self.cut: Exception | None = None
        self.begin(200, {})

    def begin(self, status: int, fields: Any) -> None:
        """The head of a reply is there. Its coding is taken off here, where its growth is bounded."""
        self.head = head_of(status, fields)
        self._gunzip, self.head.gzip = Gunzip() if self.head.gzip else None, False
        job = self._job
        self.reply = Reply(self.head, backends.load(job.backend), job.options.stream, job.shape.max_event_bytes)

    def take(self, data: bytes) -> bytes:
        """The plain bytes, for the package. Raises MalformedReply."""
        at = now_ns()
        self._heard(at)
        plain = self._gunzip.take(data) if self._gunzip is not None else data
        self.reply.feed(plain, at)
        return plain

    def rest(self) -> bytes:
        """What the package does not hand over: the end marker of a stream, the body of a reply that is none.

        Raises Broken for an error in place of a stream, and for a cut that the package kept to itself.
        """
        if self.reply.said.error is not None:
            raise Broken("error_event", self.reply.said.error)
        if self.cut is not None:
            raise broken(self._http, self.cut)
        if self.reply.stream:
            return b"data: [DONE]\n\n" if self.reply.said.done else b""
        return bytes(self.reply.body)


def _passing(http: Any) -> Any:
    """The class of streams of bytes, as ``http`` wants them, each of which comes by a wire. Made once a client: a class
    is a cycle, and nothing collects those while a worker measures."""

    class Passing(http.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, stream: Any, wire: Wire) -> None:
            self.stream = stream
            self.wire = wire

        async def __aiter__(self) -> AsyncIterator[bytes]:
            try:
                async for data in self.stream:
                    yield self.wire.take(data)
            except http.TransportError as error:
                self.wire.cut = error
                raise
            self.wire.reply.end_of_input()

        async def aclose(self) -> None:
            await self.stream.aclose()

    return Passing


class OpenAIClient:
    """Chat and completions through ``AsyncOpenAI``, without its retries, with a pool as large as the load."""

    def __init__(self, job: Job) -> None:
        try:
            import openai
        except ImportError:
            raise UsageError(
                "driver: openai needs the openai package; install it with: pip install 'loadgen[openai]'"
            ) from None
        limits = type(openai.DEFAULT_CONNECTION_LIMITS)
        self._errors = openai
        self._http: Any = sys.modules[limits.__module__.partition(".")[0]]  # httpx or httpx2, by the package's version
        self._passing = _passing(self._http)
        self._job = job
        self._wires: dict[str, Wire] = {}
        endpoint = parse_endpoint(job.endpoint)
        if endpoint.unix:
            raise UsageError("driver: openai cannot talk to a Unix socket; use driver: loadgen or httpx.")
        scheme = "https" if endpoint.tls else "http"
        headers = {"accept-encoding": "gzip", **job.headers}
        key = headers.pop("authorization", "Bearer none").removeprefix("Bearer ")
        self._client = openai.AsyncOpenAI(
            base_url=f"{scheme}://{endpoint.authority}{endpoint.prefix}/v1",
            api_key=key,
            max_retries=0,
            default_headers=headers,
            http_client=openai.DefaultAsyncHttpxClient(
                timeout=None,
                trust_env=False,
                proxy=job.proxy,
                limits=limits(max_connections=None, max_keepalive_connections=None),
                event_hooks={"response": [self._put_wire]},
            ),
        )

    async def stream(
        self, path: str, fields: dict[str, Any], request_id: str, heard: Heard
    ) -> AsyncGenerator[tuple[int, Piece]]:
        """(arrival, piece) of a reply: its head, its events, and what the package does not hand over."""
        wire = self._wires[request_id] = Wire(self._job, self._http, heard)
        try:
            reply = await self._ask(path, fields, request_id)
            at = now_ns()
            yield at, wire.head
            if fields.get("stream"):
                async for event in reply:
                    at = now_ns()
                    yield at, event.model_dump(warnings=False)  # servers know more finish reasons than the package
        except self._errors.APIStatusError:
            at = now_ns()
            yield at, wire.head
        except self._errors.APIConnectionError as error:
            if isinstance(error.__cause__, MalformedReply):
                raise error.__cause__ from None
            raise broken(self._http, error.__cause__) from error
        except self._errors.APIError as error:  # an error inside the stream
            raise Broken("error_event", wire.reply.said.error or str(error)) from error
        except self._http.TransportError as error:
            raise broken(self._http, error) from error
        finally:
            del self._wires[request_id]
        yield at, wire.rest()  # the package waits for the end of the framing; the reply's last event has its time

    async def _ask(self, path: str, fields: dict[str, Any], request_id: str) -> Any:
        named = {name: value for name, value in fields.items() if name in _KNOWN}
        extra = {name: value for name, value in fields.items() if name not in _KNOWN}
        return await self._method(path)(**named, extra_body=extra, extra_headers={"x-request-id": request_id})

    async def _put_wire(self, response: Any) -> None:
        """Lets the bytes of a response come by the wire of its request."""
        wire = self._wires[response.request.headers["x-request-id"]]
        wire.begin(response.status_code, response.headers)
        response.headers.pop("content-encoding", None)
        response.stream = self._passing(response.stream, wire)

    async def close(self) -> None:
        """Closes the pool."""
        await self._client.close()

    def _method(self, path: str) -> Any:
        if path.endswith("/chat/completions"):
            return self._client.chat.completions.create
        if path.endswith("/completions"):
            return self._client.completions.create
        raise Broken("malformed", f"the openai package has no way to ask {path}")


def open_client(job: Job) -> OpenAIClient:
    """The client of a job. Raises UsageError without the package, and for a backend that it does not speak."""
    if job.backend not in ("openai_chat", "openai_completions"):
        raise UsageError(f"driver: openai speaks openai_chat and openai_completions, not {job.backend}.")
    return OpenAIClient(job)
