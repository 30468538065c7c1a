"""Sequential: a network of layers with its parameters in one buffer."""
