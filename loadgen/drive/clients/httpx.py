"""httpx's AsyncClient: events are the lines that it gives, stamped when it gives them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec

from loadgen.drive.clients import Broken, Refused
from loadgen.drive.clock import now_ns
from loadgen.drive.http import parse_endpoint
from loadgen.drive.job import Job


class HttpxClient:
    """Streams by ``client.stream`` and ``aiter_lines``, with a pool as large as the load."""

    def __init__(self, job: Job) -> None:
        endpoint = parse_endpoint(job.endpoint)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        transport = httpx.AsyncHTTPTransport(uds=endpoint.unix, limits=limits) if endpoint.unix else None
        scheme = "https" if endpoint.tls else "http"
        self._root = f"{scheme}://{endpoint.authority}{endpoint.prefix}"
        self._client = httpx.AsyncClient(
            limits=limits, transport=transport, headers=job.headers, timeout=None, trust_env=False, proxy=job.proxy
        )

    async def stream(
        self, path: str, fields: dict[str, Any], request_id: str
    ) -> AsyncIterator[tuple[int, dict[str, Any]]]:
        """(arrival, event) of a reply, one event for one that is not streamed."""
        headers = {"x-request-id": request_id}
        try:
            async with self._client.stream("POST", self._root + path, json=fields, headers=headers) as reply:
                if reply.status_code != 200:
                    raise Refused(reply.status_code, (await reply.aread()).decode("utf-8", "replace"))
                if not fields.get("stream"):
                    yield now_ns(), _object(await reply.aread())
                    return
                async for line in reply.aiter_lines():
                    at = now_ns()
                    data = line.removeprefix("data:").strip() if line.startswith("data:") else line
                    if data.startswith("{"):
                        yield at, _object(data.encode())
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Broken("connect_error", str(error)) from error
        except httpx.TransportError as error:
            raise Broken("reset", str(error) or type(error).__name__) from error

    async def close(self) -> None:
        """Closes the pool."""
        await self._client.aclose()


def _object(data: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Broken("malformed", f"no JSON object: {error}") from error


def open_client(job: Job) -> HttpxClient:
    """The client of a job."""
    return HttpxClient(job)
