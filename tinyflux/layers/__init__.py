"""The layers: data plus a `__call__`. Any callable is a layer, and any object with Tensors in its
attributes is one that can be trained: there is nothing to inherit from and nothing to register."""

from .chain import Chain
from .dense import Dense
from .dropout import Dropout
from .modes import TwoModes, testmode_, training, trainmode_
from .normalise import BatchNorm
from .printing import summary

__all__ = [
    "BatchNorm", "Chain", "Dense", "Dropout", "TwoModes", "summary", "testmode_", "training",
    "trainmode_",
]  # fmt: skip
