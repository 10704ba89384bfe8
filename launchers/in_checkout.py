"""Starts a program of an engine that is no package but runs in its own checkout: TabbyAPI, text-generation-webui.

In: the variable ENGINE_CHECKOUT (the folder) and a command line (a program of that folder, its arguments). This process
becomes that program, in that folder: loadgen starts every engine in the folder of its log, where such a program would
find none of its files.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "ENGINE_CHECKOUT"


def main() -> None:
    """Become the program that the first argument names. Exits with a sentence if there is no such checkout."""
    program = sys.argv[1]
    folder = os.environ.get(VARIABLE)
    if not folder:
        sys.exit(f"{VARIABLE} is not set: say where {program} is in the target, options: {{checkout: FOLDER}}.")
    path = Path(folder).expanduser()
    if not (path / program).is_file():
        sys.exit(f"{VARIABLE} is {folder}, which has no {program}: name the folder that holds it.")
    os.chdir(path)
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])


if __name__ == "__main__":
    main()
