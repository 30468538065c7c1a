"""Array libraries: backends, namespaces, dtypes and random numbers with the same bits everywhere."""
