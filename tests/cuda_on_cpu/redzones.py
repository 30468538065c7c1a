"""Memory that nothing may touch: g++'s address sanitizer, where it runs, ends the process at the first byte of it."""

import ctypes

import numpy as np

_poison = getattr(ctypes.CDLL(None), "__asan_poison_memory_region", None)
_poisoned = getattr(ctypes.CDLL(None), "__asan_address_is_poisoned", None)


def sanitized() -> bool:
    """Whether this process runs under the address sanitizer."""
    return _poison is not None


def forbid(memory: np.ndarray) -> None:
    """Let no kernel read or write these bytes. NumPy, which is not instrumented, still can.

    The sanitizer keeps a note for every 8 bytes, of how many of the first ones may be used: of a zone that ends between
    two multiples of 8 it leaves out the last bytes.
    """
    if _poison is not None:
        _poison(ctypes.c_void_p(memory.ctypes.data), ctypes.c_size_t(memory.nbytes))


def is_forbidden(address: int) -> bool:
    """Whether a kernel that touches the byte at this address ends the process."""
    return _poisoned is not None and bool(_poisoned(ctypes.c_void_p(address)))
