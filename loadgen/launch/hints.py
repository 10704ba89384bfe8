"""What a dying engine's log means, where its last lines have one meaning only: a sentence on what to do about it."""

from __future__ import annotations

import re
from collections.abc import Sequence

MEANINGS = (
    (
        r"No space left on device|Disk quota exceeded",
        "A disk is full: free space there (`df -h` shows which), or point TMPDIR, HF_HOME and --store elsewhere.",
    ),
    (
        r"Cannot connect to the Docker daemon|failed to connect to the docker API|docker\.sock: connect: permission",
        "The container engine does not answer: start it, or let this user talk to it (`docker ps` must work).",
    ),
    (
        r"manifest unknown|pull access denied|repository does not exist|initializing source docker://|"
        r"Error response from daemon: (?:Get \"https|Head \"https|No such image)",
        "The image could not be fetched: check its name, log in to its registry, or fetch it once with `docker pull`.",
    ),
    (
        r"(?:CUDA|HIP) out of memory|OutOfMemoryError|less than desired GPU memory utilization",
        "The GPU has too little free memory for this: see who holds some with nvidia-smi, use a smaller or quantized "
        "model, more GPUs, or options such as memory_fraction and max_model_len.",
    ),
)
"""Expression for a line of the log -> what to do."""


def hint(lines: Sequence[str], install: str) -> str:
    """A sentence for the last lines of a log, with a line break at its end; empty where they say nothing certain.

    ``install`` is the recipe's word on how the engine is got; it answers a module that is missing.
    """
    text = "\n".join(lines)
    if missing := re.search(r"No module named '?([\w.]+)", text):
        return f"Its python has no module {missing[1]}: {install}\n" if install else ""
    return next((f"{sentence}\n" for expression, sentence in MEANINGS if re.search(expression, text)), "")
