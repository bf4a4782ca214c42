"""tinyflux: gradients, models and their training in plain NumPy, in the manner of Flux.jl.

>>> import numpy as np, tinyflux as flux
>>> flux.gradient(lambda x: 3 * x**2 + 2 * x + 1, 5.0)
(array(32.),)

The names below stand in the order in which a newcomer should meet them.
"""

# isort: skip_file
from . import ops, protocols, operators

from .tensor import Tensor
from .protocols import detach
from .gradient import gradient, withgradient, pullback
from .jacobian import jacobian, hessian
from .testing import gradcheck
from .params import Params, params, freeze_, thaw_
from .grads import Grads

from .layers import Chain, Dense, Dropout, BatchNorm, summary, testmode_, trainmode_
from .ops.state import buffer, moving_average_
from .activations import (
    identity, sigmoid, σ, tanh, relu, leakyrelu, elu, gelu, selu, swish, softplus, mish,
    hardsigmoid, hardtanh, relu6, logsigmoid, celu, hardswish, lisht, logcosh, softshrink, softsign,
    tanhshrink, trelu, softmax, logsoftmax, logsumexp,
)  # fmt: skip
from .initialise import (
    glorot_uniform, glorot_normal, kaiming_uniform, kaiming_normal, lecun_normal,
    truncated_normal, orthogonal, sparse_init, identity_init, zeros_init, ones_init,
)  # fmt: skip
from . import losses
from .losses import mse, mae, crossentropy, logitcrossentropy
from .losses import binarycrossentropy, logitbinarycrossentropy

from .optimise import *  # noqa: F403  (all update rules, modifiers and schedules)
from .train import train_, update_
from .compiled import compiled
from .history import History, TrainingState
from .callbacks import (
    throttle, stop, skip, epochs, patience, early_stopping, plateau, stop_early, checkpoint,
)  # fmt: skip

from .data import (
    DataLoader, onehot, onehotbatch, onecold, splitobs, shuffleobs, batch, unbatch, chunk, ncycle,
)  # fmt: skip
from . import datasets
from .saving import save, load_
from .generators import seed_
from .threads import set_threads_

from .errors import (
    FluxError, NotDifferentiableError, RecordingError, NotScalarError, NoGradientError,
    NotAskedError, NonFiniteLossError, MutationError, ShapeError, CannotCompileError,
    CheckpointError,
)  # fmt: skip

__version__ = "0.1.0"

# The names above, without the modules that they come from.
__all__ = [
    name
    for name, value in list(globals().items())
    if name[0] != "_" and (name in ("losses", "datasets", "schedules") or callable(value))
]
