"""A scripted server that paces its replies exactly and logs what it really did: the truth of the accuracy tests.

    python tests/fake_server.py [--port 0] [--script FILE-or-JSON] [--truth FILE] [--cert PEM]

prints its port as its first line. The script is described in `fake_script.py`; the path of a request chooses the
dialect. One thread, one epoll; every stream has an absolute schedule from the moment its request was read, so a late
write delays no other. Truth: one JSON line a request when its reply has ended (however it ended), times CLOCK_MONOTONIC
in ns::

    {id, index, path, body, fault, t_accept, t_request_read, in_tok, ask_tok,
     writes: [[t_before, t_after, n_events, kind], ...], tokens_sent, end, aborted}

``t_before`` and ``t_after`` enclose the call of send; kind is head, role, token, part (not yet a whole event), finish,
usage, done, end, comment, error, whole, page. ``GET /fake/stats`` answers the server's own lateness and CPU time.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import select
import signal
import socket
import ssl
import sys
from pathlib import Path

from fake_loop import Server
from fake_script import read_script


def listen(host: str, port: int, unix: str | None) -> socket.socket:
    """A listening socket; ``unix`` is a path that replaces host and port."""
    family = socket.AF_UNIX if unix else socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    if not unix:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(unix or (host, port))
    sock.listen(4096)
    sock.setblocking(False)
    return sock


def main() -> None:
    """Reads the arguments, prints the port, serves until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="a scripted, paced server that logs the truth")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--unix", help="path of a Unix socket to listen on instead")
    parser.add_argument("--script", default="{}", help="a file of JSON, or JSON itself")
    parser.add_argument("--truth", type=Path, help="file to append one line a request to")
    parser.add_argument("--cert", type=Path, help="PEM file of a certificate and its key: serve TLS")
    options = parser.parse_args()
    text = options.script if options.script.lstrip().startswith("{") else Path(options.script).read_text()
    script = read_script(json.loads(text))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(29, 1, 0, 0, 0)  # PR_SET_TIMERSLACK: wake within 1 ns of the time asked for, not 50 µs
    listener = listen(options.host, options.port, options.unix)
    tls = None
    if options.cert:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.cert)
    server = Server(script, listener, options.truth, tls)
    wakeup, stop = socket.socketpair()
    signal.signal(signal.SIGTERM, lambda *_: setattr(server, "stopping", True))
    signal.signal(signal.SIGINT, lambda *_: setattr(server, "stopping", True))
    stop.setblocking(False)
    signal.set_wakeup_fd(stop.fileno())
    server.epoll.register(wakeup, select.EPOLLIN)
    print(0 if options.unix else listener.getsockname()[1], flush=True)
    gc.disable()  # a collection would stand in the way of a write that is due
    server.run()


if __name__ == "__main__":
    main()
