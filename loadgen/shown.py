"""Numbers as people read them, on a terminal, in Markdown and on a page: 12,353 and never 1.2e+04.

In: a number. Out: text, with a comma between thousands. JSON, CSV and what a user pastes into a scenario have plain
digits.
"""

from __future__ import annotations

from decimal import Decimal

DASH = "-"


def number(value: float | None, scale: float = 1.0) -> str:
    """For a column: four significant digits, ``100.0``, all digits before the point, no exponent; a dash for None."""
    if value is None:
        return DASH
    value *= scale
    if value != 0 and abs(value) < 0.001:
        return f"{Decimal(f'{value:.1g}'):f}"
    size = abs(float(f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"))  # as it is shown: 9.9999 is 10.00
    digits = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 3
    return f"{value:,.{digits}f}"


def brief(value: float, digits: int = 4) -> str:
    """For a sentence or an axis: so many significant digits as it needs, ``100``, all digits before the point."""
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"
