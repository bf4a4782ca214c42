"""Training, block by block: the page on training of Flux 0.11, in Python.

Run me:  python examples/flux_training.py

Each block does what the block of that page does, in its order, under a sentence that says what it
shows. Julia marks functions that change their arguments with `!`; here it is a trailing underscore.
"""

import numpy as np

import tinyflux as flux
from tinyflux import Chain, DataLoader, Dense, Params, gradient, losses, pullback, softmax, σ

from tinyflux import ncycle, throttle, train_, update_  # isort: skip


def objective_function():
    """Training needs an objective, parameters, data and an optimiser; the objective is a number."""
    m = Chain(Dense(784, 32, σ), Dense(32, 10), softmax)

    def loss(x, y):
        return losses.mse(m(x), y)

    ps = flux.params(m)
    return m, loss, ps


def run_training(loss, ps):
    """The four things come together in one call; the model is known to the loss alone."""
    data = [(np.random.default_rng(0).random(784), np.random.default_rng(1).random(10))]
    opt = flux.SGD(0.1)
    train_(loss, ps, data, opt)


def one_datum(rng):
    """Data is a collection of data; this one holds a single pair of an input and a target."""
    x = rng.random(784)
    y = rng.random(10)
    data = [(x, y)]
    return x, y, data


def the_same_datum_three_times(x, y):
    """Each datum gives one update, so a datum that stands there three times is used three times."""
    data = [(x, y), (x, y), (x, y)]
    # or, which is the same:
    again = ncycle([(x, y)], 3)
    return data, again


def inputs_and_targets_apart(rng):
    """Where inputs and targets are in two lists, zip makes the pairs."""
    xs = [rng.random(784), rng.random(784), rng.random(784)]
    ys = [rng.random(10), rng.random(10), rng.random(10)]
    data = zip(xs, ys, strict=True)
    return data


def batches(rng, n):
    """A DataLoader divides large arrays into batches (here observations are the first axis)."""
    X = rng.random((n, 28, 28), dtype=np.float32)
    Y = rng.integers(0, 10, n)
    data = DataLoader(X, Y, batchsize=128)
    return data


def two_epochs(loss, ps, data, opt):
    """train_ goes through the data once; `epochs` repeats whatever stands below it."""
    for _ in flux.epochs(2):
        print("hello")

    for _ in flux.epochs(2):
        train_(loss, ps, data, opt)  # trains for two epochs


def a_callback(objective, ps, data, opt):
    """A callback is called after every batch, to look at the training."""
    train_(objective, ps, data, opt, cb=lambda: print("training"))


def a_throttled_callback(objective, loss, ps, data, opt, rng):
    """throttle lets a function run at most once in so many seconds: here the test loss."""
    test_x, test_y = rng.random((16, 784)), rng.random((16, 10))  # one batch of test data

    def evalcb():
        print(f"loss(test_x, test_y) = {loss(test_x, test_y):.4f}")

    train_(objective, ps, data, opt, cb=throttle(evalcb, 5))


def stopping(loss, ps, data, opt):
    """stop() in a callback ends the training early."""

    def accuracy():
        return 0.95

    def cb():
        if accuracy() > 0.9:
            flux.stop()

    return train_(loss, ps, data, opt, cb=cb)


def my_custom_train_(loss, ps, data, opt):
    """A loop of your own does what train_ does, and has room for whatever you want in between."""
    training_loss = None  # named out here, so that it can be logged after the gradient
    ps = Params(ps)
    for d in data:

        def objective(d=d):
            nonlocal training_loss
            training_loss = loss(*d)
            # What is written here is differentiated; what need not be is better done outside.
            return training_loss

        gs = gradient(objective, ps)
        # Here is the place for what needs the loss, such as logging it,
        # and for what needs the gradients, such as a histogram of them.
        update_(opt, ps, gs)
        # Here is the place to look at the validation set, and to break out of the loop.
    return float(training_loss)


def my_pullback_train_(loss, ps, data, opt):
    """pullback gives the loss and, when it is asked for, the gradient."""
    ps = Params(ps)
    for d in data:
        # back(seed) is the product of the seed with the gradient.
        train_loss, back = pullback(lambda d=d: loss(*d), ps)
        # Here is the place for what needs the loss.
        # Applied to 1, in the type of the loss, it is the gradient of the loss.
        gs = back(np.ones_like(train_loss))
        # Here is the place for what needs the gradients.
        update_(opt, ps, gs)
        # Here is the place to look at the validation set, and to break out of the loop.
    return train_loss


def main(n=60_000):
    rng = np.random.default_rng(0)
    m, loss, ps = objective_function()
    run_training(loss, ps)
    x, y, data = one_datum(rng)
    opt = flux.SGD(0.1)
    before = loss(x, y)
    for some in (data, *the_same_datum_three_times(x, y), inputs_and_targets_apart(rng)):
        train_(loss, ps, some, opt)

    def classes(x, y):  # the loss for batches of images with labels
        return losses.crossentropy(m(x.reshape(len(x), -1)), y)

    history = train_(classes, ps, batches(rng, n), opt)
    print(f"{len(history)} batches of images, loss {history.losses[-1]:.3f}")
    two_epochs(loss, ps, data, opt)
    a_callback(loss, ps, data, opt)
    a_throttled_callback(loss, loss, ps, data, opt, rng)
    print("stopped early:", stopping(loss, ps, data * 10, opt))
    print(f"custom loop with gradient: loss {my_custom_train_(loss, ps, data * 10, opt):.4f}")
    print(f"custom loop with pullback: loss {my_pullback_train_(loss, ps, data * 10, opt):.4f}")
    return before, loss(x, y)


if __name__ == "__main__":
    main()
