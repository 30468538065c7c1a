"""What examines the engine: verify, explain, bench and report."""
