"""How the work of a chat template is counted: its syntax tree is rewritten, and its values are measured.

In: Jinja's syntax tree. Out: the same tree, in which whatever takes time or makes a value passes through a filter whose
name starts with ``charge_``; the filters, and the budget they draw on, are in ``sandbox``. Operators, calls and the
template's own filters are not touched here: Jinja hands them to the environment anyway.
"""

from __future__ import annotations

from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.visitor import NodeTransformer

COPIED = 64
"""Characters whose copy counts as one unit of work."""


class Charge(NodeTransformer):
    """One visit rewrites the tree. Raises SecurityError for statements that no conversation needs."""

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        """All nodes that have no method of their own."""
        if isinstance(node, (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
            raise SecurityError("it wants another template")
        return super().generic_visit(node, *args, **kwargs)

    def visit_For(self, node: nodes.For) -> nodes.Node:
        """Each item pays for the nodes of the loop's body."""
        if node.recursive:
            raise SecurityError("it uses a recursive loop")
        weight = _weight(node.body)
        self.generic_visit(node)
        node.iter = _through("charge_each", node.iter, nodes.Const(weight))
        return node

    def visit_body(self, node: Any) -> nodes.Node:
        """A macro, a block or the body of a call: each time that it runs pays for its nodes."""
        weight = _weight(node.body)
        self.generic_visit(node)
        node.body.insert(0, nodes.Output([_through("charge_run", nodes.Const(""), nodes.Const(weight))]))
        return node  # type: ignore[no-any-return]

    visit_Macro = visit_Block = visit_CallBlock = visit_body

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        """What is written, the template's own text included, pays by its length."""
        self.generic_visit(node)
        parts = [nodes.Const(part.data) if isinstance(part, nodes.TemplateData) else part for part in node.nodes]
        node.nodes = [_through("charge_text", part) for part in parts]
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        """``a ~ b ~ c``, pair by pair, so that each sum is paid for before the next is made."""
        self.generic_visit(node)
        text = node.nodes[0]
        for right in node.nodes[1:]:
            text = _through("charge_join", text, right)
        return text

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        """A comparison may have to look at all that is in its operands."""
        self.generic_visit(node)
        node.expr = _through("charge_value", node.expr)
        for operand in node.ops:
            operand.expr = _through("charge_value", operand.expr)
        return node

    def visit_Test(self, node: nodes.Test) -> nodes.Node:
        """``is in``, ``is eq`` and the like are comparisons under another name."""
        self.generic_visit(node)
        node.args = [_through("charge_value", part) for part in node.args]
        return node

    def visit_literal(self, node: Any) -> nodes.Node:
        """A list, tuple or mapping pays for all in it, so that none grows by holding another twice, over and over."""
        self.generic_visit(node)
        if getattr(node, "ctx", "load") == "store":  # the names of `for a, b in ...`
            return node  # type: ignore[no-any-return]
        return _through("charge_value", node)

    visit_List = visit_Tuple = visit_Dict = visit_literal

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        """A slice is a copy."""
        self.generic_visit(node)
        return _through("charge_slice", node) if isinstance(node.arg, nodes.Slice) else node


class Generation(Extension):
    """``{% generation %}`` marks the assistant's words for training; a rendered prompt has what stands between."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements inside the tag."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _through(name: str, value: nodes.Node, *args: nodes.Node) -> nodes.Filter:
    return nodes.Filter(value, name, list(args), [], None, None, lineno=value.lineno or 1)


def _weight(body: list[nodes.Node]) -> int:
    """How many nodes one run of the body may pass."""
    return sum(1 + sum(1 for _ in node.find_all(nodes.Node)) for node in body)


def size_of(value: Any, limit: int) -> int:
    """Units to walk through a value: one for each thing in it, one more for 64 characters. Stops above the limit."""
    units, rest = 0, [value]
    while rest and units <= limit:
        item = rest.pop()
        units += 1 + (len(item) // COPIED if isinstance(item, str) else 0)
        if isinstance(item, dict):
            rest.extend(item.keys())
            rest.extend(item.values())
        elif isinstance(item, (list, tuple)):
            rest.extend(item)
    return units


def length_of(value: Any) -> int:
    """Items of a container, characters of a text, else 1."""
    return len(value) if hasattr(value, "__len__") else 1


def length_replaced(s: str, old: str = "", new: str = "", *_: Any, **_count: Any) -> int:
    """The length of ``s.replace(old, new)``, or more if only the first ``count`` are replaced."""
    return len(s) + s.count(old) * len(new)


def length_indented(s: Any, width: Any = 4, *_: Any, **_lines: Any) -> int:
    """The length of ``s`` with each line moved in. Raises SecurityError for a width that nobody needs."""
    if not isinstance(s, str) or not isinstance(width, int) or width > 100:
        raise SecurityError(f"it indents by {str(width)[:50]!r}")
    return len(s) + (s.count("\n") + 1) * width
