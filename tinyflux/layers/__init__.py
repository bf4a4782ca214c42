"""The layers: data plus a `__call__`. Any callable is a layer, and any object with Tensors in its
attributes is one that can be trained: there is nothing to inherit from and nothing to register."""

from .chain import Chain
from .dense import Dense
from .dropout import Dropout
from .modes import testmode_, trainmode_
from .normalise import BatchNorm
from .printing import summary

__all__ = ["BatchNorm", "Chain", "Dense", "Dropout", "summary", "testmode_", "trainmode_"]
