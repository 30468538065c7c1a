"""The number of threads that the native kernels run on: by default one for each core that this process may use.

`BNENGINE_NUM_THREADS` in the environment sets another number, `set(n)` changes it at any time. No result depends on it.
A step that one thread finishes sooner runs on the caller's thread alone; bnengine measures that from time to time.
"""

from .. import fused
from ..errors import BackendError
from ..runtime.cores import checked


def get() -> int:
    """The number of threads that kernels run on, the caller's thread included; 1 where there are no native kernels."""
    native = fused.native()
    return 1 if native.available() else int(native.library().bnengine_threads())


def set(n: int) -> None:
    """Let kernels run on n threads from now on, 1 to 256; a step that runs in another thread is waited for.

    Raises InputError for another number, and BackendError where there are no native kernels, unless n is 1.
    """
    n = checked(n, "threads.set")
    native = fused.native()
    if reason := native.available():
        if n != 1:
            raise BackendError(f"threads.set: {n} threads have nothing to run: {reason}")
        return
    native.done(native.library().bnengine_set_threads(n), "threads.set")


def release() -> None:
    """Stop the threads; the next step that needs them starts them again."""
    native = fused.native()
    if native.available() is None:
        native.done(native.library().bnengine_release(), "threads.release")
