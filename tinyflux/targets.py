"""What a loss is given: prediction and target checked, labels turned into one-hot rows."""

import numpy as np

from .checks import as_array, as_callable, as_real, numeric, shown
from .primitive import primitive
from .tensor import Tensor


def target(name, yhat, y, agg=np.mean, classes=False):
    """`y` checked against `yhat` and in its type: (yhat, y)."""
    if agg is not np.mean:
        as_callable(agg, f"{name}: agg")
    a = yhat._array if type(yhat) is Tensor else yhat if type(yhat) is np.ndarray else None
    if a is None:
        a = yhat = as_numbers(name, "yhat", yhat)
    b = y._array if type(y) is Tensor else y if type(y) is np.ndarray else None
    if b is None:
        b = y = as_numbers(name, "y", y, classes)
    shape, dtype = a.shape, a.dtype
    if dtype.kind != "f" or dtype.itemsize < 4:  # where small integers wrap and float16 overflows
        numeric(a, f"{name}: yhat")
        a = yhat = yhat.astype(np.float32 if dtype.kind == "f" else np.float64)
        dtype = a.dtype
    if a.size == 0:
        raise ValueError(f"{name}: got an empty batch (shape {shape}), whose loss is not defined")
    if b.shape != shape:
        if classes and b.dtype.kind in "iu" and b.shape == shape[:-1]:
            return yhat, one_hot(y, k=shape[-1], dtype=dtype, name=name)
        raise ValueError(misfit(name, shape, b, classes))
    if b.dtype is not dtype and b.dtype != dtype:
        if b.dtype.kind not in "fiub":
            raise TypeError(
                f"{name}: y has dtype {b.dtype}; real numbers are wanted{of_text(b, classes)}"
            )
        y = y.astype(dtype)
    return yhat, y


def as_numbers(name, which, value, classes=False):
    """A list or a number as an array."""
    array = as_array(value, f"{name}: {which}")
    if array.dtype.kind not in "fiub":
        what = f"{which} is {shown(value)}; an array of numbers is wanted"
        raise TypeError(f"{name}: {what}{of_text(array, classes)}")
    return array


def of_text(array, classes):
    """What to do with numbers or names of classes that are text; nothing to say of others."""
    first = array.flat[0] if array.dtype.kind in "USO" and array.size else None
    if not isinstance(first, (str, bytes)):
        return ""
    return "; of names write onehotbatch(y, names)" if classes else "; of text write .astype(float)"


@primitive(None, samples=())
def one_hot(labels, *, k, dtype, name):
    """Whole-number labels as rows with one 1; a label out of range is refused."""
    low, high = labels.min(), labels.max()
    if low < 0 or high >= k:
        raise ValueError(
            f"{name}: yhat has {k} classes on its last axis, so labels go from 0 to {k - 1}; "
            f"got {low if low < 0 else high}"
        )
    rows = np.zeros((*labels.shape, k), dtype)
    rows.reshape(-1)[np.arange(labels.size) * k + labels.reshape(-1).astype(np.intp)] = 1
    return rows


# What such a check returns is what it is given, if it is right.
unchanged = primitive(lambda g, y, **_: g, samples=())


@unchanged
def chances(y, *, name):
    """y itself, if it lies from 0 to 1: labels of -1 and 1 would let the loss fall for ever."""
    if np.any(np.less(y, 0)):
        raise ValueError(
            f"{name}: y goes from 0 to 1, got {y.min()}; of labels -1 and 1 (y + 1) / 2"
        )
    if np.any(np.greater(y, 1)):
        raise ValueError(
            f"{name}: y goes from 0 to 1, got {y.max()}; labels of classes become rows with "
            "onehotbatch(labels, range(k))"
        )
    return y


@unchanged
def probable(yhat, *, name):
    """yhat itself, if it lies from 0 to 1: of scores above 1 the loss would fall for ever."""
    low, high = np.min(yhat), np.max(yhat)
    if low < 0 or high > 1.001:
        raise ValueError(
            f"{name}: yhat goes from 0 to 1, got {low if low < 0 else high}; make probabilities of "
            "scores with softmax or sigmoid, or take the loss whose name begins with logit"
        )
    return yhat


@unchanged
def signs(y, *, name):
    """y itself, if it lies from -1 to 1 and is nowhere 0: a label of 0 would teach nothing."""
    size = np.abs(y)
    if np.any(np.greater(size, 1)) or np.any(np.equal(size, 0)):
        wrong = y[np.logical_or(np.greater(size, 1), np.equal(size, 0))]
        raise ValueError(f"{name}: y is -1 or 1, got {wrong[0]}; of labels 0 and 1 2 * y - 1")
    return y


@unchanged
def amounts(a, *, name, which):
    """a itself, if it is nowhere negative: the loss would fall for ever."""
    if np.any(np.less(a, 0)):
        remedy = "; make rates of scores with np.exp or softplus" if which == "yhat" else ""
        raise ValueError(f"{name}: {which} must not be negative, got {np.nanmin(a)}{remedy}")
    return a


def misfit(name, shape, y, classes):
    """What is wrong with a target of another shape, and the remedy."""
    text = f"{name}: yhat has shape {shape} and y has {y.shape}; they must be equal"
    if classes and shape:
        text += f", or y whole-number labels of shape {shape[:-1]}"
        if y.shape == shape[:-1]:
            return text + (
                of_text(y, classes) or f" (they have dtype {y.dtype}: use y.astype(int))"
            )
        if y.shape == (*shape[:-1], 1):
            return text + ": write y[..., 0]"
        if y.shape[:-1] == shape and y.shape[-1] > 1:  # labels, and behind them scores
            return text + f". The prediction comes first: {name}(yhat, y)"
    if y.ndim == 2 and y.shape == shape[::-1] and min(shape) > 1:
        return text + ": one is transposed; write y.T, or yhat.T"
    ones_apart = [n for n in shape if n != 1] == [n for n in y.shape if n != 1]
    # Elements that only follow one another otherwise would be compared with the wrong ones.
    if ones_apart or (y.size == int(np.prod(shape)) and shape[:1] == y.shape[:1]):
        text += f": write y.reshape({shape}), or yhat.reshape({y.shape})"
    return text


def eps_of(name, yhat, eps):
    """What keeps a logarithm finite: `eps`, or the machine epsilon of the type of a prediction."""
    if eps is not None:
        return as_real(eps, f"{name}: eps", finite=True)
    return float(np.finfo(yhat.dtype if yhat.dtype.kind == "f" else np.float64).eps)
