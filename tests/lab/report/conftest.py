"""The command line and small data, as its own tests have them."""

from tests.cli.conftest import blobs, bnengine, done, npz

__all__ = ["blobs", "bnengine", "done", "npz"]
