"""How ops run: dispatch, memory for outputs, recorded plans and their replay, flat buffers, threads."""
