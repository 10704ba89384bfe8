"""Long runs: what an hour looks like from inside, interval by interval, and whether it ends as it began."""
