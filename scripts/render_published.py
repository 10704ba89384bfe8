"""Writes docs/published-measured.md from the runs that are kept as docs/data/published-*.tar.xz.

usage: .venv/bin/python scripts/render_published.py                 the page
       .venv/bin/python scripts/render_published.py --keep RUN NAME  puts a run's folder into docs/data, under that name

A section a table: `loadgen report RUN... --layout published --format markdown` of all kept runs of that table, without
the rows that nobody measured.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts" / "moe_vs_dense"))

from kept import keep, opened  # noqa: E402  (a folder of scripts, no package)

from loadgen.reports.formats import render  # noqa: E402

DATA = ROOT / "docs" / "data"
PAGE = ROOT / "docs" / "published-measured.md"
HEAD = """\
# Published tables, as measured here

Rendered from the runs in `docs/data` by `scripts/render_published.py`: rows that were measured, beside what was
published. How to measure them, and what the columns mean, is in [published.md](published.md); what each model takes of
memory, and why, in [memory.md](memory.md). Nothing here is typed by hand but this paragraph.

"""


def page(archives: list[Path]) -> str:
    """The whole page. Raises LoadgenError for an archive that holds no run."""
    with ExitStack() as stack:
        reports = [opened(path, stack).report for path in archives]
        tables = list(dict.fromkeys(report.run["scenario"]["published"] for report in reports))
        sections = [
            render(
                "markdown", [one for one in reports if one.run["scenario"]["published"] == table], layout="published"
            )
            for table in tables
        ]
    lines = "\n".join(sections).splitlines()
    kept = (f"#{line}" if line.startswith("#") else line for line in lines if "| not measured |" not in line)
    return HEAD + "\n".join(kept).rstrip() + "\n"


def main() -> None:
    """Writes the page, or keeps a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", nargs=2, metavar=("RUN", "NAME"))
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    if options.keep:
        print(keep(Path(options.keep[0]), DATA / f"published-{options.keep[1]}.tar.xz"))
        return
    options.out.write_text(page(sorted(DATA.glob("published-*.tar.xz"))), encoding="utf-8")
    print(options.out)


if __name__ == "__main__":
    main()
