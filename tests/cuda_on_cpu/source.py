"""The text of a kernel file, as the engine's loader hands it to a compiler."""

from bnengine.fused.cuda._load import folder
from bnengine.fused.cuda._load import source as kernel_source

__all__ = ["CUDA", "kernel_source"]

CUDA = folder() / "cuda"
