"""Which prompt comes when: a seeded permutation of the prompts for every pass over them.

In: a session's index, the number of prompts, the seed. Out: the place of its prompt. No prompt repeats before all were
used, and no table is kept: the permutation is computed for one index at a time, so that a file with millions of lines
costs no start-up and no pause where a pass ends. The method is a Feistel network over the next even power of two,
walked until it lands inside (Black and Rogaway 2002, "Ciphers with arbitrary finite domains", cycle walking); the
round function is the finaliser of SplitMix64 (Steele, Lea and Flood 2014). Only integers and BLAKE2b are used, so every
Python and every machine agrees.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Literal

Order = Literal["seeded", "file"]

_MASK64 = (1 << 64) - 1


def place(index: int, size: int, seed: int, order: Order = "seeded") -> int:
    """Which of ``size`` prompts (0 ... size - 1) session ``index`` gets; ``file`` takes them as they stand."""
    lap, step = divmod(index, size)
    if order == "file" or size == 1:
        return step
    keys = struct.unpack("<6Q", hashlib.blake2b(f"{seed}:{lap}".encode(), digest_size=48).digest())
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    step = _feistel(step, half, keys)
    while step >= size:
        step = _feistel(step, half, keys)
    return step


def _feistel(value: int, half: int, keys: tuple[int, ...]) -> int:
    """A permutation of the numbers of ``2 * half`` bits."""
    mask = (1 << half) - 1
    left, right = value >> half, value & mask
    for key in keys:
        left, right = right, left ^ (_mix(right + key) & mask)
    return left << half | right


def _mix(value: int) -> int:
    """SplitMix64's finaliser; the upper half, whose bits are the best mixed."""
    value &= _MASK64
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK64
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK64
    return value >> 32
