"""One request to an endpoint that exists, before anything is measured: does it answer as its protocol says?

In: a `Site`. Out: nothing, or a TargetError that says what is wrong and what to do, so that a wrong key is not booked
as ten thousand failed requests.
"""

from __future__ import annotations

import msgspec

from loadgen import backends
from loadgen.drive.http import parse_endpoint
from loadgen.errors import TargetError
from loadgen.repeat import Site

_ADVICE = {
    401: "give the name of the environment variable that holds the key with api_key_env",
    403: "the key is known but may not do this",
    404: "check the endpoint's path, and the model's name against GET /v1/models",
    405: "check the endpoint's path and the target's backend",
    422: "it refuses a field of the request: name the endpoint's engine, so that loadgen knows its fields",
    429: "it is over its rate limit; wait, or set load.max_rps",
}


def probe(name: str, site: Site, timeout_s: float) -> None:
    """Asks for one token, not streamed. Raises TargetError unless a reply of this protocol comes back."""
    import httpx

    backend = backends.load(site.backend)
    prompt = backends.smallest_prompt(backend)
    body = backend.body(prompt, msgspec.structs.replace(site.options, stream=False))
    where = f"target {name}: {site.url}{backend.PATH}"
    endpoint = parse_endpoint(site.url, site.proxy)
    transport = httpx.HTTPTransport(uds=endpoint.unix) if endpoint.unix else None
    root = f"http://localhost{endpoint.prefix}" if endpoint.unix else site.url
    try:
        # a redirect is not followed: it would carry the key to wherever the server says
        with httpx.Client(
            transport=transport,
            timeout=httpx.Timeout(120, connect=timeout_s),
            trust_env=False,
            follow_redirects=False,
            proxy=site.proxy,
        ) as client:
            reply = client.post(root + backend.PATH, json=body, headers=site.headers)
    except httpx.HTTPError as error:
        raise TargetError(f"{where} cannot be reached: {error}; is the server up, and is this its address?") from error
    if reply.status_code != 200:
        advice = _ADVICE.get(reply.status_code, "look into the server's log")
        raise TargetError(f"{where} answers HTTP {reply.status_code}: {_excerpt(reply.text)}; {advice}.")
    try:
        chunk = backend.whole(reply.json())
    except (ValueError, AttributeError, KeyError, IndexError, TypeError):
        kind = "HTML" if "html" in reply.headers.get("content-type", "") else "something else"
        raise TargetError(
            f"{where} answers 200 with {kind} instead of {site.backend}: {_excerpt(reply.text)}; "
            "check the address and the target's backend."
        ) from None
    if chunk.error is not None:
        raise TargetError(f"{where} answers with an error: {_excerpt(chunk.error)}.")


def _excerpt(text: str) -> str:
    line = " ".join(text.split())[:200]
    return "".join(c if c.isprintable() else " " for c in line) or "(an empty body)"
