"""Keys and passwords do not stand in scenarios: they are named, by ``api_key_env`` or ``${env:NAME}``.

A scenario is copied into the folder of every run, mailed and committed; so a literal secret is refused before anything
else is done with it, and its text is never part of the message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from loadgen.scenario.tree import Node, Path, Problem

_SECRET = re.compile(
    r"(.*_)?(api_?key|password|passwd|authorization|secret)|token|(hf|hub|access|auth|api|bearer|refresh|session)_token"
)
_SECRET_VARIABLE = re.compile(
    r"(.*_)?(key|token|password|passwd|passphrase|authorization|cookie|credentials?)|.*secret.*"
)
_SECRET_FLAG = re.compile(r"--?(.+-)?(api-?key|password|secret)|--?((hf|access|auth|api|bearer)-)?token")
_PASSWORD = re.compile(r"://(?P<user>[^/\s@:]*):(?P<password>(?:\$\{env:[^}]*\}|[^/\s@])+)@")
_ONLY_REFERENCE = re.compile(r"\s*(Bearer\s+)?\$\{env:[^}:]*(:-)?\}\s*")


def is_secret_name(name: str) -> bool:
    """True for a key that is called like a secret; ``api_key_env`` and ``max_tokens`` are not."""
    return _SECRET.fullmatch(_plain_name(name)) is not None


def may_be_secret(name: str) -> bool:
    """True for a key whose value is not shown in messages: those above, and what hides secrets in an environment."""
    return is_secret_name(name) or _SECRET_VARIABLE.fullmatch(_plain_name(name)) is not None


def literal_secrets(tree: Node) -> Iterator[Problem]:
    """Every secret that is written out in a tree whose references to the environment are not yet replaced."""
    for path, node in tree.walk():
        if path and not isinstance(node.value, dict | list):
            yield from _flag(path, node) if isinstance(path[-1], int) else _keyed(path, node)
            yield from _address(path, node)


def _keyed(path: Path, node: Node) -> Iterator[Problem]:
    name, holder = str(path[-1]), path[-2] if len(path) > 1 else ""
    if holder == "headers" and _plain_name(name) in ("authorization", "proxy_authorization"):
        reason = "stands in no header here; name the variable that holds the key: api_key_env: NAME"
        yield Problem(node.key_where, path, reason)
        return
    secret = may_be_secret(name) if holder in ("env", "headers") else is_secret_name(name)
    if not secret or node.value is None:
        return
    if isinstance(node.value, str) and _ONLY_REFERENCE.fullmatch(node.value):
        return
    if holder in ("env", "headers"):
        reason = f"is a secret written out; put it into the environment and write {name}: ${{env:NAME}}"
    else:
        reason = "is a secret written out; put it into the environment and name the variable: api_key_env: NAME"
    yield Problem(node.key_where, path, reason)


def _flag(path: Path, node: Node) -> Iterator[Problem]:
    if len(path) > 1 and path[-2] == "args" and isinstance(node.value, str):
        flag = node.value.partition("=")[0].lower().replace("_", "-")
        if _SECRET_FLAG.fullmatch(flag):
            reason = (
                f"{flag} would show a secret in the list of processes; give it by the target's env: NAME: ${{env:NAME}}"
            )
            yield Problem(node.where, path, reason)


def _address(path: Path, node: Node) -> Iterator[Problem]:
    """A password in a URL, such as a proxy's. An endpoint may have none at all, which its own rule says."""
    own = path[-1] == "endpoint" or (len(path) > 1 and path[-2] == "endpoints")
    found = _PASSWORD.search(node.value) if isinstance(node.value, str) and not own else None
    if found is not None and not _ONLY_REFERENCE.fullmatch(found["password"]):
        reason = (
            "holds a password written out; put it into the environment and write "
            f"http://{found['user']}:${{env:NAME}}@HOST"
        )
        yield Problem(node.where, path, reason)


def _plain_name(name: str) -> str:
    return name.lower().replace("-", "_")
