"""From arrays to batches: `DataLoader`, one-hot labels, and splits.

An observation is one entry along axis 0. Data is an array, or a tuple, named tuple or dict of data
with equally many observations; what is done to it is done to every array in it.
"""

from .loader import DataLoader, ncycle
from .observations import batch, chunk, shuffleobs, splitobs, unbatch
from .onehot import onecold, onehot, onehotbatch

__all__ = [
    "DataLoader",
    "onehot",
    "onehotbatch",
    "onecold",
    "splitobs",
    "shuffleobs",
    "batch",
    "unbatch",
    "chunk",
    "ncycle",
]
