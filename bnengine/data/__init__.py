"""Data sets, preprocessing, shuffling and batches; everything here is NumPy, on the host."""

from bnengine.data.batches import ArraySource, Batch, Source, groups, order
from bnengine.data.dataset import Dataset
from bnengine.data.digits import load_digits
from bnengine.data.iterables import IterableSource
from bnengine.data.loading import load
from bnengine.data.preprocessing import Preprocessing
from bnengine.data.splitting import split, split_dataset

__all__ = [
    "ArraySource",
    "Batch",
    "Dataset",
    "IterableSource",
    "Preprocessing",
    "Source",
    "groups",
    "load",
    "load_digits",
    "order",
    "split",
    "split_dataset",
]
