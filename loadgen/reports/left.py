"""What is left of a run that is resumed, as lines. In: its plan, and what of it is left. Out: sentences.

``run --resume`` says them when it begins, ``plan --resume`` before anything is started.
"""

from __future__ import annotations

from loadgen.needless import Left, again_sentences, rest_of
from loadgen.plan import Plan
from loadgen.progress import counted, extent
from loadgen.store import Run


def lines(run: Run, plan: Plan, left: Left) -> list[str]:
    """What is measured again, and why; then what is whole, and what is left."""
    if plan.searches:
        return [f"{run.id}: a search goes on where it was; how many probes are left follows from what they come to"]
    rest = rest_of(run, plan, left)
    steps = enumerate(plan.steps)
    done = [number for number, step in steps if run.repeat(step.cell, step.target, step.rep).whole() is not None]
    again = sum(number not in left.idle for number in done)  # with what is wrong, or with a partner that is missing
    some = f" ({again} of them to be measured again)" if again else ""
    here = f"{run.id}: {counted(len(done), 'repeat')} whole{some}"
    return [*again_sentences(left), f"{here}; left: {extent(rest)}" if rest.steps else f"{here}; nothing is left"]
