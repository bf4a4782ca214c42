"""Derivatives of the reductions: what was summed up is spread out again."""

import math

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from ..errors import no_rule
from ..primitive import composed, primitive, rule, sample, without_gradient
from ..tensor import Tensor

AXES = [
    sample((3, 4)),
    sample((3, 4), axis=0),
    sample((2, 3, 4), axis=(0, -1), keepdims=True),
    sample((2, 3), axis=()),
    sample(()),
]


def spread(g, x, axis, keepdims=False):
    """`g`, reduced over `axis`, in the shape of `x` again."""
    shape = np.shape(x)
    if axis is not None and not keepdims and np.ndim(g) < len(shape):
        # (Older NumPy does not take a named tuple here.)
        g = np.expand_dims(g, tuple(axis) if isinstance(axis, tuple) else axis)
    return np.broadcast_to(g, shape)


def kept(g, where):
    """`g` where an element took part in the reduction, else 0."""
    return g if where is True else np.where(where, g, 0)


def count(x, axis, where=True):
    """How many elements of `x` went into one element of the result (1 for none)."""
    if where is not True:
        return np.maximum(np.sum(np.broadcast_to(where, np.shape(x)), axis, keepdims=True), 1)
    return max(number_of(x, axis), 1)


def number_of(x, axis):
    """How many elements of `x` go into one element of the result, if all do."""
    shape = np.shape(x)
    axes = range(len(shape)) if axis is None else np.atleast_1d(axis)
    return math.prod(shape[a] for a in axes)


rule(
    np.sum,
    lambda g, y, x, axis=None, keepdims=False, where=True, **_: kept(
        spread(g, x, axis, keepdims), where
    ),
    samples=AXES,
)


def mean_slope(g, y, x, axis=None, keepdims=False, where=True, **_):
    """Each element that took part has the weight 1 / n."""
    if where is True:
        return spread(g / count(x, axis), x, axis, keepdims)
    return kept(spread(g, x, axis, keepdims) / count(x, axis, where), where)


rule(np.mean, mean_slope, samples=AXES)


def numbers(x, where=True):
    """Where an element took part that is not nan."""
    return np.logical_and(where, np.logical_not(np.isnan(x)))


rule(
    np.nansum,
    lambda g, y, x, axis=None, keepdims=False, where=True, **_: kept(
        spread(g, x, axis, keepdims), numbers(x, where)
    ),
    samples=AXES,
)
rule(
    np.nanmean,
    lambda g, y, x, axis=None, keepdims=False, where=True, **_: mean_slope(
        g, y, x, axis, keepdims, numbers(x, where)
    ),
    samples=AXES,
)


def extreme(g, y, x, axis=None, keepdims=False, where=True, **_):
    """The gradient goes to the extreme element, in even shares where there are several."""
    hit = np.logical_and(np.equal(x, spread(y, x, axis, keepdims)), where)
    share = np.maximum(np.sum(hit, axis=axis, keepdims=True), 1)
    return spread(g, x, axis, keepdims) * (hit / share).astype(np.result_type(y))


for extremum in {np.max, np.min, np.amax, np.amin}:
    rule(extremum, extreme, samples=AXES)


def deviation(x, axis, where=True, mean=np._NoValue):
    """x minus its mean (as a sum, because NumPy warns of the mean of nothing), or the given one."""
    if mean is not np._NoValue:
        return x - mean
    only = {} if where is True else {"where": where}
    return x - np.sum(x, axis=axis, keepdims=True, **only) / count(x, axis, where)


def var_slope(
    g, y, x, axis=None, ddof=0, keepdims=False, where=True, mean=np._NoValue, correction=None, **_
):
    """2 (x - mean) / (n - ddof)."""
    n = count(x, axis, where) - (ddof if correction is None else correction)
    return kept(spread(g, x, axis, keepdims) * (2 * deviation(x, axis, where, mean) / n), where)


