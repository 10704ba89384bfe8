"""One night, unattended: `story` knows the order, from the lock to whom is told. It stands above ``loadgen.run``."""
