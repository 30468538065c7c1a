"""Array libraries and dtypes, and random numbers with the same bits on every backend."""
