"""Random rows: values that are drawn anew whenever the program runs."""

import numpy as np

from ..primitive import Operation
from ..seeding import generator
from ..tape import recording


class Draw(Operation):
    """An operation without operands, `f(rng=..., **params)`: a draw from a random generator."""

    draws = True

    def __call__(self, **params):
        tape = recording()
        if tape is not None and tape.tracing:
            return tape.draw(self, params)
        return self.kernel(**params)


def keep_mask(rng, shape, p, dtype):
    """0 with probability p, else 1 / (1 - p), so that the mean stays."""
    if p == 1:
        return np.zeros(shape, dtype)
    kept = generator(rng).random(shape, np.float32) >= p
    return np.multiply(kept, dtype.type(1 / (1 - p)))


dropout_mask = Draw("dropout_mask", keep_mask, samples=())
