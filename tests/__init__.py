"""A package, so that no other `tests` on the path of a machine is taken for it."""
