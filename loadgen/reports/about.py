"""What a run was, in words: its name and profile or whose results it holds, how its repeats lay, what was launched.

In: a `RunReport`. Out: lines for the terminal, Markdown and HTML.
"""

from __future__ import annotations

from loadgen.assemble import RunReport


def imported(report: RunReport) -> str:
    """Whose figures these are, where another tool measured; '' for a run of loadgen's own."""
    origin = report.run.get("origin")
    if not origin:
        return ""
    return f"imported from {origin['tool']} {origin['version'] or '(version unknown)'}, {origin['layout']}"


def title(report: RunReport) -> str:
    """What was run, on which profile and why, or whose results they are."""
    scenario = report.run["scenario"]
    reason = imported(report) or report.run.get("profile_reason")
    return f"{scenario['name']} ({reason})" if reason else str(scenario["name"])


def scope_line(report: RunReport) -> str:
    """How the repeats were laid out."""
    if not report.comparisons:
        return ""
    names = [target.target for cell in report.cells for target in cell.targets]
    if report.plan.restarts(*names):
        return "Every repeat has a server that was started for it, in ABBA order: the result includes the restart."
    if report.plan.scope == "instance":
        return "Repeats alternate between standing servers (ABBA): the result speaks of these server instances."
    standing = " and ".join(name for name in dict.fromkeys(names) if not report.plan.restarts(name))
    return f"Repeats alternate (ABBA); {standing} stood all the time: the result speaks of these server instances."


def part_lines(report: RunReport) -> list[str]:
    """Of a run that joins others: which of them gave which cells, when, and where."""
    lines = []
    for part in report.run.get("parts", ()):
        machine = part["machine"]
        gpus = [gpu["name"] for gpu in machine.get("gpus") or ()]
        held = f"{machine.get('cores')} cores" + (f", {len(gpus)} x {gpus[0]}" if gpus else "")
        left = f"; its {', '.join(part['left_out'])} left out" if part["left_out"] else ""
        lines.append(f"{', '.join(part['cells'])}: measured by {part['run']} ({part['started']}, {held}){left}.")
    return lines


def server_lines(report: RunReport) -> list[str]:
    """What was launched: engine and version, start-up time, the facts that the engine gave of itself."""
    lines = []
    for name, server in report.run.get("servers", {}).items():
        facts = {key: value for key, value in (server.get("facts") or {}).items() if value is not None}
        said = ", ".join(f"{key} {value}" for key, value in facts.items())
        startup = server.get("startup_s")
        ready = f"ready after {startup:.1f} s" if startup is not None else "never ready"
        lines.append(f"{name}: {server['engine']}, {ready}" + (f" ({said})" if said else ""))
    return lines
