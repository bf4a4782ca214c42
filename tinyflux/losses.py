r"""Losses: one number for how far a prediction is from its target.

All are called `loss(yhat, y, *, agg=np.mean)`: the prediction comes first, `agg` turns the array of
the single losses into the result (`np.mean`, `np.sum`, `flux.identity` for the array itself, or a
function of your own); only those of overlaps, which are one number, have no `agg`. `yhat` and `y`
must have the same shape; the losses for classes, which stand on the last axis, take whole-number
labels of the shape without that axis as well. Definitions as in Flux 0.12; eps is the machine
epsilon of the prediction's type. Those of margins and overlaps stand in `margins.py`.
"""

import numpy as np

from .activations import logsigmoid, logsoftmax
from .checks import as_number, as_real, brief, is_whole
from .margins import (
    dice_coeff_loss,
    hinge_loss,
    siamese_contrastive_loss,
    squared_hinge_loss,
    tversky_loss,
)
from .primitive import fused, primitive, sample
from .targets import amounts, as_numbers, chances, eps_of, probable, target
from .tensor import Tensor

__all__ = [
    "binary_focal_loss", "binarycrossentropy", "crossentropy", "dice_coeff_loss", "focal_loss",
    "hinge_loss", "huber_loss", "kldivergence", "label_smoothing", "logitbinarycrossentropy",
    "logitcrossentropy", "mae", "mse", "msle", "poisson_loss", "siamese_contrastive_loss",
    "squared_hinge_loss", "tversky_loss",
]  # fmt: skip

# ------------------------------------------------------------------------------- regression


def mae(yhat, y, *, agg=np.mean):
    """Mean absolute error: agg(|yhat - y|); slope 0 where they are equal.

    Takes what `mse` takes.

    Examples
    --------
    >>> from tinyflux import losses
    >>> float(losses.mae([1.0, 2.0], [1.0, 4.0]))
    1.0
    """
    yhat, y = target("mae", yhat, y, agg)
    return agg(np.abs(yhat - y))


def mean_square_kernel(yhat, y):
    """The scalar product of the residual with itself."""
    r = np.subtract(yhat, y).reshape(-1)
    return r.dot(r) / r.size


def mean_square_joint(g, value, arrays, live):
    """2 (yhat - y) / n."""
    yhat, y = arrays
    d = np.subtract(yhat, y)
    d *= g / (d.size / 2)
    return [d if i == 0 else -d for i in live]


@fused(
    mean_square_kernel,
    mean_square_joint,
    samples=[sample((3, 4), (3, 4)), sample((5,), (5,)), sample((), ())],
)
def mean_square(yhat, y):
    """The mean of (yhat - y)^2 over all elements."""
    return np.mean(np.square(yhat - y))


def mse(yhat, y, *, agg=np.mean):
    """Mean squared error: agg((yhat - y)^2).

    Parameters
    ----------
    yhat, y : array_like of the same shape
        Prediction and target.
    agg : callable, default np.mean

    Raises
    ------
    ValueError
        If the shapes differ: (n,) against (n, 1) would quietly compare everything with everything.

    Examples
    --------
    >>> from tinyflux import losses
    >>> float(losses.mse([1.0, 2.0], [1.0, 4.0]))
    2.0
    """
    yhat, y = target("mse", yhat, y, agg)
    return mean_square(yhat, y) if agg is np.mean else agg(np.square(yhat - y))


def msle(yhat, y, *, agg=np.mean, eps=None):
    """Mean squared logarithmic error: agg((log(yhat + eps) - log(y + eps))^2).

    Takes what `mse` takes, for numbers that are not negative, and `eps` as `crossentropy` does.

    Examples
    --------
    >>> from tinyflux import losses
    >>> round(float(losses.msle([1.0, 2.0], [1.0, 4.0])), 4)
    0.2402
    """
    yhat, y = target("msle", yhat, y, agg)
    eps = eps_of("msle", yhat, eps)
    return agg(np.square(np.log(yhat + eps) - np.log(y + eps)))


