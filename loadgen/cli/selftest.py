"""What this machine can be trusted with: ``selftest``."""

from __future__ import annotations

from typing import Annotated

import typer

from loadgen.cli import screen

commands = typer.Typer()


@commands.command(epilog="Example: loadgen selftest --workers 2")
def selftest(
    workers: Annotated[int, typer.Option("--workers", min=1, help="Worker processes that drive the load.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="Small loads only.")] = False,
) -> None:
    """Measure what this machine can be trusted with: streams, tokens/s, requests/s, and the error of the times."""
    from loadgen import selftest as trials
    from loadgen.errors import EXIT_INVALID
    from loadgen.reports import selftest as selftest_report

    def tell(trial: trials.Trial) -> None:
        screen.tell(f"{trial.load} {trial.what}: {'trusted' if trial.why is None else trial.why}")

    ceiling = trials.selftest(workers, tell, quick)
    print(selftest_report.render(ceiling), end="")
    if ceiling.best("streams") is None or ceiling.best("requests/s") is None:
        raise typer.Exit(EXIT_INVALID)
