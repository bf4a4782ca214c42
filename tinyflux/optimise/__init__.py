"""Update rules on plain NumPy arrays: how a gradient changes a parameter.

Read `rules.py` and `adam.py` for the formulas, `rule.py` for what a rule is, `modifiers.py` for
chains, decays and clips, `schedules.py` for learning rates that change (`scheduler.py` sets them),
and `plan.py` for how it is all run fast. Names and defaults are those of Flux 0.12.

>>> opt = Optimiser(ClipNorm(1.0), ADAM(lr=0.001))
"""

from . import schedules
from .adam import ADAM, ADAMW, NADAM, OADAM, RADAM, AdaBelief, AdaMax, AMSGrad
from .modifiers import (
    ClipNorm,
    ClipValue,
    ExpDecay,
    InvDecay,
    Optimiser,
    WeightDecay,
)
from .rule import UpdateRule
from .rules import SGD, ADADelta, ADAGrad, Descent, Momentum, Nesterov, RMSProp
from .scheduler import Scheduler

__all__ = [
    "SGD", "Descent", "Momentum", "Nesterov", "RMSProp", "ADAGrad", "ADADelta",
    "ADAM", "ADAMW", "RADAM", "AdaMax", "OADAM", "AMSGrad", "NADAM", "AdaBelief",
    "Optimiser", "WeightDecay", "ClipValue", "ClipNorm", "ExpDecay", "InvDecay",
    "Scheduler", "schedules", "UpdateRule",
]  # fmt: skip
