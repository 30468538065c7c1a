"""The parity certificate: checks that every library, dtype and fused version agrees on the user's machine."""

from .certificate import Certificate, NotRun, Row
from .run import verify

__all__ = ["Certificate", "NotRun", "Row", "verify"]
