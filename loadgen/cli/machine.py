"""This machine: ``doctor`` says what stands in the way, ``selftest`` what it can be trusted with."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from loadgen.cli import screen
from loadgen.cli.flags import Store

commands = typer.Typer()


@commands.command(epilog="Example: loadgen selftest --workers 2")
def selftest(
    workers: Annotated[int, typer.Option("--workers", min=1, help="Worker processes that drive the load.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="Small loads only.")] = False,
) -> None:
    """Measure which load this machine can be trusted with.

    Streams, tokens/s and requests/s, and the error of the times.
    """
    from loadgen import selftest as trials
    from loadgen.errors import EXIT_INVALID
    from loadgen.reports import selftest as selftest_report

    def tell(trial: trials.Trial) -> None:
        screen.tell(f"{trial.load} {trial.what}: {'trusted' if trial.why is None else trial.why}")

    ceiling = trials.selftest(workers, tell, quick)
    print(selftest_report.render(ceiling), end="")
    if ceiling.best("streams") is None or ceiling.best("requests/s") is None:
        raise typer.Exit(EXIT_INVALID)


@commands.command(epilog="Example: loadgen doctor --stop")
def doctor(
    store: Store = None,
    stop: Annotated[bool, typer.Option("--stop", help="End the servers that outlived their runs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Examine this machine, and servers that outlived their runs.

    GPUs and who uses them, docker, disks, limits, clocks. Exit codes: 0 without a problem (warnings are none), 5 with
    one, 6 if a server could not be ended.
    """
    import msgspec

    from loadgen import doctor as examination
    from loadgen.errors import EXIT_FAILED, EXIT_INVALID, EXIT_OK
    from loadgen.reports import doctor as report
    from loadgen.store import store_root

    root = store_root(store)
    left = examination.left_in(root)
    servers = examination.stop(left) if stop else [examination.is_left(one) for one in left]
    findings = [*examination.examine(root), *servers]
    if as_json:
        screen.put(json.dumps(msgspec.to_builtins(findings), indent=1, ensure_ascii=False) + "\n")
    else:
        print(report.render(findings, screen.width(sys.stdout)), end="")
    wrong = [finding for finding in findings if finding.state == "problem"]
    failed = stop and any(finding in servers for finding in wrong)
    raise typer.Exit(EXIT_FAILED if failed else EXIT_INVALID if wrong else EXIT_OK)
