"""The formats of ``loadgen report``, by name. In: one `RunReport` or several. Out: text; all but ``text`` is UTF-8."""

from __future__ import annotations

from collections.abc import Sequence

from loadgen.assemble import RunReport
from loadgen.errors import UsageError
from loadgen.reports import FORMATS, beside, csv, html, json, junit, markdown, text


def check(form: str, runs: int) -> None:
    """Raises UsageError for what is no format, and for a page of several runs."""
    if form not in FORMATS:
        raise UsageError(f"--format {form}: there are {', '.join(FORMATS[:-1])} and {FORMATS[-1]}.")
    if form == "html" and runs > 1:
        raise UsageError(f"--format html: a page shows one run, and {runs} are named; ask for each by itself.")


def render(form: str, reports: Sequence[RunReport], width: int = 100, unicode: bool = True) -> str:
    """The report, or several runs side by side; `check` says which there are. ``width`` and ``unicode`` are for
    ``text``."""
    one = reports[0] if len(reports) == 1 else None
    match form:
        case "text":
            return text.render(one, width, unicode) if one else beside.render(reports, width, unicode)
        case "markdown":
            return markdown.render(one) if one else beside.render_markdown(reports)
        case "csv":
            return csv.render(reports)
        case "json":
            return json.render(one) if one else json.render_several(reports)
        case "junit":
            return junit.render(reports)
        case _:
            return html.render(reports[0])
