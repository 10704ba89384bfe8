"""A recipe's YAML with the line of every key: in goes a path, out come plain values and a way to say where they stand.

Errors name ``file:line``, because a recipe is data that users write (``engine: ./mine.yaml``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from loadgen.errors import UsageError


class RecipeFile(msgspec.Struct, frozen=True):
    """A parsed recipe. ``values`` is plain (dicts, lists, scalars); ``marked`` is the same with positions."""

    path: Path
    values: dict[str, Any]
    marked: Any

    def where(self, steps: Sequence[str | int]) -> str:
        """``file:line`` of the deepest of ``steps`` that stands in the file.

        Steps that the file does not have are passed over: short forms are widened before they are checked, and so a
        path may name a level (``args``, ``words``) that the author left out.
        """
        node, line = self.marked, 1
        for step in steps:
            found = _child(node, step)
            if found is None:
                continue
            node, line = found
        return f"{self.path}:{line}"


def read(path: Path) -> RecipeFile:
    """The recipe in this file. Raises UsageError for a file that cannot be read or is not a YAML mapping."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"{path}: there is no such recipe file; write it, or name one of the shipped ones.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: this recipe cannot be read ({error}); it must be a YAML file in UTF-8.") from error
    try:
        marked = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise UsageError(f"{path}:{line}: this is not YAML: {error.problem or error}.") from error
    except YAMLError as error:
        raise UsageError(f"{path}: this is not YAML: {error}.") from error
    if not isinstance(marked, dict):
        raise UsageError(f"{path}:1: a recipe is a mapping that starts with `command:` or `docker:`.")
    return RecipeFile(path, _plain(marked), marked)


def _child(node: Any, step: str | int) -> tuple[Any, int] | None:
    """The value under ``step`` and its line, or None. Keys that YAML read as true, false or a number match as text."""
    if isinstance(node, list) and isinstance(step, int) and step < len(node):
        return node[step], node.lc.item(step)[0] + 1  # type: ignore[attr-defined]
    if isinstance(node, dict):
        for key, value in node.items():
            if word(key) == str(step):
                return value, node.lc.key(key)[0] + 1  # type: ignore[attr-defined]
    return None


def word(key: Any) -> str:
    """A YAML key as the word that stood in the file: ``true`` and ``8`` are words here, not values."""
    if isinstance(key, bool):
        return "true" if key else "false"
    return str(key)


def _plain(node: Any) -> Any:
    if isinstance(node, dict):
        return {word(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if isinstance(node, bool) or node is None:
        return node
    for kind in (int, float, str):  # ruamel's scalars are subclasses that remember their quotes
        if isinstance(node, kind):
            return kind(node)
    return node
