"""Placeholders and what stands in their place. In: a recipe's strings and the names that stand for something. Out: the
strings filled in, alone, in lists, or nested as deep as a config file is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadgen.launch.recipe import PLACEHOLDER, text_of


def filled(text: str, names: Mapping[str, Any]) -> str:
    """``text`` with its placeholders replaced; a name in braces that is none of them stays as it is."""
    return PLACEHOLDER.sub(lambda found: text_of(names[found[1]]) if found[1] in names else found[0], text)


def all_filled(words: list[str], names: Mapping[str, Any]) -> tuple[str, ...]:
    """Every word, filled in."""
    return tuple(filled(word, names) for word in words)


def deep(node: Any, names: Mapping[str, Any]) -> Any:
    """The same for nested values; a string that is nothing but ``{value}`` becomes the value with its type."""
    if isinstance(node, dict):
        return {key: deep(value, names) for key, value in node.items()}
    if isinstance(node, list):
        return [deep(item, names) for item in node]
    if node == "{value}" and "value" in names:
        return names["value"]
    return filled(node, names) if isinstance(node, str) else node


def merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``under`` with what ``over`` has instead or besides, level by level."""
    both = dict(under)
    for key, value in over.items():
        below = both.get(key)
        both[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return both
