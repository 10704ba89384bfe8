"""The command line: parse, call, print, exit code. The only file that prints.

Results go to standard output, everything else to standard error. Modules are imported where they are used, so that
``loadgen --help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loadgen import __version__
from loadgen.errors import LoadgenError

if TYPE_CHECKING:
    from loadgen.assemble import RunReport
    from loadgen.progress import Progress
    from loadgen.scenario import Loaded

app = typer.Typer(
    help="Launches LLM servers, loads them, measures exactly and compares fairly.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ScenarioPath = Annotated[
    Path, typer.Argument(metavar="SCENARIO", help="A scenario file, such as scenarios/moe_vs_dense.yaml.")
]
Store = Annotated[
    Path | None, typer.Option("--store", help="Results folder (default: $LOADGEN_HOME, else ./loadgen-results).")
]
Profile = Annotated[
    str | None, typer.Option("--profile", help="Take this profile of the scenario, whatever the machine has.")
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", help="Override a value: --set load.window_s=10. May be repeated.")
]
Endpoint = Annotated[
    str | None, typer.Option("--endpoint", help="Load a server that exists, at this URL, and launch nothing.")
]
Model = Annotated[str | None, typer.Option("--model", help="Name of the model at --endpoint.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        print(f"loadgen {__version__}")
        raise typer.Exit


@app.command(epilog="Example: loadgen run scenarios/moe_vs_dense.yaml --set load.window_s=10")
def run(
    scenario: ScenarioPath,
    store: Store = None,
    profile: Profile = None,
    sets: Sets = None,
    endpoint: Endpoint = None,
    model: Model = None,
    resume: Annotated[
        str | None, typer.Option("--resume", help="Go on with this run (its name, a part of it, or `last`).")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on standard error.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a scenario from launch to report."""
    from loadgen.run import Request, execute
    from loadgen.store import find_run, store_root

    root = store_root(store)
    loaded = _load(scenario, sets, profile, endpoint, model)
    _name_leftovers(root)
    request = Request(loaded, root, find_run(root, resume) if resume else None)
    with _Screen(quiet) as screen:
        report = execute(request, screen.progress)
    _print_report(report, as_json)
    raise typer.Exit(report.exit_code)


@app.command(epilog="Example: loadgen plan scenarios/moe_vs_dense.yaml --profile gpu")
def plan(
    scenario: ScenarioPath,
    profile: Profile = None,
    sets: Sets = None,
    endpoint: Endpoint = None,
    model: Model = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Show cells, order, server starts and estimated time; start nothing."""
    import msgspec

    from loadgen.plan import make_plan
    from loadgen.reports import plan as plan_report
    from loadgen.scenario import expand

    loaded = _load(scenario, sets, profile, endpoint, model)
    made = make_plan(loaded.scenario, expand(loaded.scenario))
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(made), indent=1).decode())
    else:
        print(plan_report.render(made, loaded), end="")


@app.command(epilog="Example: loadgen report last --format markdown")
def report(
    which: Annotated[str, typer.Argument(metavar="RUN", help="A run's name, a part of it, its folder, or `last`.")],
    store: Store = None,
    form: Annotated[str, typer.Option("--format", help="text, markdown or json.")] = "text",
) -> None:
    """Rebuild the report of a run from its records."""
    from loadgen.assemble import assemble
    from loadgen.errors import UsageError
    from loadgen.reports import json as json_report
    from loadgen.reports import markdown as markdown_report
    from loadgen.store import find_run, store_root

    built = assemble(find_run(store_root(store), which))
    if form == "markdown":
        print(markdown_report.render(built), end="")
    elif form == "json":
        print(json_report.render(built), end="")
    elif form == "text":
        _print_report(built, as_json=False)
    else:
        raise UsageError(f"--format {form}: there are text, markdown and json.")


@app.command(epilog="Example: loadgen schema > schemas/scenario-v1.json")
def schema() -> None:
    """Print the JSON schema of scenario files, for editors."""
    from loadgen.scenario import json_schema

    print(json_schema(), end="")


@app.command(epilog="Example: loadgen selftest --workers 2")
def selftest(
    workers: Annotated[int, typer.Option("--workers", min=1, help="Worker processes that drive the load.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="Small loads only.")] = False,
) -> None:
    """Measure what this machine can be trusted with: streams, tokens/s, requests/s, and the error of the times."""
    from loadgen import selftest as trials
    from loadgen.errors import EXIT_INVALID
    from loadgen.reports import selftest as selftest_report

    def tell(trial: trials.Trial) -> None:
        print(f"{trial.load} {trial.what}: {'trusted' if trial.why is None else trial.why}", file=sys.stderr)

    ceiling = trials.selftest(workers, tell, quick)
    print(selftest_report.render(ceiling), end="")
    if ceiling.best("streams") is None or ceiling.best("requests/s") is None:
        raise typer.Exit(EXIT_INVALID)


def main() -> None:
    """The entry point: a sentence and the contract's exit code instead of a traceback for what users can mend."""
    try:
        app(prog_name="loadgen")
    except LoadgenError as error:
        print(_lines(f"loadgen: {error}"), file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("loadgen: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe is gone: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _load(path: Path, sets: list[str] | None, profile: str | None, endpoint: str | None, model: str | None) -> Loaded:
    from loadgen import host, scenario

    return scenario.load(path, sets=sets or (), profile=profile, machine=host.machine(), endpoint=endpoint, model=model)


def _name_leftovers(root: Path) -> None:
    """Servers that a killed run left behind are named; they hold memory and cores that this run would miss."""
    from loadgen.launch import leftovers

    for left in leftovers(root):
        print(f"loadgen: {left.sentence()}", file=sys.stderr)


def _print_report(built: RunReport, as_json: bool) -> None:
    from loadgen.reports import json as json_report
    from loadgen.reports import text as text_report

    if as_json:
        print(json_report.render(built), end="")
        return
    encoding = (sys.stdout.encoding or "ascii").lower()
    width = _width(sys.stdout)
    print(text_report.render(built, width, unicode=encoding.startswith("utf")), end="")


def _width(stream: Any) -> int:
    """Columns of a terminal; a pipe has room for every column."""
    if os.environ.get("COLUMNS", "").isdigit():
        return int(os.environ["COLUMNS"])
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return 160


def _lines(text: str) -> str:
    """Lines without control characters: an error quotes what a server said, and a terminal obeys escapes."""
    return "\n".join("".join(c if c.isprintable() else " " for c in line) for line in text.splitlines())


def _say_nothing(_: object) -> None:
    """For --quiet."""


class _Screen:
    """Standard error while a run goes on: a live block on a terminal, plain lines elsewhere, nothing when quiet."""

    def __init__(self, quiet: bool) -> None:
        from loadgen.progress import Progress

        self._live: Any = None
        if quiet:
            self.progress: Progress = Progress(_say_nothing, _say_nothing)
        elif sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb":
            self._live = self._make_live()
            self.progress = Progress(self._above, self._show)
        else:
            self.progress = Progress(lambda line: print(_lines(line), file=sys.stderr, flush=True), None)

    def __enter__(self) -> _Screen:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    @staticmethod
    def _make_live() -> Any:
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True, no_color=bool(os.environ.get("NO_COLOR")), markup=False, highlight=False)
        return Live(console=console, transient=True, auto_refresh=False)

    def _above(self, line: str) -> None:
        self._live.console.print(_lines(line))

    def _show(self, lines: list[str]) -> None:
        from rich.text import Text

        self._live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), refresh=True)
