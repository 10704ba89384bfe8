"""The program behind scripts/render-moe-vs-dense: stored runs in, a Markdown page and SVG plots out."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

from kept import keep, opened
from page import render

from loadgen.errors import LoadgenError

DATA = Path("docs/data")
ORDER = ("graphs", "eager", "decode")
"""Which run comes first on the page: what the published table asks, then where more is predicted. Others follow."""


def main() -> int:
    """0; 2 with a sentence where there is no run, or one that cannot be read."""
    args = arguments()
    try:
        if args.keep:
            print(keep(Path(args.keep[0]), DATA / f"moe-vs-dense-{args.keep[1]}.tar.xz", not args.without_chunks))
            return 0
        paths = args.runs or sorted(DATA.glob("moe-vs-dense-*.tar.xz"), key=_place)
        if not paths:
            raise LoadgenError(f"there is no run in {DATA}; keep one with --keep RUN NAME, or name a run's folder.")
        with ExitStack() as stack:
            page = render([opened(path, stack) for path in paths])
        write(args.out, page.text, page.plots)
    except LoadgenError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="render-moe-vs-dense", description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="a run's folder, or an archive of one")
    parser.add_argument("--out", type=Path, default=Path("docs/moe-vs-dense.md"), help="the page to write")
    parser.add_argument("--keep", nargs=2, metavar=("RUN", "NAME"), help="put a run's folder into docs/data")
    parser.add_argument("--without-chunks", action="store_true", help="keep no arrivals of single chunks: a tenth")
    return parser.parse_args()


def _place(archive: Path) -> tuple[int, str]:
    name = archive.name.removeprefix("moe-vs-dense-").removesuffix(".tar.xz")
    return (ORDER.index(name) if name in ORDER else len(ORDER), name)


def write(out: Path, text: str, plots: dict[str, str]) -> None:
    """The page, and its plots in the folder ``img`` beside it."""
    folder = out.parent / "img"
    folder.mkdir(parents=True, exist_ok=True)
    for name, plot in plots.items():
        (folder / name).write_text(plot, encoding="utf-8")
        print(folder / name)
    out.write_text(text, encoding="utf-8")
    print(out)


if __name__ == "__main__":
    sys.exit(main())
