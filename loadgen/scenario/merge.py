"""From several sources to one tree: the file, what it extends, its profile, ``--set``, and the environment.

Later ones win: the extended file, the file, the profile, ``--set``. Mappings merge, lists and scalars replace, null
deletes, and ``*`` among targets stands for every target beneath. Environment references are replaced last, so that a
reference in a profile that is not used asks for nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path as File

from msgspec.structs import replace

from loadgen.scenario.tree import MAX_BYTES, Node, Path, Problem, dotted, parse

MAX_EXTENDS = 8

PATH_KEYS = ("engine", "model", "config", "tokenizer", "python", "timestamps", "path")
"""Keys whose relative values start from the file that they stand in."""

_REFERENCE = re.compile(r"\$\{env:(?P<name>[^}:]*)(?::-(?P<default>[^}]*))?\}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def merge(base: Node, over: Node) -> Node:
    """``over`` on ``base``: mappings merge, everything else is replaced, and a null deletes the key it stands for."""
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    merged = dict(base.value)
    for key, node in over.value.items():
        if key not in merged:
            merged[key] = node
        elif node.value is None:
            del merged[key]
        else:
            merged[key] = merge(merged[key], node)
    return replace(over, value=merged)


def laid_over(base: Node, over: Node) -> Node:
    """A scenario over another: as `merge`, but what its targets say under ``*`` is said of every target beneath first,
    so that ``{"*": null, mine: {...}}`` has no other target."""
    below, above = base.get("targets"), over.get("targets")
    every = above.get("*") if above is not None else None
    if above is None or below is None or every is None or not isinstance(below.value, dict):
        return merge(base, over)
    spread = merge(below, replace(above, value=dict.fromkeys(below.value, every)))
    own = replace(above, value={name: node for name, node in above.value.items() if name != "*"})
    without = replace(over, value={key: node for key, node in over.value.items() if key != "targets"})
    return put(merge(base, without), ("targets",), merge(spread, own))


def put(node: Node, path: Path, new: Node) -> Node:
    """The tree with another node at a path; what is missing on the way is made, None deletes. ``*`` is every key.

    Raises KeyError with the part of the path that cannot be gone through.
    """
    if not path:
        return new
    step, rest = path[0], path[1:]
    if isinstance(step, int):
        if not isinstance(node.value, list) or step >= len(node.value):
            raise KeyError(dotted((step,)))
        return replace(node, value=[put(n, rest, new) if i == step else n for i, n in enumerate(node.value)])
    if not isinstance(node.value, dict):
        raise KeyError(step)
    below = dict(node.value)
    for key in list(below) if step == "*" else [step]:
        if not rest and new.value is None:
            below.pop(key, None)
        else:
            child = below.get(key)
            start = child if child is not None and child.value is not None else replace(new, value={})
            below[key] = put(start, rest, new)
    return replace(node, value=below)


def read(path: File) -> tuple[bytes, Node | None, list[Problem]]:
    """The bytes of a scenario file, its tree (None if it has none), and what is wrong with it."""
    where = str(path)
    try:
        if path.is_dir():
            return b"", None, [Problem(where, (), "is a folder; name the scenario file in it")]
        source = path.read_bytes()
    except FileNotFoundError:
        return b"", None, [Problem(where, (), f"does not exist{_beside(path)}")]
    except OSError as error:
        return b"", None, [Problem(where, (), f"cannot be read: {error.strerror or error}")]
    if len(source) > MAX_BYTES:
        reason = (
            f"has {len(source):,} bytes; a scenario has at most {MAX_BYTES:,} (prompts go into a file of their own)"
        )
        return source, None, [Problem(where, (), reason)]
    try:
        text = source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = source.count(b"\n", 0, error.start) + 1
        column = error.start - source.rfind(b"\n", 0, error.start)
        return source, None, [Problem(f"{where}:{line}:{column}", (), "is not UTF-8; save the file as UTF-8")]
    tree, problems = parse(text, where)
    if tree is None and not problems:
        problems = [Problem(where, (), "is empty; a scenario starts with 'schema: loadgen/v1'")]
    elif tree is not None and not isinstance(tree.value, dict):
        problems = [Problem(tree.where, (), "must be a mapping of keys to values, such as 'schema: loadgen/v1'")]
    return source, tree if tree is not None and isinstance(tree.value, dict) else None, problems


def _beside(path: File) -> str:
    import difflib

    found = [file.name for file in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, found, n=1, cutoff=0.5)
    return f"; did you mean {path.parent / near[0]}?" if near else ""


def extended(tree: Node, path: File, seen: Sequence[File] = ()) -> tuple[Node, list[Problem]]:
    """The tree with what it extends beneath it, file by file, and what is wrong with those."""
    link = tree.get("extends")
    own = replace(tree, value={key: node for key, node in tree.value.items() if key != "extends"})
    if link is None or link.value is None:
        return own, []
    if not isinstance(link.value, str):
        return own, [Problem(link.where, ("extends",), "must be the name of a file")]
    base_path = path.parent / link.value
    seen = [*seen, path.resolve()]
    if base_path.resolve() in seen or len(seen) > MAX_EXTENDS:
        chain = " -> ".join(file.name for file in [*seen, base_path])
        return own, [
            Problem(link.where, ("extends",), f"goes in a circle, or is over {MAX_EXTENDS} files long: {chain}")
        ]
    _, base, problems = read(base_path)
    if base is None:
        return own, [Problem(link.where, ("extends",), str(problem)) for problem in problems]
    base, more = extended(base, base_path, seen)
    # name and description say which scenario it is, so they are not inherited
    base = replace(base, value={key: node for key, node in base.value.items() if key not in ("name", "description")})
    return laid_over(_moved(base, base_path.parent, path.parent), own), [*problems, *more]


def _moved(tree: Node, old: File, new: File) -> Node:
    """The tree with its relative paths rewritten, so that they mean the same from another folder."""
    if old.resolve() == new.resolve():
        return tree
    for path, node in list(tree.walk()):
        key, text = path[-1] if path else "", node.value
        if key not in PATH_KEYS or not isinstance(text, str):
            continue
        if text.startswith(("./", "../")) or (key in ("config", "timestamps", "path") and not os.path.isabs(text)):
            there = os.path.relpath(old / text, new)
            tree = put(tree, path, replace(node, value=there if there.startswith(".") else f"./{there}"))
    return tree


def resolved(node: Node, env: Mapping[str, str], path: Path = ()) -> tuple[Node, list[Problem]]:
    """The tree with ``${env:NAME}`` and ``${env:NAME:-default}`` replaced in text values, and what is missing."""
    if isinstance(node.value, dict):
        pairs = {key: resolved(item, env, (*path, key)) for key, item in node.value.items()}
        problems = [problem for _, found in pairs.values() for problem in found]
        return replace(node, value={key: item for key, (item, _) in pairs.items()}), problems
    if isinstance(node.value, list):
        items = [resolved(item, env, (*path, i)) for i, item in enumerate(node.value)]
        return replace(node, value=[item for item, _ in items]), [p for _, found in items for p in found]
    if not isinstance(node.value, str) or "${env:" not in node.value:
        return node, []
    if path[:1] == ("matrix",):
        return node, [Problem(node.where, path, "a matrix holds values, not references to the environment")]
    return _replaced(node, env, path)


def _replaced(node: Node, env: Mapping[str, str], path: Path) -> tuple[Node, list[Problem]]:
    problems: list[Problem] = []

    def value(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        if not _ENV_NAME.fullmatch(name):
            problems.append(Problem(node.where, path, f"{name!r} is no name of an environment variable"))
        elif name not in env and default is None:
            reason = f"the environment has no {name}; set it, or write ${{env:{name}:-default}}"
            problems.append(Problem(node.where, path, reason))
        return env.get(name, default or "")

    text = _REFERENCE.sub(value, node.value)
    if "${env:" in _REFERENCE.sub("", node.value):
        problems.append(Problem(node.where, path, "has a reference without its end; write ${env:NAME}"))
    return replace(node, value=text, written=node.value), problems
