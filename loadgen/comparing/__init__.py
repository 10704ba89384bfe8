"""Summaries of two targets to a `comparison`: ratios with intervals, verdicts, crossings, and the sentences for them.

`compare` is the way in. The statistics are in ``loadgen.statistics``; pure functions throughout.
"""
