"""Training with an optimiser that owns its parameters: the page on training of Flux 0.3, in Python.

Run me:  python examples/flux_training_bound.py

Here the parameters are given to the optimiser when it is made, so `train_` takes three things.
"""

from itertools import repeat

import numpy as np

import tinyflux as flux
from tinyflux import Chain, Dense, losses, params, softmax, throttle, train_, σ


def a_model_loss():
    """The loss is a function of a datum, in which the model is used."""
    m = Chain(Dense(784, 32, σ), Dense(32, 10), softmax)

    # Model loss function
    def loss(x, y):
        return losses.mse(m(x), y)

    return m, loss


def three_things(loss, data, opt):
    """A loss, data and an optimiser: that is all."""
    train_(loss, data, opt)


def one_datum(rng):
    """Data is a collection of data, here of a single one."""
    x = rng.random(784)
    y = rng.random(10)
    data = [(x, y)]
    return x, y, data


def the_same_datum_three_times(x, y):
    """The same datum as often as it is to be used."""
    data = [(x, y), (x, y), (x, y)]
    # or, which is the same:
    again = repeat((x, y), 3)
    return data, again


def inputs_and_targets_apart(rng):
    """Two lists become pairs with zip."""
    xs = [rng.random(784), rng.random(784), rng.random(784)]
    ys = [rng.random(10), rng.random(10), rng.random(10)]
    data = zip(xs, ys, strict=True)
    return data


def a_callback(loss, data, opt):
    """A callback is called after every batch."""
    train_(loss, data, opt, cb=lambda: print("training"))


def a_throttled_callback(loss, data, opt, rng):
    """throttle keeps a costly callback, here the loss of test data, from running too often."""
    test_x, test_y = rng.random((16, 784)), rng.random((16, 10))  # one batch of test data

    def evalcb():
        print(f"loss(test_x, test_y) = {loss(test_x, test_y):.4f}")

    train_(loss, data, opt, cb=throttle(evalcb, 5))


def main():
    rng = np.random.default_rng(0)
    m, loss = a_model_loss()
    opt = flux.SGD(params(m), 0.1)
    x, y, data = one_datum(rng)
    before = loss(x, y)
    three_things(loss, data, opt)
    for some in (*the_same_datum_three_times(x, y), inputs_and_targets_apart(rng)):
        three_things(loss, some, opt)
    a_callback(loss, data, opt)
    a_throttled_callback(loss, data, opt, rng)
    after = loss(x, y)
    print(f"loss {before:.4f} before, {after:.4f} after")
    return before, after


if __name__ == "__main__":
    main()
