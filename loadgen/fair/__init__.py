"""Like with like, or no verdict: what differs between two targets (`facts`, `fairness`), and what a few greedy requests
say of them before anything is timed (`fingerprint`, `gates`)."""
