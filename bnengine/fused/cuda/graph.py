"""A recorded step as one CUDA graph: captured once, then launched."""

from collections.abc import Callable

from ...errors import BackendError
from ...runtime.plan import CannotReplay, Plan, name_of
from . import _load


def replayer(plan: Plan) -> Callable[[], None]:
    """Return a call that runs the whole plan as one graph on CuPy's current stream, or raise CannotReplay.

    Capture runs nothing, so it changes nothing. All launches ran when the plan was recorded: kernels are compiled and
    loaded, products have their algorithms, every address is an arena's or the network's. What cannot be captured is
    CuPy's product, since cuBLAS refuses while a stream captures.
    """
    for launch in plan.launches:
        if not getattr(launch.kernel, "capturable", True):
            raise CannotReplay(f"{name_of(launch.kernel)} cannot be captured into a graph")
    stream = _load.cupy().cuda.Stream(non_blocking=True)  # the null stream cannot capture
    try:
        with stream:
            stream.begin_capture()
            try:
                plan.replay()
            finally:
                graph = stream.end_capture()
    except (RuntimeError, BackendError) as error:  # CuPy's errors are RuntimeErrors
        first = error.__context__ or error  # after a launch that failed, the end of the capture fails too
        line = str(first).strip().partition("\n")[0]
        raise CannotReplay(f"capture failed: {line or type(first).__name__}") from error
    launch_graph: Callable[[], None] = graph.launch
    return launch_graph
