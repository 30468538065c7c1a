"""What version a5dc171 computed, as digests and files, and the tests that every later version computes the same."""