def std_slope(
    g, y, x, axis=None, ddof=0, keepdims=False, where=True, mean=np._NoValue, correction=None, **_
):
    """(x - mean) / ((n - ddof) std), and 0 where all elements are equal."""
    n = count(x, axis, where) - (ddof if correction is None else correction)
    scale = spread(y, x, axis, keepdims) * n
    still = np.equal(scale, 0)
    if mean is np._NoValue:
        still = np.logical_or(still, alike(x, axis, where))
    slope = np.where(still, 0, deviation(x, axis, where, mean) / np.where(still, 1, scale))
    return kept(spread(g, x, axis, keepdims) * slope, where)


def alike(x, axis, where):
    """Whether all elements are equal, whose mean may be off by a rounding."""
    if np.size(x) == 0:
        return False
    low, high = (x, x) if where is True else (np.where(where, x, v) for v in (np.inf, -np.inf))
    return np.equal(np.min(low, axis, keepdims=True), np.max(high, axis, keepdims=True))


DDOF = [*AXES[:3], sample((3, 4), axis=1, ddof=1), sample((3, 4), axis=0, correction=1)]
rule(np.var, var_slope, samples=DDOF)
rule(np.std, std_slope, samples=DDOF)


@primitive(lambda g, y: g, samples=())
def divisor(total):
    """The sum of weights, if it is not 0."""
    if np.any(np.equal(total, 0)):
        raise ZeroDivisionError("average: the sum of the weights is 0")
    return total


@composed(
    np.average,
    samples=[
        sample((3, 4), axis=0),
        sample((3, 4), (4,), by=lambda f, x, w: f(x, axis=1, weights=w)),
        sample((3,), (3,), by=lambda f, x, w: f(x, weights=w, returned=True)[1]),
    ],
    domain=(0.5, 2),
)
def average(x, axis=None, weights=None, returned=False, *, keepdims=False):
    if weights is None:
        mean = np.mean(x, axis=axis, keepdims=keepdims)
        total = np.broadcast_to(np.asarray(x.size / np.size(mean), x.dtype), np.shape(mean))
        return (mean, total) if returned else mean
    weights, shape = weights if type(weights) is Tensor else np.asarray(weights), np.shape(x)
    if np.shape(weights) != shape:
        at = () if axis is None else normalize_axis_tuple(axis, len(shape))
        if axis is None or np.shape(weights) != tuple(shape[a] for a in at):
            raise ValueError(
                f"average: weights of shape {np.shape(weights)} do not fit axis {axis} of {shape}"
            )
        weights = np.transpose(weights, np.argsort(at))
        weights = np.expand_dims(weights, tuple(a for a in range(len(shape)) if a not in at))
    weighted = x * weights
    total = np.broadcast_to(weights, shape).astype(weighted.dtype)
    total = divisor(np.sum(total, axis=axis, keepdims=keepdims))
    mean = np.sum(weighted, axis=axis, keepdims=keepdims) / total
    return (mean, total) if returned else mean


@composed(np.ptp, samples=AXES[:3])
def ptp(x, axis=None, *, keepdims=False):
    return np.max(x, axis=axis, keepdims=keepdims) - np.min(x, axis=axis, keepdims=keepdims)


def lined_up(x, axis):
    """`x` with the axes that are reduced as one, the last, and the order in which all stand."""
    shape = np.shape(x)
    axes = range(len(shape)) if axis is None else [a % len(shape) for a in np.atleast_1d(axis)]
    rest = [a for a in range(len(shape)) if a not in axes]
    order = [*rest, *sorted(axes)]
    lined = (*[shape[a] for a in rest], number_of(x, axis))
    return np.reshape(np.transpose(x, order), lined), order


def quantile_slope(g, y, x, *, q=None, whole=1, axis=None, keepdims=False):
    """The elements on both sides of a quantile share the gradient, the nearer one gets more."""
    if not np.size(x) or not np.size(g):
        return np.zeros_like(x)
    ranked = np.sort(lined_up(x, axis)[0], axis=-1)
    q = np.ravel(np.true_divide(0.5 if q is None else q, whole))
    g = np.reshape(np.where(np.isnan(y), 0, g), (len(q), *np.shape(ranked)[:-1]))
    total, last = 0.0, np.shape(ranked)[-1] - 1
    for i, place in enumerate(q * last):
        below = int(place)
        for k, share in (below, 1 - place + below), (min(below + 1, last), place - below):
            total = total + extreme(g[i] * share, ranked[..., k], x, axis)
    return total


