"""The certificate of this machine, made once for all tests that only read it."""

import pytest

from bnengine.lab.verify import Certificate, verify


@pytest.fixture(scope="package")
def certificate() -> Certificate:
    """Quick, on every library that is installed."""
    return verify(quick=True)
