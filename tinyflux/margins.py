r"""Losses of margins and overlaps; `losses.py` has them all."""

import numpy as np

from .activations import relu
from .checks import as_real
from .targets import chances, probable, signs, target

# ------------------------------------------------------------------------------- margins


def hinge_loss(yhat, y, *, agg=np.mean):
    """agg(max(0, 1 - yhat y)), for scores of any size; slope 0 at the margin.

    Takes what `mse` takes; y is -1 or 1, or in between, but not 0.

    Source: Cortes & Vapnik, "Support-vector networks" (1995).

    Examples
    --------
    >>> from tinyflux import losses
    >>> losses.hinge_loss([0.5, 3.0, -1.0], [1, 1, 1], agg=lambda e: e.tolist())
    [0.5, 0.0, 2.0]
    """
    yhat, y = target("hinge_loss", yhat, y, agg)
    return agg(relu(1 - yhat * signs(y, name="hinge_loss")))


def squared_hinge_loss(yhat, y, *, agg=np.mean):
    """agg(max(0, 1 - yhat y)^2).

    Takes what `hinge_loss` takes.

    Examples
    --------
    >>> from tinyflux import losses
    >>> losses.squared_hinge_loss([0.5, 3.0, -1.0], [1, 1, 1], agg=lambda e: e.tolist())
    [0.25, 0.0, 4.0]
    """
    yhat, y = target("squared_hinge_loss", yhat, y, agg)
    return agg(np.square(relu(1 - yhat * signs(y, name="squared_hinge_loss"))))


def siamese_contrastive_loss(yhat, y, *, margin=1.0, agg=np.mean):
    """agg((1 - y) yhat^2 + y max(0, margin - yhat)^2), for distances of pairs.

    Parameters
    ----------
    yhat : array_like
        The distance of the two observations of a pair, as of `np.linalg.norm(a - b, axis=-1)`.
    y : array_like of the same shape
        0 for pairs that belong together, 1 for others, or in between.
    margin : float, default 1.0
        How far apart the others should be; not negative.
    agg : callable, default np.mean

    Source: Hadsell, Chopra & LeCun, "Dimensionality reduction by learning an invariant mapping"
    (2006), eq. 4, without its factor 1/2.

    Examples
    --------
    >>> from tinyflux import losses
    >>> losses.siamese_contrastive_loss([0.5, 0.25, 2.0], [0, 1, 1], agg=lambda e: e.tolist())
    [0.25, 0.5625, 0.0]
    """
    margin = as_real(margin, "siamese_contrastive_loss: margin", finite=True)
    yhat, y = target("siamese_contrastive_loss", yhat, y, agg)
    y = chances(y, name="siamese_contrastive_loss")
    return agg((1 - y) * np.square(yhat) + y * np.square(relu(margin - yhat)))


# ------------------------------------------------------------------------------- overlaps


def dice_coeff_loss(yhat, y, *, smooth=1.0):
    """1 - (2 sum(y yhat) + smooth) / (sum(y^2) + sum(yhat^2) + smooth), over all elements.

    Parameters
    ----------
    yhat : array_like
        Probabilities, as of a mask.
    y : array_like of the same shape
        0 or 1, or in between.
    smooth : float, default 1.0
        Not negative; above 0 it keeps the quotient of two empty masks defined.

    Source: Milletari, Navab & Ahmadi, "V-Net: fully convolutional neural networks for volumetric
    medical image segmentation" (2016). There is no `agg`: it is one number.

    Examples
    --------
    >>> from tinyflux import losses
    >>> float(losses.dice_coeff_loss([1.0, 0.0, 1.0], [1, 0, 0]))
    0.25
    """
    smooth = as_real(smooth, "dice_coeff_loss: smooth", finite=True)
    yhat, y = target("dice_coeff_loss", yhat, y)
    yhat, y = probable(yhat, name="dice_coeff_loss"), chances(y, name="dice_coeff_loss")
    both = np.sum(np.square(y)) + np.sum(np.square(yhat))
    return 1 - (2 * np.sum(y * yhat) + smooth) / (both + smooth)


def tversky_loss(yhat, y, *, beta=0.7):
    """1 - (t + 1) / (t + sum(beta (1 - y) yhat + (1 - beta) y (1 - yhat)) + 1), t = sum(y yhat).

    Takes what `dice_coeff_loss` takes. `beta`, from 0 to 1, is the weight of what is predicted and
    not there, 1 - beta that of what is there and not predicted: as in the code of Flux, whose text
    says the reverse.

    Source: Salehi, Erdogmus & Gholipour, "Tversky loss function for image segmentation using 3D
    fully convolutional deep networks" (2017).

    Examples
    --------
    >>> from tinyflux import losses
    >>> round(float(losses.tversky_loss([1.0, 0.0, 1.0], [1, 0, 0], beta=0.5)), 4)
    0.2
    """
    beta = as_real(beta, "tversky_loss: beta", most=1)
    yhat, y = target("tversky_loss", yhat, y)
    yhat, y = probable(yhat, name="tversky_loss"), chances(y, name="tversky_loss")
    common = np.sum(y * yhat)
    apart = np.sum(beta * (1 - y) * yhat + (1 - beta) * y * (1 - yhat))
    return 1 - (common + 1) / (common + apart + 1)
