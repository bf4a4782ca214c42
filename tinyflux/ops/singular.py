"""Zero upstream kills: a slope that is infinite or undefined counts for nothing where nobody asks.

The gradient of np.where(x > 0, np.sqrt(x), 0) at 0 is 0: the choice sends 0 back to the root. But 0
times the slope of the root, which is infinite there, is nan. So the functions whose slopes can be
infinite or undefined are declared by `singular` instead of `rule`.
"""

from functools import wraps

import numpy as np

from ..primitive import primitive, rule, takes_no_operand
from ..tensor import Tensor


def singular(function, *rules, **extra):
    """Declare a NumPy function whose derivatives are 0 wherever the incoming gradient is 0."""
    return rule(function, *map(zero_kills, rules), **extra)


def zero_kills(r):
    """A rule whose result is 0, and not nan, where the incoming gradient is 0."""
    if takes_no_operand(r):
        return wraps(r)(lambda g, y: mended(r(g, y), g))
    return wraps(r)(lambda g, y, *operands: mended(r(g, y, *operands), g))


def mended(d, g):
    """`cleared`, as a row of its own only where it is recorded or has something to do."""
    return cleared(d, g) if type(d) is Tensor or has_nan(d) else d


def has_nan(d):
    """Whether an array holds a nan; a sum of squares tells it at the least cost."""
    total = np.vdot(d, d)
    return total != total


@primitive(
    lambda g, y, d, by: np.where(np.logical_and(np.isnan(d), np.equal(by, 0)), 0, g),
    None,
    samples=(),
)
def cleared(d, g, out=None):
    """d, with 0 in the place of nan where g is 0."""
    y = np.where(np.logical_and(np.isnan(d), np.equal(g, 0)), 0, d) if has_nan(d) else d
    if out is not None and out is not y:
        np.copyto(out, y)
    return y
