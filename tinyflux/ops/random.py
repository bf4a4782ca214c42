"""Random rows: values drawn while the tape records."""

import numpy as np

from ..primitive import primitive


@primitive(lambda g, y, x, *, mask: g * mask, samples=())
def dropout(x, *, mask):
    """x times a mask that was drawn for this call (0, or 1 / (1 - p))."""
    return x * mask


def keep_mask(rng, shape, p, dtype):
    """0 with probability p, else 1 / (1 - p), so that the mean stays."""
    if p == 1:
        return np.zeros(shape, dtype)
    return np.multiply(rng.random(shape, np.float32) >= p, dtype.type(1 / (1 - p)))
