"""Compiled steps against the same steps written by hand, on networks of several kinds.

    python tests/benchmarks/by_hand.py

Each step is a loss with its gradients and an SGD update, float32, one BLAS thread. The hand-written
ones are in-place NumPy with every buffer laid out beforehand. It prints the median time of a step
and its median ratio to the one by hand. `steps.py` does the same for three networks with ADAM, and
asks PyTorch and JAX too.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from itertools import pairwise

import numpy as np
from timing import in_turn, on_one_core, report

import tinyflux as flux
from tinyflux import losses

LR = np.float32(0.01)
GELU = np.float32(np.sqrt(2 / np.pi))


def parameters(*sizes):
    """Weights and biases of a stack of dense layers."""
    rng = np.random.default_rng(0)
    W = [rng.standard_normal((i, o)).astype("f4") / np.float32(i**0.5) for i, o in pairwise(sizes)]
    return W, [np.zeros(o, "f4") for o in sizes[1:]]


def chain(W, b, activation):
    """The same as a Chain."""
    layers = [flux.Dense(*w.shape, activation) for w in W[:-1]] + [flux.Dense(*W[-1].shape)]
    for layer, w, v in zip(layers, W, b):
        layer.weight.data[...], layer.bias.data[...] = w, v
    return flux.Chain(*layers)


def tanh_single():
    """8-16-1 tanh, batch 1, mse."""
    W, b = parameters(8, 16, 1)
    x, y = np.ones((1, 8), "f4"), np.ones((1, 1), "f4")
    model = chain(W, b, np.tanh)
    h, z, d, t = (
        np.empty((1, 16), "f4"),
        np.empty((1, 1), "f4"),
        np.empty((1, 16), "f4"),
        np.empty((1, 16), "f4"),
    )
    dW = [np.empty_like(w) for w in W]
    db = [np.empty_like(v) for v in b]
    ones, two, one = np.ones(1, "f4"), np.array(2, "f4"), np.array(1, "f4")
    lr = np.array(LR)

    def step():
        np.dot(x, W[0], h), np.add(h, b[0], h), np.tanh(h, h)
        np.dot(h, W[1], z), np.add(z, b[1], z), np.subtract(z, y, z)
        value = np.dot(z[0], z[0])
        np.multiply(z, two, z)
        np.dot(z, W[1].T, d), np.dot(h.T, z, dW[1]), np.dot(ones, z, db[1])
        np.multiply(h, h, t), np.subtract(one, t, t), np.multiply(d, t, d)
        np.dot(x.T, d, dW[0]), np.dot(ones, d, db[0])
        for p, g in zip((*W, *b), (*dW, *db)):
            np.multiply(g, lr, g), np.subtract(p, g, p)
        return value

    return step, lambda x, y: losses.mse(model(x), y), model, (x, y)


def gelu_classes():
    """64-128-128-10 gelu, batch 64, cross-entropy of one-hot labels."""
    W, b = parameters(64, 128, 128, 10)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((64, 64)).astype("f4")
    y = np.eye(10, dtype="f4")[rng.integers(0, 10, 64)]
    model = chain(W, b, flux.gelu)
    empty = lambda n: np.empty((64, n), "f4")
    z, h, u, t, s = ([empty(128), empty(128)] for _ in range(5))
    out, e, d = empty(10), empty(10), [empty(128), empty(128)]
    column, ones = np.empty((64, 1), "f4"), np.ones(64, "f4")
    dW, db = [np.empty_like(w) for w in W], [np.empty_like(v) for v in b]
    number = {v: np.array(v, "f4") for v in (1.0, 0.5, 0.044715, 0.134145, 1 / 64)}
    width, lr = np.array(GELU), np.array(LR)

    def step():
        a = x
        for i in range(2):
            np.dot(a, W[i], z[i]), np.add(z[i], b[i], z[i])
            np.multiply(z[i], z[i], s[i]), np.multiply(s[i], number[0.044715], u[i])
            (
                np.add(u[i], number[1.0], u[i]),
                np.multiply(u[i], z[i], u[i]),
                np.multiply(u[i], width, u[i]),
            )
            np.tanh(u[i], t[i])
            np.add(t[i], number[1.0], u[i]), np.multiply(u[i], number[0.5], u[i])
            np.multiply(u[i], z[i], h[i])
            a = h[i]
        np.dot(a, W[2], out), np.add(out, b[2], out)
        np.maximum.reduce(out, axis=1, out=column[:, 0]), np.subtract(out, column, out)
        np.exp(out, e), np.add.reduce(e, axis=1, out=column[:, 0])
        np.divide(e, column, e), np.log(column, column), np.subtract(out, column, out)
        value = -np.dot(out.reshape(-1), y.reshape(-1)) / 64
        np.subtract(e, y, e), np.multiply(e, number[1 / 64], e)
        g = e
        for i in (2, 1, 0):
            np.dot((h[i - 1] if i else x).T, g, dW[i]), np.dot(ones, g, db[i])
            if i:
                k = i - 1
                np.dot(g, W[i].T, d[k])
                np.multiply(t[k], t[k], t[k]), np.subtract(number[1.0], t[k], t[k])
                np.multiply(s[k], number[0.134145], s[k]), np.add(s[k], number[1.0], s[k])
                np.multiply(t[k], s[k], t[k]), np.multiply(t[k], z[k], t[k])
                np.multiply(t[k], width, t[k]), np.multiply(t[k], number[0.5], t[k])
                np.add(t[k], u[k], t[k]), np.multiply(d[k], t[k], d[k])
                g = d[k]
        for p, q in zip((*W, *b), (*dW, *db)):
            np.multiply(q, lr, q), np.subtract(p, q, p)
        return value

    return step, lambda x, y: losses.logitcrossentropy(model(x), y), model, (x, y)


def normalised():
    """A layer normalisation in plain NumPy between two dense layers, 32-64-1, batch 128, mse."""
    W, b = parameters(32, 64, 1)
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((128, 32)).astype("f4"), rng.standard_normal((128, 1)).astype("f4")
    model = chain(W, b, flux.identity)
    first, last = model.layers

    def loss(x, y):
        h = first(x)
        h = (h - np.mean(h, axis=-1, keepdims=True)) / np.sqrt(
            np.var(h, axis=-1, keepdims=True) + 1e-5
        )
        return losses.mse(last(np.tanh(h)), y)

    h, c, t, d = (np.empty((128, 64), "f4") for _ in range(4))
    z, m, r, q = (np.empty((128, 1), "f4") for _ in range(4))
    ones, wide = np.ones(128, "f4"), np.ones(64, "f4")
    dW, db = [np.empty_like(w) for w in W], [np.empty_like(v) for v in b]
    n, eps, one, two = (np.array(v, "f4") for v in (1 / 64, 1e-5, 1, 2 / 128))
    lr = np.array(LR)

    def step():
        np.dot(x, W[0], h), np.add(h, b[0], h)
        np.dot(h, wide, m[:, 0]), np.multiply(m, n, m), np.subtract(h, m, h)
        np.multiply(h, h, c), np.dot(c, wide, r[:, 0]), np.multiply(r, n, r), np.add(r, eps, r)
        np.sqrt(r, r), np.divide(h, r, c), np.tanh(c, t)
        np.dot(t, W[1], z), np.add(z, b[1], z), np.subtract(z, y, z)
        value = np.dot(z[:, 0], z[:, 0]) / 128
        np.multiply(z, two, z)
        np.dot(t.T, z, dW[1]), np.dot(ones, z, db[1]), np.dot(z, W[1].T, d)
        np.multiply(t, t, t), np.subtract(one, t, t), np.multiply(d, t, d)
        np.multiply(d, c, t), np.dot(t, wide, q[:, 0]), np.multiply(q, n, q)
        np.dot(d, wide, m[:, 0]), np.multiply(m, n, m)
        np.multiply(c, q, c), np.subtract(d, c, d), np.subtract(d, m, d), np.divide(d, r, d)
        np.dot(x.T, d, dW[0]), np.dot(ones, d, db[0])
        for p, g in zip((*W, *b), (*dW, *db)):
            np.multiply(g, lr, g), np.subtract(p, g, p)
        return value

    return step, loss, model, (x, y)


def recurrent(steps=8, n=32):
    """A recurrent layer, 8-32 tanh, over 8 steps of time, batch 32, mse of its last state."""
    (Wx, Wh, Wo), (_, b, bo) = parameters(8, 32, 32, 1)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((steps, n, 8)).astype("f4")
    y = rng.standard_normal((n, 1)).astype("f4")
    model = [flux.Tensor(a) for a in (Wx, Wh, b, Wo, bo)]
    start = np.zeros((n, 32), "f4")

    def loss(x, y):
        h = start
        for now in range(steps):
            h = np.tanh(x[now] @ model[0] + h @ model[1] + model[2])
        return losses.mse(h @ model[3] + model[4], y)

    h = [start, *(np.empty((n, 32), "f4") for _ in range(steps))]
    u, d, e = (np.empty((n, 32), "f4") for _ in range(3))
    z, ones = np.empty((n, 1), "f4"), np.ones(n, "f4")
    dWx, dWh, db, dWo, dbo = grads = [np.empty_like(a) for a in (Wx, Wh, b, Wo, bo)]
    more = [np.empty_like(a) for a in (Wx, Wh, b)]
    two, one, lr = np.array(2 / n, "f4"), np.array(1, "f4"), np.array(LR)

    def step():
        for now in range(steps):
            a = h[now + 1]
            np.dot(x[now], Wx, a), np.dot(h[now], Wh, u), np.add(a, u, a)
            np.add(a, b, a), np.tanh(a, a)
        np.dot(h[-1], Wo, z), np.add(z, bo, z), np.subtract(z, y, z)
        value = np.dot(z[:, 0], z[:, 0]) / n
        np.multiply(z, two, z)
        np.dot(h[-1].T, z, dWo), np.dot(ones, z, dbo), np.dot(z, Wo.T, d)
        g, below = d, e
        for now in reversed(range(steps)):
            np.multiply(h[now + 1], h[now + 1], u), np.subtract(one, u, u), np.multiply(g, u, g)
            into = (dWx, dWh, db) if now == steps - 1 else more
            np.dot(x[now].T, g, into[0]), np.dot(h[now].T, g, into[1]), np.dot(ones, g, into[2])
            if into is more:
                for total, part in zip((dWx, dWh, db), more):
                    np.add(total, part, total)
            if now:
                np.dot(g, Wh.T, below)
                g, below = below, g
        for p, q in zip((Wx, Wh, b, Wo, bo), grads):
            np.multiply(q, lr, q), np.subtract(p, q, p)
        return value

    return step, loss, model, (x, y)


def main(rounds=15, seconds=0.03):
    on_one_core()
    for make in (tanh_single, gelu_classes, normalised, recurrent):
        step, loss, model, datum = make()
        ps, hot, opt = flux.params(model), flux.compiled(loss), flux.SGD(float(LR))
        theirs = [float(step()) for _ in range(3)]
        ours = flux.train_(loss, ps, [datum] * 3, opt).losses
        assert np.allclose(theirs, ours, rtol=1e-4), f"the steps differ: {theirs} and {ours}"
        ways = {
            "by hand": lambda n, step=step: [step() for _ in range(n)],
            "compiled": lambda n, a=(hot, ps), d=datum, o=opt: flux.train_(*a, [d] * n, o),
            "eager": lambda n, a=(loss, ps), d=datum, o=opt: flux.train_(*a, [d] * n, o),
        }
        report(make.__name__, in_turn(ways, rounds, seconds))


if __name__ == "__main__":
    main()