def huber_loss(yhat, y, *, delta=1.0, agg=np.mean):
    """With e = |yhat - y|: e^2 / 2 where e < delta, delta (e - delta / 2) elsewhere.

    Takes what `mse` takes; `delta` must be positive.

    Source: Huber, "Robust estimation of a location parameter" (1964).

    Examples
    --------
    >>> from tinyflux import losses
    >>> losses.huber_loss([0.0, 0.0], [0.5, 3.0], agg=lambda e: e.tolist())
    [0.125, 2.5]
    """
    delta = as_number(delta, "huber_loss: delta")
    if not delta > 0:
        raise ValueError(f"huber_loss: delta must be positive, got {delta!r}")
    yhat, y = target("huber_loss", yhat, y, agg)
    e = np.abs(yhat - y)
    inner = np.minimum(e, delta)  # e^2/2 up to delta, and the straight line behind it
    return agg(inner * (e - 0.5 * inner))


def poisson_loss(yhat, y, *, agg=np.mean):
    """agg(yhat - y log(yhat)), for predicted rates and counts; 0 log 0 counts as 0.

    Takes what `mse` takes, for numbers that are not negative. The term log(y!) is left out, which
    does not depend on yhat. A rate of 0 where something was counted costs infinitely much.

    Examples
    --------
    >>> from tinyflux import losses
    >>> round(float(losses.poisson_loss([2.0], [3.0])), 4)
    -0.0794
    """
    yhat, y = target("poisson_loss", yhat, y, agg)
    yhat = amounts(yhat, name="poisson_loss", which="yhat")
    y = amounts(y, name="poisson_loss", which="y")
    nothing = np.logical_and(np.equal(y, 0), np.equal(yhat, 0))
    return agg(yhat - y * np.log(np.where(nothing, 1, yhat)))


# ------------------------------------------------------------------------------- classes


@primitive(
    lambda g, y, w, x: g * x,
    lambda g, y, w, x: g * w,
    samples=[sample((4, 3), (4, 3)), sample((3,), (3,))],
)
def weighted(w, x):
    """w x, in which a weight of 0 counts for nothing, even of infinity."""
    return w * np.where(np.equal(w, 0), 0, x)


def crossentropy(yhat, y, *, agg=np.mean, eps=None):
    """agg(-sum(y log(yhat + eps))) over the classes, for predicted probabilities.

    Parameters
    ----------
    yhat : array_like, shape (..., classes)
        Probabilities, as from `softmax`.
    y : array_like, shape (..., classes) of probabilities, or (...) of whole-number labels
    agg : callable, default np.mean
    eps : float, optional
        Keeps the logarithm finite; the machine epsilon of yhat, as Flux 0.12.

    Raises
    ------
    ValueError
        If the shapes differ, a label is out of range, the batch is empty, or yhat goes below 0 or
        above 1: those are scores.

    See Also
    --------
    logitcrossentropy : takes scores instead; more accurate and faster.

    Examples
    --------
    >>> import numpy as np
    >>> from tinyflux import losses
    >>> round(float(losses.crossentropy(np.array([[0.25, 0.75]]), np.array([1]))), 4)
    0.2877
    """
    yhat, y = target("crossentropy", yhat, y, agg, classes=True)
    yhat, eps = probable(yhat, name="crossentropy"), eps_of("crossentropy", yhat, eps)
    return agg(-np.sum(weighted(y, np.log(yhat + eps)), axis=-1))


@primitive(
    lambda g, y, w, x: g * x,
    lambda g, y, w, x: g * w,
    samples=[sample((4, 3), (4, 3)), sample((3,), (3,))],
)
def weighted_sum(w, x):
    """sum(w x), in which a weight of 0 counts for nothing, even of infinity."""
    total = np.vdot(w, x)
    return total if total == total else np.sum(w * np.where(w == 0, 0, x))


