"""Other people's clients, each doing what our driver does: N streams in flight, every token read and stamped.

usage: clients.py CLIENT PORT STREAMS REQUESTS TOKENS STAMPS     CLIENT is aiohttp, httpx or openai

Each is used as its own documentation shows for streaming. TTFT is taken as careful users of these clients take it: at
the first event whose text is not empty. Prints {"cpu_s", "wall_s", "tokens"}: CPU of this process from the first
request to the last reply, imports and connection set-up left out. STAMPS: id, scheduled (the send),
send, first token (CLOCK_MONOTONIC, ns).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

Stream = Callable[[int], AsyncIterator[str]]


def body_of(number: int, tokens: int) -> dict[str, Any]:
    return {
        "model": "m",
        "messages": [{"role": "user", "content": f"hello {number}"}],
        "max_tokens": tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def text_of(line: str) -> str | None:
    """The text of an event's line; None for what is no event."""
    if not line.startswith("data:") or line.startswith("data: [DONE]"):
        return None
    choices = json.loads(line[5:])["choices"]
    return choices[0]["delta"].get("content", "") if choices else ""


async def with_aiohttp(url: str, streams: int, tokens: int) -> tuple[Stream, Any]:
    import aiohttp

    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=streams))

    async def stream(number: int) -> AsyncIterator[str]:
        headers = {"x-request-id": f"r-{number}"}
        async with session.post(url + "/chat/completions", json=body_of(number, tokens), headers=headers) as reply:
            async for line in reply.content:
                text = text_of(line.decode())
                if text is not None:
                    yield text

    return stream, session.close


async def with_httpx(url: str, streams: int, tokens: int) -> tuple[Stream, Any]:
    import httpx

    limits = httpx.Limits(max_connections=streams, max_keepalive_connections=streams)
    client = httpx.AsyncClient(limits=limits, timeout=600)

    async def stream(number: int) -> AsyncIterator[str]:
        headers = {"x-request-id": f"r-{number}"}
        async with client.stream(
            "POST", url + "/chat/completions", json=body_of(number, tokens), headers=headers
        ) as reply:
            async for line in reply.aiter_lines():
                text = text_of(line)
                if text is not None:
                    yield text

    return stream, client.aclose


async def with_openai(url: str, streams: int, tokens: int) -> tuple[Stream, Any]:
    from openai import DEFAULT_CONNECTION_LIMITS, AsyncOpenAI, DefaultAsyncHttpxClient

    # The package's own kind of client, httpx's or httpx2's by its version. Newer ones take a client of httpx, too, but
    # httpcore 1.0 below it closes idle connections that have expired though a request has just been given one: where a
    # turn of the event loop lasts for seconds, such requests ended with a ReadError that no server caused.
    own = type(DEFAULT_CONNECTION_LIMITS)
    limits = own(max_connections=streams, max_keepalive_connections=streams)
    http = DefaultAsyncHttpxClient(limits=limits, timeout=600)
    client = AsyncOpenAI(base_url=url, api_key="none", http_client=http)

    async def stream(number: int) -> AsyncIterator[str]:
        fields = body_of(number, tokens)
        headers = {"x-request-id": f"r-{number}"}
        async for event in await client.chat.completions.create(**fields, extra_headers=headers):
            yield (event.choices[0].delta.content or "") if event.choices else ""

    return stream, client.close


async def run(client: str, port: int, streams: int, requests: int, tokens: int) -> tuple[dict[str, Any], list[str]]:
    make = {"aiohttp": with_aiohttp, "httpx": with_httpx, "openai": with_openai}[client]
    stream, close = await make(f"http://127.0.0.1:{port}/v1", streams, tokens)
    numbers = itertools.count()
    stamps: list[str] = []
    counted = 0

    async def slot() -> None:
        nonlocal counted
        while (number := next(numbers)) < requests:
            sent, first = time.monotonic_ns(), 0
            async for text in stream(number):
                if text:
                    counted += 1
                    first = first or time.monotonic_ns()
            stamps.append(f"r-{number} {sent} {sent} {first}\n")

    cpu, wall = time.process_time(), time.monotonic()
    await asyncio.gather(*(slot() for _ in range(streams)))
    result = {"cpu_s": time.process_time() - cpu, "wall_s": time.monotonic() - wall, "tokens": counted}
    await close()
    return result, stamps


def main() -> None:
    client, port, streams, requests, tokens = sys.argv[1], *map(int, sys.argv[2:6])
    result, stamps = asyncio.run(run(client, port, streams, requests, tokens))
    with open(sys.argv[6], "w") as file:
        file.writelines(stamps)
    print(json.dumps(result))


main()
