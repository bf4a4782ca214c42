"""Random rows: values that are drawn anew whenever the program runs."""

from contextvars import ContextVar, copy_context
from copy import deepcopy

import numpy as np

from ..generators import generator
from ..primitive import Operation
from ..tape import recording


class Event(Operation):
    """An operation that does more than compute: it is never left out, shared or computed ahead."""


class Draw(Event):
    """An operation without operands, `f(rng=..., **params)`: a draw from a random generator."""

    def __call__(self, **params):
        tape = recording()
        if tape is not None and tape.tracing:
            return tape.draw(self, params)
        instead = replaced.get()
        if instead is not None:
            rng = generator(params["rng"])
            params = {**params, "rng": instead.get(id(rng), rng)}
        return self.kernel(**params)


# While a function is run once more: the generators that stand in for others, by the ids of these.
replaced: ContextVar = ContextVar("replaced", default=None)


def repeating():
    """Whether a function is run once more only for a derivative."""
    return replaced.get() is not None


def once_more(generators, f, *args):
    """f(*args), where the generators with these ids are replaced by copies of the given ones.

    So what was drawn once is drawn again, nobody else's draws are touched, and nothing is counted
    twice.
    """

    def run():
        replaced.set({key: deepcopy(g) for key, g in generators.items()})
        return f(*args)

    return copy_context().run(run)


def keep_mask(rng, shape, p, dtype):
    """0 with probability p, else 1 / (1 - p), so that the mean stays."""
    if p == 1:
        return np.zeros(shape, dtype)
    kept = generator(rng).random(shape, np.float32) >= p
    return np.multiply(kept, dtype.type(1 / (1 - p)))


dropout_mask = Draw("dropout_mask", keep_mask, samples=())
