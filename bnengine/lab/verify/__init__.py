"""The parity certificate: that every library, dtype and fused version agrees, shown on the user's own machine."""

from .certificate import Certificate, NotRun, Row
from .run import verify

__all__ = ["Certificate", "NotRun", "Row", "verify"]