@primitive(quantile_slope, samples=())
def quantiles(x, *, q=None, whole=1, axis=None, keepdims=False):
    """np.median, or np.quantile for whole=1 and np.percentile for 100."""
    if q is None:
        return np.median(x, axis=axis, keepdims=keepdims)
    return (np.quantile if whole == 1 else np.percentile)(x, q, axis=axis, keepdims=keepdims)


# To overwrite the input is allowed to NumPy, not demanded of it; here it is not done.
@composed(np.median, samples=[*AXES[:3], sample((5,)), sample(())])
def median(x, axis=None, *, overwrite_input=False, keepdims=False):
    return quantiles(x, axis=axis, keepdims=keepdims)


for quantile, whole in ((np.quantile, 1), (np.percentile, 100)):

    @composed(
        quantile,
        samples=[
            sample((3, 4), q=0.3 * whole),
            sample((3, 4), q=[0, 0.4 * whole, whole], axis=0),
            sample((2, 3, 4), q=[[0.2, 0.9]], axis=(0, -1), keepdims=True),
        ],
    )
    def quantile_of(
        x,
        q,
        axis=None,
        *,
        overwrite_input=False,
        method="linear",
        keepdims=False,
        weights=None,
        whole=whole,
    ):
        if method != "linear" or weights is not None:
            raise no_rule("a quantile by another method than 'linear', or with weights,")
        q = q if isinstance(q, (int, float)) else np.array(q)
        return quantiles(x, q=q, whole=whole, axis=axis, keepdims=keepdims)


# ------------------------------------------------------------------------------- cumulative


def from_behind(f, x, axis):
    """`f` along `axis`, begun at its end."""
    return np.flip(f(np.flip(x, axis), axis=axis), axis)


def cumsum_slope(g, y, x, axis=None, **_):
    """Each element counts in all sums from its own on."""
    if axis is None:
        return np.reshape(from_behind(np.cumsum, g, 0), np.shape(x))
    return from_behind(np.cumsum, g, axis)


rule(np.cumsum, cumsum_slope, samples=[sample((4,)), sample((3, 4)), sample((3, 4), axis=1)])


def before(x, axis):
    """The product of all elements before each one: cumprod, shifted by one."""
    x = np.moveaxis(x, axis, -1)
    y = np.concatenate([np.ones_like(x[..., :1]), np.cumprod(x, axis=-1)[..., :-1]], axis=-1)
    return np.moveaxis(y, -1, axis)


def prod_slope(g, y, x, axis=None, keepdims=False, initial=1, where=True, **_):
    """All the others multiplied: those before times those behind, so that zeros are exact."""
    x = x if where is True else np.where(where, x, 1)
    g = g * initial
    if np.ndim(x) == 0:
        return kept(g, where)
    flat, order = lined_up(x, axis)
    others = before(flat, -1) * np.flip(before(np.flip(flat, -1), -1), -1)
    others = np.reshape(others, [np.shape(x)[a] for a in order])
    others = np.transpose(others, np.argsort(order))
    return kept(spread(g, x, axis, keepdims) * others, where)


rule(np.prod, prod_slope, samples=AXES)


@primitive(
    lambda g, y, a, b: adjoint(g, a) * shifted(y),
    lambda g, y, a, b: adjoint(g, a),
    samples=[sample((4,), (4,)), sample((2, 3), (2, 3))],
)
def recurrence(a, b):
    """y[i] = b[i] + a[i] y[i-1] along the last axis, with y[-1] = 0."""
    y = np.array(b)
    for i in range(1, y.shape[-1]):
        y[..., i] += a[..., i] * y[..., i - 1]
    return y


