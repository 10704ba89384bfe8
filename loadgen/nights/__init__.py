"""What nights leave behind: series of values, verdicts against their past, the index of a store, what changed.

`series` takes points from runs, `verdicts` judges them with `regression`'s arithmetic, `events` and `index` keep them.
"""
