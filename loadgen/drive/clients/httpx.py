"""httpx's AsyncClient: what counts is the bytes of the body that it gives, stamped when it gives them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import httpx

from loadgen.drive.clients import Heard, Piece, broken, head_of
from loadgen.drive.clock import now_ns
from loadgen.drive.http import parse_endpoint
from loadgen.drive.job import Job


class HttpxClient:
    """Streams by ``client.send`` and ``aiter_raw``, with a pool as large as the load.

    Not by ``aiter_lines``: it keeps a line of any length, and ends one at each of U+2028, U+0085 and their like, which
    JSON may hold as they are.
    """

    def __init__(self, job: Job) -> None:
        endpoint = parse_endpoint(job.endpoint)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        transport = httpx.AsyncHTTPTransport(uds=endpoint.unix, limits=limits) if endpoint.unix else None
        scheme = "https" if endpoint.tls else "http"
        self._root = f"{scheme}://{endpoint.authority}{endpoint.prefix}"
        self._client = httpx.AsyncClient(
            limits=limits,
            transport=transport,
            headers={"accept-encoding": "gzip", **job.headers},
            timeout=None,
            trust_env=False,
            proxy=job.proxy,
        )

    async def stream(
        self, path: str, fields: dict[str, Any], request_id: str, heard: Heard
    ) -> AsyncGenerator[tuple[int, Piece]]:
        """(arrival, piece) of a reply: its head, then the bytes of its body."""
        del heard  # all that comes is handed over
        headers = {"x-request-id": request_id}
        request = self._client.build_request("POST", self._root + path, json=fields, headers=headers)
        try:
            reply = await self._client.send(request, stream=True)
            try:
                yield now_ns(), head_of(reply.status_code, reply.headers)
                async for data in reply.aiter_raw():
                    yield now_ns(), data
            finally:
                await reply.aclose()
                del reply.stream  # it knows its response: a cycle, and nothing collects those while a worker measures
        except httpx.TransportError as error:
            raise broken(httpx, error) from error

    async def close(self) -> None:
        """Closes the pool."""
        await self._client.aclose()


def open_client(job: Job) -> HttpxClient:
    """The client of a job."""
    return HttpxClient(job)
