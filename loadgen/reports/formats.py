"""The formats of ``loadgen report``, by name. In: one `RunReport` or several. Out: text; all but ``text`` is UTF-8."""

from __future__ import annotations

from collections.abc import Sequence

from loadgen.assemble import RunReport
from loadgen.errors import UsageError
from loadgen.reports import FORMATS, LAYOUTS, beside, csv, html, json, junit, markdown, published, text


def check(form: str, runs: int, layout: str | None = None) -> None:
    """Raises UsageError for what is no format or layout, for a page of several runs, and for a layout's other forms."""
    if layout is not None and layout not in LAYOUTS:
        raise UsageError(f"--layout {layout}: there is {', '.join(LAYOUTS)}.")
    if layout is not None and form not in published.FORMS:
        raise UsageError(f"--layout {layout} --format {form}: it is written as {', '.join(published.FORMS)}.")
    if form not in FORMATS:
        raise UsageError(f"--format {form}: there are {', '.join(FORMATS[:-1])} and {FORMATS[-1]}.")
    if form == "html" and runs > 1:
        raise UsageError(f"--format html: a page shows one run, and {runs} are named; ask for each by itself.")


def render(
    form: str, reports: Sequence[RunReport], width: int = 100, unicode: bool = True, layout: str | None = None
) -> str:
    """The report, or several runs side by side; `check` says which there are. ``width`` and ``unicode`` are for
    ``text``."""
    if layout is not None:
        return published.render(form, reports, width, unicode)
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
