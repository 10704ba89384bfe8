"""The measuring path: schedule, sockets, stamps, the worker process. The only place that reads the clock.

A worker (`worker.py`) takes a `Job`, walks the schedule (`schedule.py`, `loop.py`) and moves bytes (`traffic.py`) over
its own connections (`pool.py`, `sockets.py`), stamped by the kernel (`clock.py`). What comes back is kept as raw pieces
with their stamps and understood later, when nothing is waiting to be read (`understand.py`): out of its framing
(`http.py`, `body.py`) into events (`events.py`, `scan.py`) into a reply (`reply.py`), which is judged and written as a
record (`outcome.py`).
"""
