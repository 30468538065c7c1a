"""Networks: Sequential, its state by name, freezing, prediction, summary."""
