"""What is called between the steps of training: to look, to stop early, to leave a datum out.

`throttle` thins out calls, `stop` and `skip` steer the loop, `patience`, `early_stopping` and
`plateau` answer whether it is time to stop, `stop_early` does so by itself, `epochs` counts aloud,
`checkpoint` saves.
"""

from .keeping import checkpoint
from .steering import SkipDatum, StopTraining, epochs, phase, skip, stop
from .throttling import throttle
from .triggers import early_stopping, patience, plateau, stop_early

__all__ = [
    "throttle",
    "stop",
    "skip",
    "StopTraining",
    "SkipDatum",
    "phase",
    "patience",
    "early_stopping",
    "plateau",
    "stop_early",
    "checkpoint",
    "epochs",
]
