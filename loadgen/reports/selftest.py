"""The ceiling of this machine as text. In: a `Ceiling`. Out: a table and the sentence that matters."""

from __future__ import annotations

from loadgen.reports.text import aligned
from loadgen.selftest import Ceiling, Trial

HEAD = ["load", "tokens/s", "requests/s", "TTFT off p50 ms", "p99", "send late p50 ms", "p99", "client CPU", "verdict"]


def render(ceiling: Ceiling) -> str:
    """What ``loadgen selftest`` prints."""
    lines = aligned([HEAD, *(_row(trial) for trial in ceiling.trials)], left=1)
    streams, rate = ceiling.best("streams"), ceiling.best("requests/s")
    lines.append("")
    lines += [f"{_load(trial)}: {trial.why}" for trial in ceiling.trials if trial.why is not None]
    if streams is None or rate is None:
        lines.append("This machine, as busy as it is now, cannot be trusted with any load; see above.")
    else:
        off = max(trial.error_ms[1] for trial in (streams, rate) if trial.error_ms is not None)
        lines.append(
            f"Trusted here: {streams.load:,} streams ({streams.tokens_per_s:,.0f} tokens/s) in a closed loop, "
            f"{rate.load:,} requests/s in an open one, with first-token times right to {off:.2f} ms (p99)."
        )
        lines.append("The null server ran on this machine, too: against a server elsewhere the client has more of it.")
    return "\n".join(lines) + "\n"


def _row(trial: Trial) -> list[str]:
    off, late = trial.error_ms or (float("nan"),) * 2, trial.late_ms or (float("nan"),) * 2
    return [
        _load(trial),
        f"{trial.tokens_per_s:,.0f}",
        f"{trial.requests_per_s:,.0f}",
        *(f"{value:.3f}" for value in (*off, *late)),
        f"{trial.cpu * 100:.0f} %",
        "trusted" if trial.why is None else "NOT trusted",
    ]


def _load(trial: Trial) -> str:
    return f"{trial.load:,} {trial.what}"