def shifted(y):
    """y[i-1], and 0 before the first."""
    return np.concatenate([np.zeros_like(y[..., :1]), y[..., :-1]], axis=-1)


def adjoint(g, a):
    """s[i] = g[i] + a[i+1] s[i+1]: what an element is worth to all that come after it."""
    step = np.concatenate([a[..., 1:], np.zeros_like(a[..., :1])], axis=-1)
    return np.flip(recurrence(np.flip(step, -1), np.flip(g, -1)), -1)


def cumprod_slope(g, y, x, axis=None, **_):
    """The products before each element times what follows it, exact for zeros."""
    if axis is None or np.ndim(x) == 0:
        shape = np.shape(x)
        return np.reshape(cumprod_slope(np.ravel(g), y, np.ravel(x), axis=0), shape)
    x, g = np.moveaxis(x, axis, -1), np.moveaxis(g, axis, -1)
    after = adjoint(g, x)
    return np.moveaxis(before(x, -1) * after, -1, axis)


rule(np.cumprod, cumprod_slope, samples=[sample((4,)), sample((3, 4)), sample((3, 4), axis=1)])


if hasattr(np, "cumulative_sum"):  # pragma: no branch - NumPy has them since 2.1
    STEPS = [sample((4,)), sample((3, 4), axis=1), sample((3, 4), axis=0, include_initial=True)]
    for cumulative, f in ((np.cumulative_sum, np.cumsum), (np.cumulative_prod, np.cumprod)):

        @composed(cumulative, samples=STEPS)
        def accumulated(x, /, *, axis=None, dtype=None, include_initial=False, f=f):
            x = np.atleast_1d(x)
            if axis is None and x.ndim > 1:
                raise ValueError("cumulative sums and products along which axis? Write axis=0")
            y = f(x, axis=axis, dtype=dtype)
            if not include_initial:
                return y
            width = [(int(i == (axis or 0) % y.ndim), 0) for i in range(y.ndim)]
            return np.pad(y, width, constant_values=int(f is np.cumprod))


@composed(np.diff, samples=[sample((5,)), sample((3, 5), n=2), sample((3, 5), axis=0, prepend=1.0)])
def diff(x, n=1, axis=-1, prepend=None, append=None):
    if n < 0:
        raise ValueError(f"diff: n must not be negative, got {n}")
    if n == 0:
        return x
    x = np.moveaxis(x, axis, -1)
    for end, first in ((prepend, True), (append, False)):
        if end is not None and not (isinstance(end, type(np._NoValue)) and end is np._NoValue):
            end = (
                np.moveaxis(end, axis, -1)
                if np.ndim(end)
                else np.broadcast_to(end, (*x.shape[:-1], 1))
            )
            x = np.concatenate([end, x] if first else [x, end], axis=-1)
    for _ in range(n):
        x = x[..., 1:] - x[..., :-1]
    return np.moveaxis(x, -1, axis)


@composed(
    np.trapezoid,
    samples=[
        sample((4,), dx=0.5),
        sample((3, 4), (4,), by=lambda f, y, x: f(y, x)),
        sample((3, 4), (3,), by=lambda f, y, x: f(y, x, axis=0)),
        sample((3, 4), (3, 4), by=lambda f, y, x: f(y, x, axis=0)),
    ],
)
def trapezoid(y, x=None, dx=1.0, axis=-1):
    y = np.copy(y)
    before = (slice(None),) * normalize_axis_index(axis, y.ndim)
    if x is not None and np.ndim(x) == 1:
        dx = np.reshape(np.diff(x), (-1, *(1,) * (y.ndim - 1 - len(before))))
    elif x is not None:
        dx = np.diff(x, axis=axis)
    ends = y[(*before, slice(1, None))] + y[(*before, slice(-1))]
    return np.sum(dx * ends / 2.0, axis=axis)


without_gradient(np.argmax, np.argmin, np.any, np.all, np.count_nonzero, np.nanargmax, np.nanargmin)
