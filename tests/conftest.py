"""What every test may use. This file also puts `tests/` on the path, so that `import fakes` works anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from fakes import FakeServer
from hypothesis import HealthCheck, settings

# The same examples everywhere, and none is too slow: a test says something of this code, not of the machine's mood.
# --hypothesis-profile=default looks for others.
settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")


@pytest.fixture(scope="session", autouse=True)
def locks_of_these_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests that run beside others on this machine, or beside a run, neither wait for these nor keep them waiting."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOADGEN_LOCKS", str(tmp_path_factory.mktemp("locks")))
        yield


@pytest.fixture
def fake_server() -> Iterator[Callable[..., FakeServer]]:
    """Starts fake servers: ``fake_server(ttft_ms=50)``. They end with the test."""
    with ExitStack() as stack:

        def start(**script: Any) -> FakeServer:
            return stack.enter_context(FakeServer(**script))

        yield start
