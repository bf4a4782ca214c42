"""Training steps of three dense networks: by hand in NumPy, tinyflux, PyTorch and JAX.

    python tests/benchmarks/steps.py [2-16-16-1 ...]
    OPENBLAS_NUM_THREADS=2 python tests/benchmarks/steps.py

A step is loss, gradients and an update by ADAM, in float32. The one by hand is in-place NumPy: each
array is laid out beforehand, all parameters stand in one vector, and the update goes through it
in blocks that stay in the cache. Before anything is timed, all ways have to find the same losses.
PyTorch and JAX take part if they are installed.
"""

import os
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from functools import partial
from itertools import pairwise
from math import sqrt

import numpy as np
from timing import in_turn, on_one_core, report

import tinyflux as flux
from tinyflux import losses

THREADS = int(os.environ["OPENBLAS_NUM_THREADS"])
LR, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8
BLOCK = 16384  # elements
NETWORKS = {  # sizes, activation, loss, batch size
    "2-16-16-1": ("relu", "mse", 100),
    "784-32-10": ("sigmoid", "logitcrossentropy", 128),
    "784-512-512-10": ("relu", "logitcrossentropy", 128),
}


class Problem:
    """A network with its first weights, and one batch of data."""

    def __init__(self, name):
        self.sizes = [int(size) for size in name.split("-")]
        self.activation, self.loss, self.batch = NETWORKS[name]
        rng = np.random.default_rng(0)
        normal = partial(rng.standard_normal, dtype="f4")
        self.weights = [normal((i, o)) * np.float32(sqrt(2 / (i + o))) for i, o in self.edges]
        self.x = normal((self.batch, self.sizes[0]))
        self.y = normal((self.batch, self.sizes[-1]))
        if self.loss != "mse":
            classes = rng.integers(0, self.sizes[-1], self.batch)
            self.y = np.eye(self.sizes[-1], dtype="f4")[classes]

    @property
    def edges(self):
        return list(pairwise(self.sizes))


# --------------------------------------------------------------------------------- by hand


def by_hand(problem):
    """The step as one writes it who counts every pass over the memory, and every call."""
    n, batch, y = len(problem.weights), problem.batch, problem.y
    flat, grad, mean, square = (
        np.zeros(sum(i * o + o for i, o in problem.edges), "f4") for _ in range(4)
    )
    W, b = zip(*parts(flat, problem.edges))
    dW, db = zip(*parts(grad, problem.edges))
    for w, start in zip(W, problem.weights):
        w[...] = start
    h = [problem.x, *(np.empty((batch, o), "f4") for _, o in problem.edges)]
    d = [np.empty_like(a) for a in h]
    mask = [np.empty(a.shape, bool) for a in h]
    W_T, h_T = [w.T for w in W], [a.T for a in h]
    out, d_out, flat_y = h[n].reshape(-1), d[n].reshape(-1), y.reshape(-1)
    column, ones, work = np.empty((batch, 1), "f4"), np.ones(batch, "f4"), np.empty(BLOCK, "f4")
    places = [slice(at, at + BLOCK) for at in range(0, len(flat), BLOCK)]
    blocks = [(flat[p], grad[p], mean[p], square[p], work[: len(flat[p])]) for p in places]
    number = {v: np.array(v, "f4") for v in (0, 1, 0.5, 1 / batch, 2 / y.size)}
    old1, old2, new1, new2 = (np.array(v, "f4") for v in (BETA1, BETA2, 1 - BETA1, 1 - BETA2))
    zero, one, half = number[0], number[1], number[0.5]
    multiply, add, subtract, matmul, dot = np.multiply, np.add, np.subtract, np.matmul, np.dot
    t = 0

    def relu(a):
        np.maximum(a, zero, out=a)

    def through_relu(g, a, positive):
        np.greater(a, zero, positive), multiply(g, positive, g)

    def sigmoid(a):
        multiply(a, half, a), np.tanh(a, a), multiply(a, half, a), add(a, half, a)

    def through_sigmoid(g, a, _):
        multiply(g, a, g), subtract(one, a, a), multiply(g, a, g)

    def mse():
        subtract(out, flat_y, d_out)
        value = dot(d_out, d_out) / y.size
        multiply(d_out, number[2 / y.size], d_out)
        return value

    def cross_entropy():
        z, g = h[n], d[n]
        np.maximum.reduce(z, axis=1, out=column, keepdims=True), subtract(z, column, z)
        np.exp(z, g), np.add.reduce(g, axis=1, out=column, keepdims=True), np.divide(g, column, g)
        value = (np.log(column).sum() - dot(out, flat_y)) / batch
        subtract(g, y, g), multiply(g, number[1 / batch], g)
        return value

    activate = {"relu": relu, "sigmoid": sigmoid}[problem.activation]
    through = {"relu": through_relu, "sigmoid": through_sigmoid}[problem.activation]
    loss = mse if problem.loss == "mse" else cross_entropy

    def update():
        fade1, fade2 = 1 - BETA1**t, 1 - BETA2**t
        rate = np.array(LR * sqrt(fade2) / fade1, "f4")
        eps = np.array(EPS * sqrt(fade2), "f4")
        for x, g, m, v, u in blocks:
            multiply(m, old1, m), multiply(g, new1, u), add(m, u, m)
            multiply(g, g, u), multiply(u, new2, u), multiply(v, old2, v), add(v, u, v)
            np.sqrt(v, u), add(u, eps, u), np.divide(m, u, u), multiply(u, rate, u)
            subtract(x, u, x)

    def step():
        nonlocal t
        for k in range(n):
            matmul(h[k], W[k], h[k + 1]), add(h[k + 1], b[k], h[k + 1])
            if k < n - 1:
                activate(h[k + 1])
        value = loss()
        for k in reversed(range(n)):
            matmul(h_T[k], d[k + 1], dW[k]), dot(ones, d[k + 1], db[k])
            if k:
                matmul(d[k + 1], W_T[k], d[k]), through(d[k], h[k], mask[k])
        t += 1
        update()
        return value

    return lambda times: [step() for _ in range(times)]