def mean_dot_kernel(a, b):
    """The weighted sum of all numbers, over the number of rows."""
    return weighted_sum(a, b) / max(a.size // a.shape[-1], 1)


def mean_dot_joint(g, value, arrays, live):
    """The other operand, over the number of rows."""
    a, b = arrays
    g = g / max(a.size // a.shape[-1], 1)
    return [g * (b if i == 0 else a) for i in live]


@fused(
    mean_dot_kernel,
    mean_dot_joint,
    samples=[sample((4, 3), (4, 3)), sample((3,), (3,)), sample((2, 4, 3), (2, 4, 3))],
)
def mean_dot(a, b):
    """The mean over the rows of sum(a b), where 0 times infinity is 0."""
    return np.mean(np.sum(weighted(a, b), axis=-1))


def logitcrossentropy(yhat, y, *, agg=np.mean):
    """agg(-sum(y logsoftmax(yhat))) over the classes, for scores of any size.

    Parameters
    ----------
    yhat : array_like, shape (..., classes)
        Scores (logits): the output of the last Dense, without softmax.
    y : array_like, shape (..., classes) of probabilities, or (...) of whole-number labels
        Rows count as they are: weights of either sign, as of a policy gradient, will do.
    agg : callable, default np.mean

    Raises
    ------
    ValueError
        If the shapes differ, a label is out of range, or the batch is empty.

    Examples
    --------
    >>> import numpy as np
    >>> from tinyflux import losses
    >>> float(losses.logitcrossentropy(np.array([[1000.0, 0.0]]), np.array([1])))
    1000.0
    """
    yhat, y = target("logitcrossentropy", yhat, y, agg, classes=True)
    if agg is np.mean:
        return -mean_dot(y, logsoftmax(yhat))
    return agg(-np.sum(weighted(y, logsoftmax(yhat)), axis=-1))


def kldivergence(yhat, y, *, agg=np.mean, eps=None):
    """The Kullback-Leibler divergence of yhat from y: agg(sum(y (log y - log(yhat + eps)))).

    Takes what `crossentropy` takes. 0 log 0 counts as 0. The prediction comes first, as in every
    loss.

    Examples
    --------
    >>> import numpy as np
    >>> from tinyflux import losses
    >>> p = np.array([[0.5, 0.5]])
    >>> abs(float(losses.kldivergence(p, p))) < 1e-12
    True
    """
    yhat, y = target("kldivergence", yhat, y, agg, classes=True)
    yhat, eps = probable(yhat, name="kldivergence"), eps_of("kldivergence", yhat, eps)
    of_y = np.log(np.where(np.equal(y, 0), 1, y))
    return agg(np.sum(weighted(y, of_y - np.log(yhat + eps)), axis=-1))


def unsure(p, gamma):
    """(1 - p)^gamma, with the slope 0 where p is 1: there its logarithm is 0 as well."""
    return np.power(np.where(np.less(p, 1), 1 - p, 0), gamma)


def focal_loss(yhat, y, *, gamma=2.0, agg=np.mean, eps=None):
    """agg(-sum(y (1 - yhat)^gamma log(yhat + eps))) over the classes.

    Takes what `crossentropy` takes, which it is for gamma = 0; `gamma` must not be negative. The
    larger it is, the less counts what is predicted well already.

    Source: Lin et al., "Focal loss for dense object detection" (2017), eq. 4. Flux has eps in the
    power as well, where yhat = 1 would be beyond its domain.

    Examples
    --------
    >>> import numpy as np
    >>> from tinyflux import losses
    >>> round(float(losses.focal_loss(np.array([[0.25, 0.75]]), np.array([1]))), 4)
    0.018
    """
    gamma = as_real(gamma, "focal_loss: gamma", finite=True)
    yhat, y = target("focal_loss", yhat, y, agg, classes=True)
    yhat, eps = probable(yhat, name="focal_loss"), eps_of("focal_loss", yhat, eps)
    return agg(-np.sum(y * unsure(yhat, gamma) * np.log(yhat + eps), axis=-1))


# ------------------------------------------------------------------------------- two classes


def other_chance(p):
    """1 - p, and 0 where rounding has made p a little larger than 1."""
    return np.where(np.greater(p, 1), 0, 1 - p)


def binarycrossentropy(yhat, y, *, agg=np.mean, eps=None):
    """agg(-y log(yhat + eps) - (1 - y) log(1 - yhat + eps)), for predicted probabilities.

    Takes what `mse` takes, and `eps` as `crossentropy` does; y is 0 or 1, or in between.

    Examples
    --------
    >>> from tinyflux import losses
    >>> round(float(losses.binarycrossentropy([0.25], [1.0])), 4)
    1.3863
    """
    yhat, y = target("binarycrossentropy", yhat, y, agg)
    yhat, y = probable(yhat, name="binarycrossentropy"), chances(y, name="binarycrossentropy")
    eps = eps_of("binarycrossentropy", yhat, eps)
    no = weighted(1 - y, np.log(other_chance(yhat) + eps))
    return agg(-weighted(y, np.log(yhat + eps)) - no)


def logitbinarycrossentropy(yhat, y, *, agg=np.mean):
    """agg(-y logsigmoid(yhat) - (1 - y) logsigmoid(-yhat)), for scores of any size.

    Takes what `mse` takes; y is 0 or 1, or in between.

    Examples
    --------
    >>> from tinyflux import losses
    >>> float(losses.logitbinarycrossentropy([-1000.0], [1.0]))
    1000.0
    """
    yhat, y = target("logitbinarycrossentropy", yhat, y, agg)
    y = chances(y, name="logitbinarycrossentropy")
    return agg(-y * logsigmoid(yhat) - (1 - y) * logsigmoid(-yhat))


def binary_focal_loss(yhat, y, *, gamma=2.0, agg=np.mean, eps=None):
    """agg(-(1 - p)^gamma log(p + eps)) with p = y yhat + (1 - y) (1 - yhat).

    Takes what `binarycrossentropy` takes, and `gamma` as `focal_loss` does.

    Source: Lin et al., "Focal loss for dense object detection" (2017), eq. 4.

    Examples
    --------
    >>> from tinyflux import losses
    >>> round(float(losses.binary_focal_loss([0.25], [0.0])), 4)
    0.018
    """
    gamma = as_real(gamma, "binary_focal_loss: gamma", finite=True)
    yhat, y = target("binary_focal_loss", yhat, y, agg)
    yhat, y = probable(yhat, name="binary_focal_loss"), chances(y, name="binary_focal_loss")
    p = y * yhat + (1 - y) * other_chance(yhat)
    return agg(-unsure(p, gamma) * np.log(p + eps_of("binary_focal_loss", yhat, eps)))


# ------------------------------------------------------------------------------- softer targets


def label_smoothing(y, alpha, *, axis=-1):
    """y (1 - alpha) + alpha / k: targets that leave a little to the other classes.

    Parameters
    ----------
    y : array_like
        One-hot rows, or probabilities.
    alpha : float
        Strictly between 0 and 1.
    axis : int or None, default -1
        Of the k classes; None for two classes in one number (k = 2).

    Source: Szegedy et al., "Rethinking the inception architecture" (2016), section 7.

    Examples
    --------
    >>> from tinyflux import losses
    >>> losses.label_smoothing([[0.0, 1.0]], 0.2)
    array([[0.1, 0.9]])
    """
    alpha = as_number(alpha, "label_smoothing: alpha")
    if not 0 < alpha < 1:
        raise ValueError(f"label_smoothing: alpha must lie between 0 and 1, got {alpha!r}")
    y = y if type(y) is Tensor else as_numbers("label_smoothing", "y", y)
    if axis is not None and y.ndim == 0:
        raise ValueError("label_smoothing: got a single number; use axis=None for two classes")
    if axis is not None and (not is_whole(axis) or not -y.ndim <= axis < y.ndim):
        raise ValueError(f"label_smoothing: axis={brief(axis)} is not an axis of shape {y.shape}")
    k = 2 if axis is None else y.shape[axis]
    if k == 0:
        raise ValueError(f"label_smoothing: there is no class along axis {axis} of {y.shape}")
    y = chances(y, name="label_smoothing")
    return y * (1 - alpha) + alpha / k
