"""How many threads the native kernels take: by default as many as the cores that this process may use.

`BNENGINE_NUM_THREADS` in the environment says another number; `set(n)` changes it at any time. No result depends on it.
A step that one thread is sooner through with runs on the caller's alone, which is tried from time to time.
While the threads run, the OpenBLAS of NumPy's wheels has its jobs run on them too, so that steps and `np.matmul` do not
fight over the cores; `release()` ends that, and `BNENGINE_NUMPY_BLAS=apart` never begins it.
"""

from .. import fused
from ..errors import BackendError
from ..runtime.cores import checked


def get() -> int:
    """The number of threads that kernels run on, the caller's own among them; 1 where there are no native kernels."""
    native = fused.native()
    return 1 if native.available() else int(native.library().bnengine_threads())


def set(n: int) -> None:
    """Let kernels run on n threads from now on, 1 to 256; a step that runs in another thread is waited for.

    Raises InputError for another number, and BackendError where there are no native kernels, unless n is 1.
    """
    checked(n, "threads.set")
    native = fused.native()
    if reason := native.available():
        if n != 1:
            raise BackendError(f"threads.set: {n} threads have nothing to run: {reason}")
        return
    native.done(native.library().bnengine_set_threads(n), "threads.set")


def release() -> None:
    """Stop the threads, and leave NumPy's BLAS to its own; the next step that has use for them starts them again."""
    native = fused.native()
    if native.available() is None:
        native.done(native.library().bnengine_release(), "threads.release")


def numpy_blas() -> str:
    """What NumPy multiplies with, and whether its jobs run on these threads; if not, why.

    Raises InputError where BNENGINE_NUMPY_BLAS is neither shared nor apart.
    """
    return str(fused.numpy_blas().described(0 if fused.native().available() else get()))
