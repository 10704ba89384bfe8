"""HTTP/1.1 as far as a load generator needs it: the bytes of a request, and the head of a reply (RFC 9112).

Pure functions. The framing of the body is in `reply.py`, the sockets are in `sockets.py`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

import msgspec

from loadgen import __version__
from loadgen.errors import UsageError

HEAD_LIMIT = 65536
"""A reply whose head, with the 1xx heads before it, is longer than this is malformed."""


class MalformedReply(Exception):
    """Bytes that are not the protocol. It ends in the record as status ``malformed`` with this text as ``err``."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests go. ``unix`` is the path of a Unix socket (then host and port only fill the Host header);
    ``proxy`` the proxy in between, None without one, and ``proxy_authorization`` what it asks for."""

    host: str
    port: int
    tls: bool = False
    prefix: str = ""
    unix: str | None = None
    proxy: tuple[str, int] | None = None
    proxy_authorization: str | None = None

    @property
    def authority(self) -> str:
        """The Host header's value."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    def tunnel(self) -> bytes:
        """The request for a tunnel to a TLS endpoint through the proxy (RFC 9110, section 9.3.6)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [f"CONNECT {host}:{self.port} HTTP/1.1", f"host: {host}:{self.port}", *self.proxy_lines(), "", ""]
        return "\r\n".join(lines).encode("latin-1", "replace")

    def proxy_lines(self) -> list[str]:
        """Header lines for the proxy alone."""
        return [f"proxy-authorization: {self.proxy_authorization}"] if self.proxy_authorization else []


def parse_endpoint(url: str, proxy: str | None = None) -> Endpoint:
    """The endpoint of a URL, behind the proxy of another. A trailing ``/v1`` is dropped, since backends name their
    whole path.

    Raises UsageError for a URL that is not http, https or unix, and for a proxy that is not http.
    """
    if proxy is not None:
        return _behind(parse_endpoint(url), proxy)
    if url.startswith("unix:"):
        return Endpoint(host="localhost", port=80, unix=url.removeprefix("unix:").removeprefix("//"))
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"endpoint {url!r} is no URL: {error}; write it as http://HOST:PORT") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"endpoint {url!r} is no http or https URL; write it as http://HOST:PORT")
    if parts.username or parts.password:
        raise UsageError("an endpoint's URL holds a user or password; give keys by name with api_key_env instead")
    tls = parts.scheme == "https"
    prefix = parts.path.rstrip("/").removesuffix("/v1")
    return Endpoint(host=parts.hostname, port=port or (443 if tls else 80), tls=tls, prefix=prefix)


def _behind(endpoint: Endpoint, proxy: str) -> Endpoint:
    try:
        parts = urlsplit(proxy)
        place = (parts.hostname or "", parts.port or 80)
    except ValueError:
        parts, place = urlsplit(""), ("", 0)
    if parts.scheme != "http" or not place[0] or parts.path.strip("/"):  # its text may hold a password: not shown
        raise UsageError("proxy is no address of an HTTP proxy; write it as http://HOST:PORT")
    if endpoint.unix is not None:
        raise UsageError("a Unix socket is on this machine; remove proxy")
    user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    authorization = "Basic " + base64.b64encode(user.encode()).decode() if parts.username else None
    return msgspec.structs.replace(endpoint, proxy=place, proxy_authorization=authorization)


def request_head(endpoint: Endpoint, path: str, headers: Mapping[str, str], user_agent: str = "") -> bytes:
    """The constant part of every request to a path: request line and headers, without content-length and the end.

    Raises UsageError for a header that would break the request into two.
    """
    forwarded = endpoint.proxy is not None and not endpoint.tls  # the proxy reads the request, and asks for itself
    root = f"http://{endpoint.authority}{endpoint.prefix}" if forwarded else endpoint.prefix
    lines = [
        f"POST {root}{path} HTTP/1.1",
        f"host: {endpoint.authority}",
        *(endpoint.proxy_lines() if forwarded else ()),
        "content-type: application/json",
        "accept: text/event-stream, application/json",
        "accept-encoding: identity",
        f"user-agent: {user_agent or 'loadgen/' + __version__}",
    ]
    for name, value in headers.items():
        if not name.isascii() or any(c in name + value for c in "\r\n\0") or ":" in name:
            raise UsageError(f"header {name!r} holds a line end or a colon and cannot be sent")
        lines.append(f"{name.lower()}: {value}")
    return ("\r\n".join(lines) + "\r\n").encode("latin-1", "replace")


def request_bytes(head: bytes, request_id: str, body: bytes) -> bytes:
    """One request, ready to be sent. ``request_id`` goes into ``x-request-id``, so that server logs can be joined."""
    return b"%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n%b" % (head, request_id.encode(), len(body), body)


class Head:
    """Status and framing of a reply. ``length`` is None for a body that is chunked or ends with the connection."""

    __slots__ = ("chunked", "gzip", "is_html", "keep_alive", "length", "retry_after", "size", "status")

    def __init__(self, status: int, size: int, fields: Mapping[bytes, bytes], http10: bool) -> None:
        self.status = status
        self.size = size
        bodiless = status in (204, 304)
        self.chunked = not bodiless and b"chunked" in fields.get(b"transfer-encoding", b"").lower()
        self.length = 0 if bodiless else None if self.chunked else _length(fields.get(b"content-length"))
        self.gzip = b"gzip" in fields.get(b"content-encoding", b"").lower()
        self.is_html = b"html" in fields.get(b"content-type", b"").lower()
        connection = fields.get(b"connection", b"").lower()
        self.keep_alive = b"close" not in connection and (not http10 or b"keep-alive" in connection)
        self.retry_after = fields.get(b"retry-after", b"").decode("latin-1")


def parse_head(data: bytes) -> Head | None:
    """The head at the start of ``data``, or None while it is not whole. Heads of 1xx replies before it are passed over.

    Raises MalformedReply for anything that is no HTTP/1.x reply.
    """
    skipped = 0
    while True:
        end = data.find(b"\r\n\r\n", skipped)
        _check_start(data[skipped : skipped + 8])
        if (end if end >= 0 else len(data) - 3) > HEAD_LIMIT:
            raise MalformedReply(f"the reply's head is longer than {HEAD_LIMIT} bytes")
        if end < 0:
            return None
        head = _parse(data[skipped:end], end + 4)
        if head.status >= 200:
            return head
        skipped = end + 4


def _check_start(start: bytes) -> None:
    if not b"HTTP/1.".startswith(start[:7]):
        raise MalformedReply(f"the server does not speak HTTP/1.1: its reply starts with {start!r}")


def _parse(block: bytes, size: int) -> Head:
    first, *lines = block.split(b"\r\n")
    parts = first.split(b" ", 2)
    if len(parts) < 2 or len(parts[1]) != 3 or not parts[1].isdigit() or parts[1] < b"100":
        raise MalformedReply(f"the status line {first[:60]!r} has no status")
    fields = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            raise MalformedReply(f"the header line {line[:60]!r} has no colon")
        fields[name.strip().lower()] = value.strip()
    return Head(int(parts[1]), size, fields, http10=first.startswith(b"HTTP/1.0"))


def _length(value: bytes | None) -> int | None:
    if value is None:
        return None
    if not value.isdigit() or len(value) > 15:
        raise MalformedReply(f"content-length {value[:20]!r} is no number of bytes")
    return int(value)
