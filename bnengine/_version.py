"""The version of bnengine."""

__version__ = "0.1.0"
