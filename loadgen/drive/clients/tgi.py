"""TGI's own ``text-generation`` package (extra ``tgi``; it cannot be installed beside ``hf``).

Its ``AsyncClient`` opens a new connection for every request, which is part of what it adds. It keeps its connections to
itself: that no line of a stream is longer than some 100 KiB is aiohttp's limit, not ``load.max_event_bytes``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from loadgen.drive.clients import Broken, Heard, Piece, Refused
from loadgen.drive.clock import now_ns
from loadgen.drive.http import parse_endpoint
from loadgen.drive.job import Job
from loadgen.errors import UsageError

_PARAMETERS = ("max_new_tokens", "do_sample", "temperature", "top_k", "top_p", "seed", "repetition_penalty")


class TgiClient:
    """``generate_stream`` and ``generate`` of ``text_generation.AsyncClient``."""

    def __init__(self, job: Job) -> None:
        try:
            import aiohttp
            import text_generation
            import text_generation.errors as errors
        except ImportError:
            raise UsageError(
                "driver: tgi needs the text-generation package, in an environment without transformers 5; "
                "install it with: pip install 'loadgen[tgi]'"
            ) from None
        endpoint = parse_endpoint(job.endpoint)
        scheme = "https" if endpoint.tls else "http"
        self._errors = errors
        self._aiohttp = aiohttp
        self._client = text_generation.AsyncClient(
            f"{scheme}://{endpoint.authority}{endpoint.prefix}",
            headers=job.headers,
            timeout=0,  # none: load.timeout_s is the driver's own affair, and has a name
        )

    async def stream(
        self, path: str, fields: dict[str, Any], request_id: str, heard: Heard
    ) -> AsyncGenerator[tuple[int, Piece]]:
        """(arrival, event) of a reply in TGI's native form, one event for one that is not streamed."""
        del path, request_id, heard  # the package chooses, and reads alone
        asked = fields.get("parameters", {})
        options = {name: asked[name] for name in _PARAMETERS if name in asked}
        begun = False
        try:
            if not fields.get("stream"):
                reply = await self._client.generate(fields["inputs"], **options)
                yield now_ns(), reply.model_dump(mode="json")
                return
            async for event in self._client.generate_stream(fields["inputs"], **options):
                at, begun = now_ns(), True
                yield at, event.model_dump(mode="json")
        except Exception as error:
            raise self._named(error, begun) from error

    def _named(self, error: Exception, begun: bool) -> Exception:
        """What the package or aiohttp raised, as records call it. ``begun``: an event has come, so the status is 200.

        The package says which error it was, but not the status; those that stand for one of several get the usual one.
        """
        errors, aiohttp = self._errors, self._aiohttp
        why = str(error) or type(error).__name__
        refusals = {
            errors.OverloadedError: 429,
            errors.RateLimitExceededError: 429,
            errors.ValidationError: 422,
            errors.NotFoundError: 404,
            errors.BadRequestError: 400,
            errors.ShardNotReadyError: 424,
            errors.ShardTimeoutError: 504,
        }
        if type(error) in refusals and not begun:
            return Refused(refusals[type(error)], why)
        if type(error).__module__ == errors.__name__:
            return Broken("error_event", why)
        if isinstance(error, aiohttp.ContentTypeError) and error.status != 200:
            return Refused(error.status, error.message)
        if isinstance(error, aiohttp.ClientConnectorError):
            return Broken("connect_error", why)
        if isinstance(error, aiohttp.ServerDisconnectedError):
            return Broken("reset", "the server closed the connection without a reply")
        if isinstance(error, aiohttp.ClientPayloadError) and "ConnectionResetError" not in why:
            return Broken("truncated", "the connection was closed before the reply was complete")
        if isinstance(error, (aiohttp.ClientPayloadError, OSError)):
            return Broken("reset", f"the connection was cut: {why}")
        return Broken("malformed", why)

    async def close(self) -> None:
        """Nothing is kept."""


def open_client(job: Job) -> TgiClient:
    """The client of a job. Raises UsageError without the package, and for another backend than TGI's own."""
    if job.proxy is not None:
        raise UsageError("driver: tgi cannot use a proxy; use driver: loadgen or httpx.")
    if job.backend != "tgi_generate":
        raise UsageError(f"driver: tgi speaks tgi_generate, not {job.backend}.")
    return TgiClient(job)
