"""What the speed of a mixture of experts hangs on besides its sizes: the prompts that were asked, and its weights.

In: what a run kept of its targets. Out: a `Mixture` for each target that has routed experts, in a sentence, and the
doubt that a comparison with it carries where its router saw tokens made of chance, or has weights made of chance.
A router sends tokens where they belong. Random tokens belong nowhere, and a random router has learned nothing: a step
then reads other experts, and other numbers of them, than one in service would.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from loadgen.limits.footing import footing
from loadgen.limits.served import Serving
from loadgen.summary import Doubt


class Mixture(msgspec.Struct, frozen=True, kw_only=True):
    """A target with routed experts: ``per_token`` of ``experts`` a layer. ``prompts`` are the kinds that it was asked.
    ``random_prompts`` is whether any of them is made of chance; ``weights`` says how random ones were made, is empty
    for those of a checkpoint, and None if nobody knows."""

    target: str
    experts: int
    per_token: int
    prompts: tuple[str, ...]
    random_prompts: bool
    weights: str | None
    sentence: str
    doubt: Doubt | None = None


def mixtures(serving: Serving, described: Mapping[str, Any], cells: Sequence[str]) -> Iterator[Mixture]:
    """One for each target that is a mixture in any of these cells; of one that is several, the first is described."""
    known = [name for name in cells if name in serving.cells]
    for target in dict.fromkeys(target for name in known for target in serving.cells[name].targets):
        for name in known:
            shape = footing(serving, described, name, target, None).shape
            if shape is not None and shape.experts is not None:
                served = serving.of(name, target)
                weights = None if served is None else served.weights
                yield _mixture(serving, target, known, (shape.experts.number, shape.experts.per_token), weights)
                break


def _mixture(
    serving: Serving, target: str, cells: Sequence[str], experts: tuple[int, int], weights: str | None
) -> Mixture:
    asked = [serving.cells[name] for name in cells if target in serving.cells[name].targets]
    prompts = tuple(dict.fromkeys(cell.prompts for cell in asked))
    random = any(cell.random for cell in asked)
    made = f"random weights ({weights})" if weights else "the weights of its checkpoint"
    if weights is None:
        made = "weights that nobody here knows"
    return Mixture(
        target=target,
        experts=experts[0],
        per_token=experts[1],
        prompts=prompts,
        random_prompts=random,
        weights=weights,
        sentence=f"{target} chooses {experts[1]} of {experts[0]} experts a token: {' and '.join(prompts)}, {made}.",
        doubt=_doubt(target, [cell.prompts for cell in asked if cell.random], weights),
    )


def _doubt(target: str, random: Sequence[str], weights: str | None) -> Doubt | None:
    causes = [*dict.fromkeys(random), *(["random weights"] if weights else [])]
    if not causes:
        return None
    text = (
        f"{target} is a mixture of experts, and what is said of it was measured with {' and '.join(causes)}: its "
        "experts were not chosen as they are in service."
    )
    return Doubt("routing", text)
