"""TGI's own ``text-generation`` package (extra ``tgi``; it cannot be installed beside ``hf``).

Its ``AsyncClient`` opens a new connection for every request, which is part of what it adds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from loadgen.drive.clients import Broken, Refused
from loadgen.drive.clock import now_ns
from loadgen.drive.http import parse_endpoint
from loadgen.drive.job import Job
from loadgen.errors import UsageError

_PARAMETERS = ("max_new_tokens", "do_sample", "temperature", "top_k", "top_p", "seed", "repetition_penalty")


class TgiClient:
    """``generate_stream`` and ``generate`` of ``text_generation.AsyncClient``."""

    def __init__(self, job: Job) -> None:
        try:
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
        self._client = text_generation.AsyncClient(
            f"{scheme}://{endpoint.authority}{endpoint.prefix}", headers=job.headers, timeout=int(job.shape.timeout_s)
        )

    async def stream(
        self, path: str, fields: dict[str, Any], request_id: str
    ) -> AsyncIterator[tuple[int, dict[str, Any]]]:
        """(arrival, event) of a reply in TGI's native form, one event for one that is not streamed."""
        del path, request_id  # the package chooses both
        asked = fields.get("parameters", {})
        options = {name: asked[name] for name in _PARAMETERS if name in asked}
        try:
            if not fields.get("stream"):
                reply = await self._client.generate(fields["inputs"], **options)
                yield now_ns(), reply.model_dump(mode="json")
                return
            async for event in self._client.generate_stream(fields["inputs"], **options):
                at = now_ns()
                yield at, event.model_dump(mode="json")
        except self._errors.OverloadedError as error:
            raise Refused(429, str(error)) from error
        except (self._errors.ValidationError, self._errors.NotFoundError) as error:
            raise Refused(422, str(error)) from error
        except OSError as error:
            raise Broken("connect_error", str(error)) from error

    async def close(self) -> None:
        """Nothing is kept."""


def open_client(job: Job) -> TgiClient:
    """The client of a job. Raises UsageError without the package, and for another backend than TGI's own."""
    if job.proxy is not None:
        raise UsageError("driver: tgi cannot use a proxy; use driver: loadgen or httpx.")
    if job.backend != "tgi_generate":
        raise UsageError(f"driver: tgi speaks tgi_generate, not {job.backend}.")
    return TgiClient(job)
