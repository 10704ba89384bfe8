"""A place for chat templates of strangers: they may do what templates need, and only so much of it.

In: a template's source and its names. Out: text, or a UsageError that says what the template did. Jinja's sandbox keeps
a template from Python's internals; it does not keep one from taking all time and memory (``'x' * 10**9``, loops in
loops, a string that doubles). So there is a budget of work that grows with the size of the messages, and whatever takes
time or makes a value is charged to it: the syntax tree is rewritten so that loops, outputs, literals, slices and
comparisons pass through filters that charge; operators, calls and filters are charged where Jinja hands them to the
environment. What could cost more than its arguments show (padding, ``batch``, ``round``) is not offered: the filters,
methods and functions below are all that there is, and they are more than the published chat templates use.

This is honest accounting and not a wall: it stops what a template does by mistake or by plain malice, in a second or
a few. It is imported only where a template is rendered, since Jinja takes a while to load.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import jinja2
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.runtime import BlockReference, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Namespace, pass_context

from loadgen.errors import UsageError
from loadgen.workloads.charge import COPIED, Charge, Generation, length_indented, length_of, length_replaced, size_of

MAX_SOURCE = 256 * 1024
"""Characters of a template; the longest published ones have about a tenth."""
WORK = (5_000_000, 50)
"""Budget of a render: units, and units more for every character of the messages. A unit is a node run or 64 characters
copied, some 50 to 500 ns; an ordinary render takes about a thousand."""
LONGEST = (1_000_000, 16)
"""Characters of any text that a template makes, and more for every character of the messages."""
DAY = datetime.datetime(2025, 1, 1)
"""What ``strftime_now`` tells: one fixed day, so that a seed gives the same prompts on every day."""

AT_ONCE = ("abs", "count", "d", "default", "first", "last", "length")
"""Filters whose work does not depend on the size of the value."""
BY_ITEM = ("items", "list", "map", "reject", "rejectattr", "reverse", "select", "selectattr")
"""Filters whose work is the number of items."""
IN_DEPTH = (
    *("capitalize", "dictsort", "float", "indent", "int", "lower", "max", "min", "replace"),
    *("safe", "sort", "string", "title", "trim", "unique", "upper"),
)
"""Filters that may look at all that is in the value."""
TEXT_METHODS = """
capitalize count endswith find index isalnum isalpha isascii isdecimal isdigit islower isnumeric isspace istitle isupper
join lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition rsplit rstrip split splitlines
startswith strip swapcase title upper
"""
METHODS = (
    (str, TEXT_METHODS),
    ((list, tuple), "copy count index"),
    (dict, "copy get items keys values"),
    (LoopContext, "changed cycle"),
)
"""Types, and which of their methods may be called."""


class Sandbox:
    """A compiled template. Not for two threads at the same time: the budget is one."""

    def __init__(self, source: str, where: str) -> None:
        self._where = where
        if len(source) > MAX_SOURCE:
            raise UsageError(f"{where}: a chat template of {len(source)} characters; the limit is {MAX_SOURCE}.")
        self._environment = Environment()
        try:
            tree = Charge().visit(self._environment.parse(source))
            code = self._environment.compile(tree)
        except (jinja2.TemplateError, ArithmeticError, MemoryError, RecursionError, SyntaxError, ValueError) as error:
            raise UsageError(f"{where}: the chat template cannot be compiled: {_reason(error)}.") from None
        self._template = jinja2.Template.from_code(self._environment, code, self._environment.globals)

    def render(self, names: dict[str, Any]) -> str:
        """The text. Raises UsageError for a template that fails, refuses the messages or exceeds its budget."""
        characters = COPIED * size_of(names, 1 << 40)
        self._environment.left = WORK[0] + WORK[1] * characters
        self._environment.longest = LONGEST[0] + LONGEST[1] * characters
        try:
            return self._environment.gathered(self._template.generate(names))
        except jinja2.TemplateError as error:
            raise UsageError(f"{self._where}: the chat template cannot be rendered: {_reason(error)}.") from None
        except Exception as error:  # a template can make Python raise whatever it likes
            kind = type(error).__name__
            raise UsageError(f"{self._where}: the chat template fails: {kind}: {_reason(error)}.") from error


class Names(Namespace):
    """``namespace(...)``. Its text is short, since Jinja's own walks all that it reaches, again and again."""

    def __repr__(self) -> str:
        """Nothing of what it holds."""
        return "<namespace>"


class Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with the field's settings for chat templates, and with a budget."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=[Generation, loopcontrols])
        self.left = 0
        self.longest = 0
        self.filters = {
            **{name: self._paid(name, self.filters[name]) for name in (*AT_ONCE, *BY_ITEM, *IN_DEPTH)},
            "charge_each": pass_context(lambda _, items, weight: self.items_of(items, weight)),
            "charge_run": pass_context(lambda _, value, weight: self.pay(value, weight)),
            "charge_text": pass_context(lambda _, value: self.text_of(value)),
            "charge_join": pass_context(lambda _, left, right: self.joined("", (left, right))),
            "charge_value": pass_context(lambda _, value: self.charge(value)),
            "charge_slice": pass_context(lambda _, value: self.pay(value, length_of(value))),
            "join": pass_context(lambda _, items, by="", attribute=None: self.joined(by, items, attribute)),
            "tojson": pass_context(lambda _, value, *args, **kwargs: self._json(value, *args, **kwargs)),
        }
        self.globals = {
            "range": safe_range,
            "dict": dict,
            "namespace": Names,
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }
        self._functions = tuple(self.globals.values())

    def charge(self, value: Any, units: int = 10) -> Any:
        """The value, after units and all that is in it are paid for."""
        return self.pay(value, max(units, 0) + size_of(value, max(self.left, 0)))

    def pay(self, value: Any, units: int = 10) -> Any:
        """The value, after units and, if it is text, its length are paid for; nothing for what a container holds."""
        self.left -= max(units, 0)
        if isinstance(value, str):
            self.room(len(value))
        if self.left < 0:
            raise SecurityError("it takes far more work than any conversation needs, and was stopped")
        return value

    def room(self, length: int) -> None:
        """Pays for a text, best before it is made."""
        if length > self.longest:
            raise SecurityError(f"it makes a text of more than {self.longest} characters, and was stopped")
        self.pay(None, length // COPIED)

    def gathered(self, pieces: Iterable[str]) -> str:
        """The pieces in one text, given up as soon as it is too long."""
        kept, total = [], 0
        for piece in pieces:
            total += len(piece)
            if total > self.longest:
                self.room(total)
            kept.append(piece)
        return "".join(kept)

    def items_of(self, items: Any, weight: int = 1) -> list[Any]:
        """The items as a list, each paid for by ``weight``."""
        weight = max(weight, 1)
        if hasattr(items, "__next__"):
            items = list(islice(items, max(self.left, 0) // weight + 1))
        self.pay(None, length_of(items) * weight)
        return list(items)

    def text_of(self, value: Any) -> str:
        """The value as text."""
        return str(self.pay(value)) if isinstance(value, str) else str(self.pay(str(self.charge(value)), 0))

    def joined(self, by: Any, items: Any, attribute: Any = None) -> str:
        """The items' texts with ``by`` between them; of each item its ``attribute``, if one is named."""
        values = self.items_of(items)
        if attribute is not None:
            values = [self.getitem(value, attribute) for value in values]
        glue, texts = self.text_of(by), [self.text_of(value) for value in values]
        self.room(sum(map(len, texts)) + len(glue) * len(texts))
        return glue.join(texts)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """An operator, paid for, or refused, before it makes something large."""
        if isinstance(left, int) and isinstance(right, int):
            if max(left.bit_length(), right.bit_length()) > 4096 or (operator == "**" and right > 64):
                raise SecurityError("it computes with larger numbers than any conversation needs")
        elif operator == "**":
            raise SecurityError("it raises something that is no whole number to a power")
        elif operator == "*":
            count, items = (left, right) if isinstance(left, int) else (right, left)
            if isinstance(count, int) and isinstance(items, str):
                self.room(count * len(items))
            elif isinstance(count, int):
                self.pay(None, count * size_of(items, max(self.left, 0)))
        elif operator == "%" and isinstance(left, str):
            if re.search(r"%(\([^)]*\))?[^a-zA-Z%]*(\*|\d{4})", left):
                raise SecurityError("it pads text to a width that no conversation needs")
            self.room(left.count("%") * len(self.text_of(right)) + len(left))
        elif isinstance(left, str) and isinstance(right, str):
            self.room(len(left) + len(right))
        elif operator == "+":
            self.pay(None, length_of(left) + length_of(right))
        return self.pay(super().call_binop(context, operator, left, right))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """A call, if it is one of those that templates need."""
        if isinstance(__obj, (Macro, BlockReference, jinja2.Undefined)) or __obj is Names:
            return __self.pay(super().call(__context, __obj, *args, **kwargs))
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", type(__obj).__name__)
        if name == "format":  # a text's own method, in the wrapper that Jinja's sandbox gives it
            return __self.formatted(__obj, args, kwargs)
        if not any(__obj is function for function in __self._functions):
            if not any(isinstance(owner, kind) and name in known.split() for kind, known in METHODS):
                raise SecurityError(f"it calls {name!r}, which chat templates may not")
            if isinstance(owner, str):
                return __self.method(owner, name, args)
        __self.charge((args, tuple(kwargs.values())))
        if isinstance(owner, (dict, list, tuple)):
            __self.pay(None, len(owner))
        return __self.pay(super().call(__context, __obj, *args, **kwargs))

    def method(self, owner: str, name: str, args: tuple[Any, ...]) -> Any:
        """A method of a text, paid for."""
        if name == "join":
            return self.joined(owner, *args)
        if name == "replace":
            self.room(length_replaced(owner, *args))
        self.pay(None, size_of(args, max(self.left, 0)) * (1 + len(owner) // COPIED))
        result = getattr(owner, name)(*args)
        return self.pay(result, len(result) if isinstance(result, list) else 10)

    def formatted(self, wrapper: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """``text.format(...)`` without widths that no conversation needs."""
        text = getattr(getattr(wrapper, "__wrapped__", None), "__self__", None)
        if not isinstance(text, str) or re.search(r":[^}]*(\d{4}|\{)|\{[^}:]*[.\[]", text):
            raise SecurityError("it formats text in a way that no conversation needs")
        longest = max((len(self.text_of(value)) for value in (*args, *kwargs.values())), default=0)
        self.room(len(text) + text.count("{") * (longest + 1000))
        return str(self.pay(wrapper(*args, **kwargs)))

    def _paid(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter of Jinja's that is paid for; what it wants as its first argument it still gets."""
        wants = getattr(getattr(function, "jinja_pass_arg", None), "name", "")

        @pass_context
        def filtered(context: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
            if hasattr(value, "__next__"):
                value = self.items_of(value)
            size = 1 if name in AT_ONCE else length_of(value) if name in BY_ITEM else size_of(value, max(self.left, 0))
            self.pay(value, size * size_of((args, tuple(kwargs.values())), max(self.left, 0)))
            if name == "replace":
                words = {key: self.text_of(word) for key, word in kwargs.items()}
                self.room(length_replaced(self.text_of(value), *map(self.text_of, args), **words))
            if name == "indent":
                self.room(length_indented(value, *args, **kwargs))
            lead = {"context": context, "eval_context": context.eval_ctx, "environment": self}.get(wants)
            result = function(value, *args, **kwargs) if lead is None else function(lead, value, *args, **kwargs)
            return self.items_of(result) if hasattr(result, "__next__") else self.pay(result)

        return filtered

    def _json(self, value: Any, ensure_ascii: bool = False, indent: Any = None, **form: Any) -> str:
        """JSON as the field's templates want it: no HTML escapes, Chinese as Chinese; ``form`` is json's own."""
        self.charge(value, 100)
        if indent is not None and not (isinstance(indent, int) and 0 <= indent <= 16):
            raise SecurityError(f"it asks tojson for an indent of {str(indent)[:50]!r}")
        return self.gathered(json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, **form).iterencode(value))


def _raise_exception(message: Any = "") -> None:
    raise jinja2.TemplateError(f"it says {str(message)[:300]!r}")


def _strftime_now(form: str) -> str:
    if len(form) > 200 or re.search(r"%[^a-zA-Z%]*\d", form):
        raise SecurityError("it asks for a date of unusual width")
    return DAY.strftime(form)


def _reason(error: BaseException) -> str:
    """The first line of what Python or Jinja says, cut to a readable length, without the final stop."""
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:300].rstrip(".")
