"""Training and test mode of the layers that behave differently in them (Dropout, ...)."""

import numpy as np

from ..checks import shown
from ..tape import recording
from ..walking import ATOMS, reachable


class TwoModes:
    """Base of the layers that behave differently in training, which they ask `training(self)`.

    Attributes
    ----------
    mode : bool or None
        True: as in training, False: as in use, None: as in training while a gradient is taken.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> class Halved(flux.layers.TwoModes):
    ...     def __call__(self, x):
    ...         return x / 2 if flux.layers.training(self) else x
    >>> layer = Halved()
    >>> layer(np.ones(2)), flux.trainmode_(layer)(np.ones(2))
    (array([1., 1.]), array([0.5, 0.5]))
    """

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls)
        self.mode = None
        return self


def training(layer):
    """Whether `layer` behaves as in training: while a gradient is taken, unless it is told.

    Examples
    --------
    >>> import tinyflux as flux
    >>> flux.layers.training(flux.trainmode_(flux.Dropout(0.5)))
    True
    """
    if layer.mode is not None:
        return layer.mode
    tape = recording()
    return tape is not None and tape.training


def testmode_(model, mode=True):
    """Let all layers of `model` behave as in use (True), as in training (False), or "auto".

    "auto", with which a layer begins, is training mode while a gradient is taken and test mode
    otherwise, as in Flux 0.12. Returns the model; any other mode is a ValueError.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> m = flux.trainmode_(flux.Chain(flux.Dropout(0.5)))
    >>> sorted(set(m(np.ones(100)).tolist()))
    [0.0, 2.0]
    """
    auto = isinstance(mode, str) and mode == "auto"
    if not auto and not isinstance(mode, (bool, np.bool_)):
        raise ValueError(f'testmode_: mode must be True, False or "auto", got {shown(mode)}')
    if isinstance(model, ATOMS):
        raise TypeError(f"testmode_: a layer or a model is wanted, got {shown(model)}")
    for _, layer in reachable(model):
        if isinstance(layer, TwoModes):
            layer.mode = None if auto else not mode
    return model


def trainmode_(model, mode=True):
    """Let all layers of `model` behave as in training (True), as in use (False), or "auto".

    The opposite of `testmode_`. Returns the model.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> m = flux.Chain(flux.Dropout(1.0))
    >>> m(np.ones(2)), flux.trainmode_(m)(np.ones(2)), flux.trainmode_(m, "auto")(np.ones(2))
    (array([1., 1.]), array([0., 0.]), array([1., 1.]))
    """
    return testmode_(model, not mode if isinstance(mode, (bool, np.bool_)) else mode)


testmode_.__test__ = False  # type: ignore[attr-defined]  # its name looks like a test's
