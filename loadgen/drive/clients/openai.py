"""The official ``openai`` package (extra ``openai``): events are its own models, stamped when it gives them."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any

from loadgen.drive.clients import Broken, Refused
from loadgen.drive.clock import now_ns
from loadgen.drive.http import parse_endpoint
from loadgen.drive.job import Job
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


class OpenAIClient:
    """Chat and completions through ``AsyncOpenAI``, without its retries, with its own pool."""

    def __init__(self, job: Job) -> None:
        try:
            import openai
        except ImportError:
            raise UsageError(
                "driver: openai needs the openai package; install it with: pip install 'loadgen[openai]'"
            ) from None
        self._errors = openai
        self._http: Any = sys.modules.get("httpx2") or sys.modules["httpx"]  # by the package's version
        endpoint = parse_endpoint(job.endpoint)
        if endpoint.unix:
            raise UsageError("driver: openai cannot talk to a Unix socket; use driver: loadgen or httpx.")
        scheme = "https" if endpoint.tls else "http"
        headers = dict(job.headers)
        key = headers.pop("authorization", "Bearer none").removeprefix("Bearer ")
        self._client = openai.AsyncOpenAI(
            base_url=f"{scheme}://{endpoint.authority}{endpoint.prefix}/v1",
            api_key=key,
            max_retries=0,
            default_headers=headers,
            http_client=openai.DefaultAsyncHttpxClient(timeout=None, trust_env=False, proxy=job.proxy),
        )

    async def stream(
        self, path: str, fields: dict[str, Any], request_id: str
    ) -> AsyncIterator[tuple[int, dict[str, Any]]]:
        """(arrival, event) of a reply, one event for one that is not streamed."""
        create = self._method(path)
        named = {name: value for name, value in fields.items() if name in _KNOWN}
        extra = {name: value for name, value in fields.items() if name not in _KNOWN}
        begun = False
        try:
            reply = await create(**named, extra_body=extra, extra_headers={"x-request-id": request_id})
            if not fields.get("stream"):
                yield now_ns(), reply.model_dump()
                return
            async for event in reply:
                at, begun = now_ns(), True
                yield at, event.model_dump()
        except self._errors.APIStatusError as error:
            raise Refused(error.status_code, error.response.text) from error
        except self._errors.APIConnectionError as error:
            raise Broken("reset" if begun else "connect_error", str(error.__cause__ or error)) from error
        except self._errors.APIError as error:  # an error inside the stream
            raise Broken("error_event", str(error)) from error
        except self._http.TransportError as error:
            raise Broken("reset", str(error) or type(error).__name__) from error
        except ValueError as error:
            raise Broken("malformed", str(error)) from error

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
