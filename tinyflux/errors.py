"""The exceptions of tinyflux: what went wrong, in the words of the person who has to mend it.

Each derives from the built-in exception that a NumPy user would catch, and from `FluxError`,
which catches them all.
"""


class FluxError(Exception):
    """The common base class of the exceptions below."""


class NotDifferentiableError(FluxError, TypeError):
    """A NumPy function without a derivative rule met a value that is being recorded.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.gradient(lambda x: np.sum(np.fft.fft(x)), np.ones(4))
    Traceback (most recent call last):
    tinyflux.errors.NotDifferentiableError: fft.fft has no derivative rule, ...
    """


class RecordingError(FluxError, TypeError):
    """A value that is being recorded was used like a plain array: read out, or written to.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.gradient(lambda x: np.asarray(x).sum(), np.ones(4))
    Traceback (most recent call last):
    tinyflux.errors.RecordingError: a value that is being recorded cannot be turned into ...
    """


class NotScalarError(FluxError, ValueError):
    """The function to differentiate did not return one real number.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.gradient(lambda x: x**2, np.ones(4))
    Traceback (most recent call last):
    tinyflux.errors.NotScalarError: the function returned an array of shape (4,), ...
    """


class NoGradientError(FluxError, ValueError):
    """A loss that depends on none of the parameters it was to be minimised over.

    Examples
    --------
    >>> import tinyflux as flux
    >>> flux.train_(lambda x: x, flux.params(flux.Dense(2, 1)), [1.0], flux.SGD(0.1))
    Traceback (most recent call last):
    tinyflux.errors.NoGradientError: train_: the loss of datum 1 depends on none of ...
    """


class NotAskedError(FluxError, KeyError):
    """A gradient was looked up for an array that was not among the parameters.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> W, b = flux.Tensor([1.0]), flux.Tensor([2.0])
    >>> flux.gradient(lambda: np.sum(W), flux.params(W))[b]
    Traceback (most recent call last):
    tinyflux.errors.NotAskedError: no gradient was asked for this array of shape (1,); ...
    """

    def __str__(self):
        return str(self.args[0])  # KeyError would show the quoted repr of the sentence


class CannotCompileError(FluxError, TypeError):
    """A compiled function does something that would be frozen as it was when it was recorded.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.compiled(lambda x: x if np.sum(x) > 0 else -x)(np.ones(2))
    Traceback (most recent call last):
    tinyflux.errors.CannotCompileError: ...bool(...) of a value cannot be part of a compiled ...
    """


class MutationError(RecordingError):
    """An array was written to between its use in a function and the way back through it.

    A way back that makes arrays goes by copies, and nothing is wrong. One that is recorded inside
    another gradient, or runs through a compiled function, would need the array as it was.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> W = flux.Tensor([1.0, 2.0])
    >>> def loss():
    ...     total = np.sum(W * W)
    ...     W.data[...] = 0.0
    ...     return total
    >>> flux.gradient(lambda: np.sum(flux.gradient(loss, [W])[W]), [W])
    Traceback (most recent call last):
    tinyflux.errors.MutationError: multiply: an operand of shape (2,) was written to after it ...
    """


class NonFiniteLossError(FluxError, FloatingPointError):
    """The loss or a gradient became NaN or infinite; nothing was updated with it.

    Attributes
    ----------
    step : int or None
        The number of the datum, counted from 1 over all epochs; None from `update_`.
    value : float or None
        The loss.
    history : History or None
        Of the steps before it.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> W = flux.Tensor([1.0])
    >>> loss = lambda x: np.sum(W * x)
    >>> flux.train_(loss, flux.params(W), [1.0, np.nan], flux.SGD(0.1))
    Traceback (most recent call last):
    tinyflux.errors.NonFiniteLossError: the loss is nan at step 2; nothing was updated ...
    """

    def __init__(self, message, step=None, value=None):
        super().__init__(message)
        self.step = step
        self.value = value
        self.history = None  # `train_` hands it over


class CheckpointError(FluxError, ValueError):
    """A file that `load_` refuses: damaged, not written by `save`, or of another model.

    Examples
    --------
    >>> import tempfile, tinyflux as flux
    >>> with tempfile.NamedTemporaryFile(suffix=".npz") as file:
    ...     flux.load_(file.name, flux.Dense(2, 1))
    Traceback (most recent call last):
    tinyflux.errors.CheckpointError: load_: ... was refused: it is no .npz file that ...
    """


class ShapeError(FluxError, ValueError):
    """An array of the wrong shape reached a layer; says which layer, where, and what it wants.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.Chain(flux.Dense(4, 3), flux.Dense(2, 1))(np.ones((5, 4)))
    Traceback (most recent call last):
    tinyflux.errors.ShapeError: Dense(2, 1), layer 1 of Chain: got x with shape (5, 3); ...
    """

    def __init__(self, layer, problem):
        super().__init__(problem)
        self.layer = layer
        self.place = ""  # filled in by the containers that the error passes on its way out

    def __str__(self):
        return f"{self.layer}{self.place}: {self.args[0]}"

    def __reduce__(self):  # `args` alone would not make it again, in another process
        return type(self), (self.layer, *self.args), {"place": self.place}


# ------------------------------------------------------------------------------- their sentences


def no_rule(name):
    return NotDifferentiableError(
        f"{name} has no derivative rule, so it cannot be used on a value that is being recorded. "
        "Write it with functions that have one, declare one with tinyflux.primitive.rule, or cut "
        "the gradient on purpose with detach(t)."
    )


def out_refused(name):
    return RecordingError(
        f"{name}(..., out=...): writing into an array would change what the tape has recorded. "
        "Leave out= away and use the value that is returned; for a += t write a = a + t."
    )


def change_refused(how):
    return RecordingError(
        f"{how} would change a value that the tape has recorded. Make a new one: "
        "np.where(mask, v, t), or np.concatenate of the parts."
    )


def miscalled(misfit, ps):
    if ps is None:
        how = "gradient(f, x, y) calls f(x, y), with as many arguments as are given"
        remedy = "For parameters: gradient(f, ps) with Params or a list of Tensors"
    else:
        how = "gradient(f, ps) calls f(), without arguments"
        remedy = "Write gradient(lambda: loss(x, y), ps)"
    return TypeError(f"{how}, which does not fit this f: {misfit}. {remedy}")


def foreign(name):
    return RecordingError(
        f"{name}: got a value that another thread or task is recording; pass its plain "
        "array there with detach(t)."
    )
