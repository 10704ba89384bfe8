"""numpy, loaded without the threads of its linear algebra: ``from loadgen.arrays import np``.

Nothing here multiplies matrices, and starting OpenBLAS's threads takes as much CPU as the rest of numpy. The variable
that keeps them away is set for the import alone: a server that is launched later must not inherit it.
"""

from __future__ import annotations

import os

_THREADS = "OPENBLAS_NUM_THREADS"
_unsaid = _THREADS not in os.environ
if _unsaid:
    os.environ[_THREADS] = "1"
try:
    import numpy as np
    from numpy.typing import NDArray
finally:
    if _unsaid:
        del os.environ[_THREADS]

__all__ = ["NDArray", "np"]
