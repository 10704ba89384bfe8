"""The pages of nights: a first page, and one for each series. They ask nobody for anything and have no script.

In: what `words` says. Out: HTML text, each page whole in itself; plots are SVG inside of it. What comes from outside
(names, notes, versions that engines gave) is hostile: Jinja escapes all of it, control characters are taken out, and
the Content-Security-Policy lets nothing run or load but the style.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from loadgen import __version__
from loadgen.reports import html
from loadgen.reports.rows import plain
from loadgen.reports.site.words import Index, Sheet

STYLES = (Path(html.__file__).parent / "page.css", Path(__file__).parent / "site.css")
"""The look of a run's report, and what nights have besides."""


def render_index(page: Index) -> str:
    """The first page."""
    return _render("index.html.j2", page)


def render_series(page: Sheet) -> str:
    """The page of one series."""
    return _render("series.html.j2", page)


def _render(template: str, page: Index | Sheet) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=partial(_one_line, Markup),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # What every template and its macros may name; a fresh environment for each page, so that none sees another's.
    style = "".join(path.read_text("utf-8") for path in STYLES)
    environment.globals.update(version=__version__, policy=html.policy([], style), style=Markup(style))
    return environment.get_template(template).render(page=page)


def _one_line(markup: type, value: Any) -> Any:
    """What others wrote without control characters; our own markup as it is."""
    return plain(value) if isinstance(value, str) and not isinstance(value, markup) else value
