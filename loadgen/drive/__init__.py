"""The measuring path: schedule, sockets, stamps, the worker process. The only place that reads the clock.

A worker (`worker.py`) takes a `Job`, walks the schedule (`schedule.py`), moves bytes over its own sockets
(`sockets.py`) and stamps them (`clock.py`). What comes back is kept as raw pieces with their stamps and understood
later, when nothing is waiting to be read (`reply.py`, `scan.py`), then judged and written as a record (`outcome.py`).
"""