def parts(flat, edges):
    """Weight and bias of each layer, as views of one vector."""
    at = 0
    for i, o in edges:
        yield flat[at : at + i * o].reshape(i, o), flat[at + i * o : at + i * o + o]
        at += i * o + o


# --------------------------------------------------------------------------------- frameworks


def with_tinyflux(problem, wrap=lambda loss: loss):
    """Eager; compiled with `wrap=flux.compiled`."""
    hidden = getattr(flux, problem.activation)
    layers = [flux.Dense(i, o, hidden) for i, o in problem.edges[:-1]]
    model = flux.Chain(*layers, flux.Dense(*problem.edges[-1]))
    for layer, w in zip(model.layers, problem.weights):
        layer.weight.data[...] = w
    of, ps, opt = getattr(losses, problem.loss), flux.params(model), flux.ADAM(LR)
    loss = wrap(lambda x, y: of(model(x), y))
    return lambda times: flux.train_(loss, ps, [(problem.x, problem.y)] * times, opt).losses


def with_torch(problem):
    """PyTorch, with its fused ADAM."""
    import torch

    torch.set_num_threads(THREADS)
    hidden = {"relu": torch.nn.ReLU, "sigmoid": torch.nn.Sigmoid}[problem.activation]
    linear = [torch.nn.Linear(i, o) for i, o in problem.edges]
    with torch.no_grad():
        for layer, w in zip(linear, problem.weights):
            layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(w.T)))
            layer.bias.zero_()
    layers = [layer for one in linear[:-1] for layer in (one, hidden())]
    model = torch.nn.Sequential(*layers, linear[-1])
    opt = torch.optim.Adam(model.parameters(), LR, (BETA1, BETA2), EPS, fused=True)
    x, y = torch.from_numpy(problem.x), torch.from_numpy(problem.y)
    of = torch.nn.functional.mse_loss
    if problem.loss != "mse":
        y, of = y.argmax(1), torch.nn.functional.cross_entropy

    def step():
        opt.zero_grad()
        value = of(model(x), y)
        value.backward()
        opt.step()
        return value.item()

    return lambda times: [step() for _ in range(times)]


def with_jax(problem):
    """JAX: the whole step under `jit`, its arguments donated."""
    import jax
    import jax.numpy as jnp

    hidden = getattr(jax.nn, problem.activation)

    def loss(ps, x, y):
        for w, b in ps[:-1]:
            x = hidden(x @ w + b)
        w, b = ps[-1]
        out = x @ w + b
        if problem.loss == "mse":
            return jnp.mean((out - y) ** 2)
        return -jnp.mean(jnp.sum(jax.nn.log_softmax(out) * y, axis=1))

    def advance(state, x, y):
        ps, ms, vs, t = state
        value, gs = jax.value_and_grad(loss)(ps, x, y)
        ms = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, ms, gs)
        vs = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, vs, gs)
        rate, root = LR / (1 - BETA1**t), 1 / jnp.sqrt(1 - BETA2**t)
        ps = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) * root + EPS), ps, ms, vs)
        return value, (ps, ms, vs, t + 1)

    advance = jax.jit(advance, donate_argnums=0)
    zeros = [(jnp.zeros(edge), jnp.zeros(edge[1])) for edge in problem.edges]
    ps = [(jnp.array(w), jnp.zeros(w.shape[1])) for w in problem.weights]
    state = ps, zeros, jax.tree.map(jnp.copy, zeros), jnp.float32(1)

    def run(times):
        nonlocal state
        values = []
        for _ in range(times):
            value, state = advance(state, problem.x, problem.y)
            values.append(float(value))
        return values

    return run


# --------------------------------------------------------------------------------- measuring


WAYS = {
    "by hand": by_hand,
    "tinyflux": with_tinyflux,
    "tinyflux, compiled": partial(with_tinyflux, wrap=flux.compiled),
    "PyTorch": with_torch,
    "JAX jit": with_jax,
}


def installed(name):
    """Every way there is here to make a step of this network."""
    found = {}
    for title, make in WAYS.items():
        try:
            found[title] = make(Problem(name))
        except ImportError:
            print(f"{name:20} {title:18} is not installed")
    return found


def agree(found):
    """All ways have to find the same losses in their first ten steps."""
    values = {title: [float(v) for v in run(10)] for title, run in found.items()}
    first, *others = values.values()
    if not all(np.allclose(first, other, rtol=5e-5) for other in others):
        raise AssertionError(f"the steps differ: {values}")


def main(networks=(), rounds=15, seconds=0.1):
    if THREADS == 1:
        on_one_core()
    for name in networks or NETWORKS:
        found = installed(name)
        agree(found)
        report(name, in_turn(found, rounds, seconds))


if __name__ == "__main__":
    main(sys.argv[1:])
