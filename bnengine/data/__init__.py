"""Data sets, preprocessing, shuffling and batches: NumPy arrays in main memory."""

from .batches import ArraySource, Batch, Source, groups, order
from .dataset import Dataset
from .digits import load_digits
from .iterables import IterableSource
from .loading import load
from .preprocessing import Preprocessing
from .sources import as_source
from .splitting import split, split_dataset
from .tasks import task_of

__all__ = [
    "ArraySource",
    "Batch",
    "Dataset",
    "IterableSource",
    "Preprocessing",
    "Source",
    "as_source",
    "groups",
    "load",
    "load_digits",
    "order",
    "split",
    "split_dataset",
    "task_of",
]
