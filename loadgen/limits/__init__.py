"""What was measured held against what is possible: floors, predicted crossings, normalised rates, memory that fits.

In: what a run served (`served`, written into run.json) and its summaries. Out: `yardsticks`, which reports print.
"""
