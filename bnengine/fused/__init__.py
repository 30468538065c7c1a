"""Fused versions of ops, one folder for each kind of device; the ops name them and import them when an array fits."""
