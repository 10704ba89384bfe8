"""What several tests of the driver share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from drive_certificate import make_certificate

from loadgen.drive import fast


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module", params=["in C", "in Python"])
def form(request: Any) -> Iterator[str]:
    """Both forms of what `loadgen.drive.fast` has twice, one after the other."""
    if request.param == "in C" and fast.native is None:
        pytest.skip("the C was not built here")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "in Python":
            patch.setattr(fast, "native", None)
        yield request.param
