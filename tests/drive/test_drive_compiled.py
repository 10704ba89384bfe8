"""Where the C can be built it is there: else every test of it is skipped, and nobody notices that it is broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig

import pytest

from loadgen.drive import fast


def can_compile() -> bool:
    """Whether this machine has a compiler that finds Python's headers."""
    compiler = shutil.which("cc")
    if compiler is None:
        return False
    words = [compiler, "-fsyntax-only", "-x", "c", f"-I{sysconfig.get_path('include')}", "-"]
    done = subprocess.run(words, input="#include <Python.h>\n", capture_output=True, text=True, timeout=60)
    return done.returncode == 0


@pytest.mark.skipif(os.environ.get("LOADGEN_PURE") == "1", reason="LOADGEN_PURE=1 leaves the C aside")
def test_an_installation_that_can_build_the_c_has_it() -> None:
    if not can_compile():
        pytest.skip("there is no compiler here with Python's headers")
    assert fast.native is not None, "the C was not built, and scripts/setup builds it"
