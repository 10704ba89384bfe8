"""Searches: the largest load that a server carries under its objectives, and where its latency begins to rise.

Pure functions, without clock, socket or file: what is stored of a load -> a `verdict.Trial`; the trials so far -> the
next load, or why there is none (`path`, `sweep`); the steps of a sweep -> its `knee`. Because the next load follows
from what is stored and from nothing else, a search that was killed goes on where it stood.
"""
