"""How ops run: what an op is, where outputs live, recorded plans and their replay, flat buffers."""
