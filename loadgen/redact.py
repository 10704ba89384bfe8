"""Secrets are struck out by their value, wherever text of others is shown or kept: logs, errors, records, reports.

In: an environment and what a scenario names. Out: the values that must not be written down, and text without them. A
server may say back what it was sent, in an error's body or in its log, so that no rule about names is enough.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import quote, unquote, urlsplit

from loadgen.errors import LoadgenError

SHORTEST_SECRET = 6
"""Shorter values are not struck out: ``true`` and ``1`` would take half of the text with them."""

BEGINNING = 8
"""So much of a secret, from its first character on, is struck out as well: an excerpt may end in the middle of one. Not
so of a path (``TLS_KEY=/etc/...``), whose beginning stands in every other."""

STRUCK = "[secret]"


def is_secret(name: str) -> bool:
    """True for a variable whose name says that its value is one: ``HF_TOKEN``, ``MY_API_KEY``, ``DB_PASSWORD``."""
    return (
        re.search(r"(^|_)(TOKEN|KEY|APIKEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)$", name.upper()) is not None
    )


def secret_values(environ: Mapping[str, str], more: Iterable[str] = ()) -> tuple[str, ...]:
    """The values to strike out: of variables named like secrets, of passwords in proxy addresses, and ``more``.

    The longest come first, so that a secret which contains another goes as a whole.
    """
    found = set(more)
    for name, value in environ.items():
        if is_secret(name):
            found.add(value)
        elif name.lower().endswith("_proxy"):
            found.update(of_url(value))
    return tuple(sorted((value for value in found if len(value) >= SHORTEST_SECRET), key=len, reverse=True))


def of_url(url: str) -> list[str]:
    """The password of an address in every form in which it travels: as it is written, plain, and in the header that
    is made of it (RFC 7617)."""
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
    except ValueError:
        return []
    if not parts.password:
        return []
    user, password = unquote(parts.username or ""), unquote(parts.password)
    header = base64.b64encode(f"{user}:{password}".encode()).decode()
    return [parts.password, password, quote(password, safe=""), header]


def redact(text: str, secrets: Iterable[str]) -> str:
    """``text`` with every secret, and every beginning of one, replaced by ``[secret]``."""
    for secret in secrets:
        text = _without(text, secret)
    return text


@contextmanager
def struck_out(secrets: Iterable[str]) -> Iterator[None]:
    """No error that leaves this block quotes a secret."""
    try:
        yield
    except LoadgenError as error:
        error.args = tuple(redact(one, secrets) if isinstance(one, str) else one for one in error.args)
        raise


def _without(text: str, secret: str) -> str:
    beginning = secret if secret.startswith(("/", "~", ".")) else secret[:BEGINNING]
    at = text.find(beginning)
    while at >= 0:
        end = at + _common(text[at : at + len(secret)], secret)
        text = f"{text[:at]}{STRUCK}{text[end:]}"
        at = text.find(beginning, at + len(STRUCK))
    return text


def _common(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    pairs = zip(one, other, strict=False)
    return next((n for n, (left, right) in enumerate(pairs) if left != right), min(len(one), len(other)))
