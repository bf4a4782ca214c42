"""What `train_` is given, looked at before the first step: each slip gets its sentence."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import numpy as np

from .checks import brief, misfit_of
from .errors import NoGradientError
from .params import Params
from .tensor import Tensor


def arguments(args):
    """(ps, data, opt) of either form of `train_`."""
    if len(args) not in (2, 3):
        raise TypeError(
            f"train_(loss, ps, data, opt) or train_(loss, data, opt) is wanted, got "
            f"{1 + len(args)} arguments; inputs and targets are one of them, [(x, y)], and epochs= "
            "and cb= go by name"
        )
    data, opt = args[-2:]
    if isinstance(opt, type) or not callable(getattr(opt, "prepare", None)):
        what = f"the class {opt.__name__}" if isinstance(opt, type) else f"a {type(opt).__name__}"
        raise TypeError(
            f"train_: opt must be an optimiser such as ADAM(0.001), or an UpdateRule of your own, "
            f"got {what}"
        )
    if len(args) == 3:
        ps = args[0]
    elif (ps := getattr(opt, "ps", None)) is None:
        raise TypeError(
            f"train_(loss, data, opt): this {type(opt).__name__} was made without parameters. Make "
            f"it {type(opt).__name__}(params(m), ...), or call train_(loss, params(m), data, opt)"
        )
    ps = params_for(ps, "train_")
    if not len(ps):
        raise NoGradientError(
            "train_: there are no parameters to train; params(model) finds the Tensors that are "
            "attributes of the model and not frozen"
        )
    return ps, data, opt


def params_for(ps, who):
    """`ps` as Params; a model in their place is refused with the remedy."""
    if isinstance(ps, Params):
        return ps
    if isinstance(ps, (list, tuple)) and all(isinstance(p, Tensor) for p in ps):
        return Params(ps)
    raise TypeError(
        f"{who}: the parameters must be Params, got {type(ps).__name__}; write params(model)"
    )


def refuse_odd_data(data):
    """Data that can only be a slip: a dict, a string, or two arrays where pairs were meant."""
    if isinstance(data, tuple) and data and all(isinstance(d, (np.ndarray, Tensor)) for d in data):
        shapes = " and ".join(str(d.shape) for d in data)
        raise TypeError(
            f"train_: data is a tuple of arrays of shapes {shapes}, whose elements would be passed "
            "one by one. For one datum write [(X, Y)]; for batches DataLoader((X, Y), batchsize=32)"
        )
    if (
        isinstance(data, (dict, str, np.generic, type))
        or (not hasattr(data, "__iter__") and not hasattr(data, "__getitem__"))
        or (isinstance(data, np.ndarray) and data.ndim == 0)
    ):
        raise TypeError(
            f"train_: data is a {type(data).__name__}; something to iterate over is wanted, "
            "such as [(x, y)] or DataLoader((X, Y))"
        )


def no_data(data, epoch):
    """Why an epoch had nothing to go through."""
    if isinstance(data, Iterator) and epoch > 1:
        return (
            f"train_: the data ran dry after epoch {epoch - 1}: a {type(data).__name__} can be "
            "gone through only once. Give a list or a DataLoader, or epochs=1"
        )
    if isinstance(data, Iterator):
        return f"train_: this {type(data).__name__} yields no datum; has it been used up before?"
    return "train_: data holds no datum"


def called_with(d):
    """The arguments with which the loss is called for a datum."""
    if isinstance(d, tuple):
        return d, {}
    return ((), d) if isinstance(d, dict) else ((d,), {})


def explained(error, loss, d, step):
    """A TypeError of calling the loss, told in terms of the datum if it did not fit."""
    args, kwargs = called_with(d)
    misfit = misfit_of(loss, args, kwargs)
    if not misfit:
        return error
    what, how = type(d).__name__, "passed whole: loss(d)"
    if isinstance(d, (tuple, dict)):
        what = f"{what} of {len(d)}"
        how = "splatted: loss(*d)" if isinstance(d, tuple) else "passed as keywords: loss(**d)"
    return TypeError(
        f"train_: datum {step} is a {what} and is {how}, which does not fit the loss: "
        f"{misfit}. Data for loss(x, y) are pairs: [(x, y)], zip(xs, ys), DataLoader((X, Y))"
    )


def wants_argument(f):
    """Whether a callback takes the state: whether it has a parameter that must be given."""
    try:
        known = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        return False
    needed = [
        p for p in known if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if len(needed) > 1 or any(p.kind is p.KEYWORD_ONLY for p in needed):
        names = ", ".join(p.name for p in needed)
        raise TypeError(
            f"train_: a callback takes nothing, or the state as its one positional argument; "
            f"{brief(f)} wants {names}"
        )
    return bool(needed)
