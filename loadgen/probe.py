"""One request to an endpoint that exists, before anything is measured: does it answer as its protocol says?

In: a `Site`. Out: nothing, or a TargetError that says what is wrong and what to do, so that a wrong key is not booked
as ten thousand failed requests.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

import msgspec

from loadgen import backends
from loadgen.drive.http import MalformedReply, parse_endpoint, request_bytes, request_head
from loadgen.drive.once import ask_once, never
from loadgen.drive.said import NOT_MEANT
from loadgen.errors import TargetError
from loadgen.jobs import Site

_TIMEOUT_S = 120.0
_ADVICE = {
    401: "give the name of the environment variable that holds the key with api_key_env",
    403: "the key is known but may not do this",
    404: "check the endpoint's path, and the model's name against GET /v1/models",
    405: "check the endpoint's path and the target's backend",
    422: "it refuses a field of the request: name the endpoint's engine, so that loadgen knows its fields",
    429: "it is over its rate limit; wait, or set load.max_rps",
}


def probe(name: str, site: Site, timeout_s: float, cancelled: Callable[[], bool] = never) -> None:
    """Asks each endpoint for one token, not streamed. Raises TargetError unless a reply of this protocol comes back,
    or the run is over (``cancelled``) before it does.

    It is sent over the driver's own sockets, so what it proves holds for the load: TLS, proxy, Unix socket. A redirect
    is not followed: it would carry the key to wherever the server says.
    """
    for url in site.urls or (site.url,):
        _ask(name, msgspec.structs.replace(site, url=url), timeout_s, cancelled)


def _ask(name: str, site: Site, timeout_s: float, cancelled: Callable[[], bool]) -> None:
    backend = backends.load(site.backend)
    fields = backend.body(backends.smallest_prompt(backend), msgspec.structs.replace(site.options, stream=False))
    endpoint = parse_endpoint(site.url, site.proxy)
    where = f"target {name}: {site.url}{backend.PATH}"
    head = request_head(endpoint, backend.PATH, site.headers)
    data = request_bytes(head, str(uuid.uuid4()), msgspec.json.encode(fields))
    try:
        reply = ask_once(endpoint, data, backend, timeout_s, _TIMEOUT_S, cancelled)
    except InterruptedError:
        return
    except OSError as error:
        reason = error.strerror or error
        raise TargetError(f"{where} cannot be reached: {reason}; is the server up, and is this its address?") from error
    except MalformedReply as error:
        raise TargetError(f"{where} does not answer as an HTTP server: {error}; check the address.") from error
    body = bytes(reply.body)
    if reply.head.status != 200:
        advice = _ADVICE.get(reply.head.status, "look into the server's log")
        raise TargetError(f"{where} answers HTTP {reply.head.status}: {_excerpt(body)}; {advice}.")
    try:
        chunk = backend.whole(msgspec.json.decode(body))
    except NOT_MEANT:
        kind = "HTML" if reply.head.is_html else "something else"
        raise TargetError(
            f"{where} answers 200 with {kind} instead of {site.backend}: {_excerpt(body)}; "
            "check the address and the target's backend."
        ) from None
    if chunk.error is not None:
        raise TargetError(f"{where} answers with an error: {_excerpt(chunk.error.encode())}.")


def _excerpt(text: bytes) -> str:
    line = " ".join(text.decode("utf-8", "replace").split())[:200]
    return "".join(c if c.isprintable() else " " for c in line) or "(an empty body)"
