"""`gradcheck`: is this gradient right?"""

import numpy as np

from .checks import as_array, as_real
from .gradient import as_params, gradient
from .tensor import Tensor


class GradcheckReport:
    """The outcome of `gradcheck`: true if all entries agree, and a text that shows the worst."""

    def __init__(self, ok, error, text):
        self.ok, self.error, self.text = ok, error, text

    def __bool__(self):
        return self.ok

    def __str__(self):
        return self.text

    __repr__ = __str__


def gradcheck(f, *args, rtol=1e-5, atol=1e-7, step=None):
    """Compare `gradient(f, *args)` with central differences, entry by entry.

    Parameters
    ----------
    f : callable
        Returns a number, the same whenever it is called with the same arguments.
    *args : array_like or Params
        As for `gradient`: arrays and numbers, or one Params (whose values are moved in their place,
        and put back). Of float64 or longdouble; single precision is too coarse for differences.
    rtol, atol : float
        An entry agrees if |gradient - difference| <= atol + rtol |difference|.
    step : float, optional
        Of the differences; by default eps^(1/3) max(1, |x|), which balances the errors of rounding
        and of cutting off the series.

    Returns
    -------
    GradcheckReport
        Counts as a bool; prints the worst entry.

    Raises
    ------
    TypeError
        For an array of another type than float64 and longdouble (whole numbers become float64).

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.gradcheck(lambda x, y: np.sum(np.sin(x) * y), np.ones(3), np.ones(3))
    gradcheck: all 6 entries agree; the worst is argument 1 at (0,): gradient 0.540302, ...

    A model, in double precision:

    >>> x = np.linspace(-1, 1, 5)[:, None]
    >>> m = flux.Dense(1, 2, flux.gelu, init=lambda *shape: np.ones(shape))
    >>> bool(flux.gradcheck(lambda: np.sum(m(x) ** 2), flux.params(m)))
    True
    """
    rtol = as_real(rtol, "gradcheck: rtol", finite=True)
    atol = as_real(atol, "gradcheck: atol", finite=True)
    step = None if step is None else as_real(step, "gradcheck: step", finite=True)
    ps = as_params(args)
    if ps is not None:
        names, arrays = ps.names(), [p._array for p in ps]
        call, found = f, gradient(f, ps).values()
    else:
        given = [a._array if isinstance(a, Tensor) else as_array(a, "gradcheck") for a in args]
        arrays = [np.array(a, order="C") for a in given]
        arrays = [a.astype(np.float64) if a.dtype.kind in "iu" else a for a in arrays]
        names = [f"argument {i + 1}" for i in range(len(arrays))]
        call = lambda: f(*[a.copy() for a in arrays])
        found = gradient(f, *arrays)
    for name, a in zip(names, arrays, strict=True):
        if a.dtype not in (np.float64, np.longdouble):
            raise TypeError(f"gradcheck: {name} has dtype {a.dtype}; use float64")
    worst = (-1.0, 0.0, "")
    count = 0
    ok = True
    for name, a, g in zip(names, arrays, found, strict=True):
        g = np.zeros(a.shape) if g is None else g
        for place in np.ndindex(a.shape):
            wanted = difference(call, a, place, step)
            error = abs(float(g[place]) - wanted)
            allowed = atol + rtol * abs(wanted)
            ok = ok and error <= allowed
            count += 1
            share = error / allowed if allowed else error and np.inf
            if not share <= worst[0]:
                text = f"{name} at {place}: gradient {g[place]:.6g}, difference {wanted:.6g}"
                worst = (share, error, text)
    verdict = f"all {count} entries agree" if ok else "the gradient is wrong"
    verdict = f"{verdict}; the worst is {worst[2]}" if count else "there is no entry to compare"
    return GradcheckReport(ok, worst[1], f"gradcheck: {verdict}")


def difference(call, x, place, step):
    """The central difference of `call()` in one entry of x, which is moved and put back."""
    kept = x[place]
    h = step or float(np.finfo(x.dtype).eps) ** (1 / 3) * max(1.0, abs(float(kept)))
    ends = []
    try:
        for sign in (1, -1):
            x[place] = kept + sign * h
            ends.append(call())
    finally:
        x[place] = kept
    return float(ends[0] - ends[1]) / (2 * h)
