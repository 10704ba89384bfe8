"""What several tests of the driver share."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from drive_certificate import make_certificate
from drive_servers import until_stamped

from loadgen.drive import fast
from loadgen.drive.clock import ask_for_stamps


@pytest.fixture(scope="session", autouse=True)
def stamping() -> Iterator[None]:
    """Keeps the kernel stamping. The first socket of a machine that asks for stamps gets them a moment later, and a
    busy machine takes its time; a test that looks at whose clock it was must not be that first one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = socket.create_connection(server.getsockname())
        there, _ = server.accept()
    with here, there:
        if ask_for_stamps(here):
            until_stamped(here, there)
        yield


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
