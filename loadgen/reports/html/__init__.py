"""The report as one HTML file: it opens offline, in ten years, and asks nobody for anything.

In: a `RunReport`, whose folder has the records. Out: the text of ``report.html``. Content comes first, as tables that
read without JavaScript and print; each chart stands on a table of its values. The charts are drawn by Apache ECharts,
which is in the file (``echarts.min.js``, see its licence beside it).

**What comes from outside is hostile**: names of models and scenarios, error texts, what a server answered. Jinja
escapes every one; the values of the charts lie in a JSON block in which no ``<`` stands; tooltips are drawn, not made
of HTML. The Content-Security-Policy lets nothing run or load but what its hashes name.
"""

from __future__ import annotations

import base64
import hashlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from loadgen import __version__
from loadgen.assemble import RunReport
from loadgen.reports.html.figures import data_block
from loadgen.reports.html.inside import details
from loadgen.reports.html.page import Page, page
from loadgen.reports.rows import plain

if TYPE_CHECKING:
    from jinja2 import Template

_FOLDER = Path(__file__).parent
SCRIPTS = ("echarts.min.js", "options.js", "charts.js")
"""In the order in which they run."""


MOST_BYTES = 1_950_000
"""Of the page: what is over 2 MB is hard to mail."""


def render(report: RunReport, charts: bool = True) -> str:
    """The page. Without ``charts`` there is no script and no record is read: tables alone, under 100 KB for a run of a
    few dozen cells."""
    shown, template = page(report, charts), _template()
    text = _rendered(template, shown, charts)
    if not charts:
        return text
    found = details(report, MOST_BYTES - len(text.encode()))
    return _rendered(template, msgspec.structs.replace(shown, inside=found), charts)


def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    from loadgen.reports.html.compiled import Compiled

    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        bytecode_cache=Compiled(_FOLDER, Path(__file__)),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=partial(_one_line, Markup),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")


def _rendered(template: Template, shown: Page, charts: bool) -> str:
    from markupsafe import Markup

    # The hashes of the policy are those of the bytes between the tags: nothing may be added to them there.
    scripts = [(_FOLDER / name).read_text("utf-8") for name in SCRIPTS] if charts else []
    style = (_FOLDER / "page.css").read_text("utf-8")
    return template.render(
        page=shown,
        data=Markup(data_block(shown.every_figure)),
        charts=charts,
        version=__version__,
        policy=policy(scripts, style),
        style=Markup(style),
        scripts=[Markup(script) for script in scripts],
    )


def policy(scripts: list[str], style: str) -> str:
    """The Content-Security-Policy: these scripts and this style by their SHA-256, and nothing else from anywhere."""
    allowed = " ".join(_hash(script) for script in scripts) or "'none'"
    return f"default-src 'none'; script-src {allowed}; style-src {_hash(style)}; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _one_line(markup: type, value: Any) -> Any:
    """What others wrote without control characters; our own markup as it is."""
    return plain(value) if isinstance(value, str) and not isinstance(value, markup) else value
