"""Gradients of whole networks, against the complex step through the same network in plain NumPy.

The oracle is written out by hand, in longdouble, and exact to its last digit; the bound is in
units in the last place of the largest gradient (measured: at most 2.2).
"""

import numpy as np
import pytest

import tinyflux as flux
from tests.suites import a_third, only
from tests.test_values_extremes import wider
from tinyflux import losses

pytestmark = wider
SIZES, ROWS, STEP = (4, 5, 3), 6, np.longdouble(1e-100)
BOUND = 6
both = pytest.mark.parametrize("dtype", only([np.float32], [np.float32, np.float64]))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def softplus(z):
    return np.log(1 + np.exp(z))


def log_softmax(z):
    z = z - z.real.max(axis=-1, keepdims=True)
    return z - np.log(np.sum(np.exp(z), axis=-1, keepdims=True))


WIDTH, CUBE = (
    np.sqrt(2 / np.longdouble("3.14159265358979323846264338327950288")),
    np.longdouble("0.044715"),
)
ACTIVATIONS = {
    "identity": lambda z: z,
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "relu": lambda z: z * (z.real > 0),
    "leakyrelu": lambda z: z * np.where(z.real > 0, 1, np.longdouble(0.01)),
    "elu": lambda z: np.where(z.real > 0, z, np.exp(z) - 1),
    "selu": lambda z: np.where(z.real > 0, z, 1.6732632423543772 * (np.exp(z) - 1))
    * 1.0507009873554805,
    "gelu": lambda z: z / 2 * (1 + np.tanh(WIDTH * (z + CUBE * z**3))),
    "swish": lambda z: z * sigmoid(z),
    "mish": lambda z: z * np.tanh(softplus(z)),
    "softplus": softplus,
    "logsigmoid": lambda z: -softplus(-z),
    "celu": lambda z: np.where(z.real > 0, z, np.exp(z) - 1),
    "logcosh": lambda z: np.log(np.cosh(z)),
    "softsign": lambda z: z / (1 + absolute(z)),
    "lisht": lambda z: z * np.tanh(z),
    "tanhshrink": lambda z: z - np.tanh(z),
    "hardswish": lambda z: np.where(z.real > 3, z, (z.real > -3) * z * (z + 3) / 6),
    "softshrink": lambda z: np.where(absolute(z).real > 0.5, z - 0.5 * np.sign(z.real), 0),
    "trelu": lambda z: z * (z.real > 1),
    "softmax": lambda z: np.exp(log_softmax(z)),
    "logsoftmax": log_softmax,
}  # fmt: skip


def absolute(z):
    return z * np.sign(z.real)


def huber(p, y):
    e = absolute(p - y)
    return np.where(e.real < 1, e * e / 2, e - 0.5)


def tversky(p, y, beta):
    found, extra, missed = np.sum(p * y), np.sum(p * (1 - y)), np.sum((1 - p) * y)
    return 1 - (found + 1) / (found + beta * extra + (1 - beta) * missed + 1)


def binary_focal(p, y, eps):
    p = y * p + (1 - y) * (1 - p)
    return -((1 - p) ** 2) * np.log(p + eps)


# Loss: (formula for each observation, the activation of the last layer, whether y are labels).
LOSSES = {
    "mse": (lambda p, y, eps: (p - y) ** 2, "identity", False),
    "mae": (lambda p, y, eps: absolute(p - y), "identity", False),
    "huber_loss": (lambda p, y, eps: huber(p, y), "identity", False),
    "msle": (lambda p, y, eps: (np.log(p + eps) - np.log(y + eps)) ** 2, "sigmoid", False),
    "poisson_loss": (lambda p, y, eps: p - y * np.log(p), "softplus", False),
    "focal_loss": (
        lambda p, y, eps: -np.sum(y * (1 - p) ** 2 * np.log(p + eps), axis=-1), "softmax", True
    ),
    "binary_focal_loss": (lambda p, y, eps: binary_focal(p, y, eps), "sigmoid", True),
    "siamese_contrastive_loss": (
        lambda p, y, eps: (1 - y) * p**2 + y * (p.real < 1) * (1 - p) ** 2, "softplus", True
    ),
    "hinge_loss": (lambda p, y, eps: (p.real * y < 1) * (1 - p * y), "identity", False),
    "squared_hinge_loss": (
        lambda p, y, eps: (p.real * y < 1) * (1 - p * y) ** 2, "identity", False
    ),
    "dice_coeff_loss": (
        lambda p, y, eps: 1 - (2 * np.sum(y * p) + 1) / (np.sum(y**2) + np.sum(p**2) + 1),
        "sigmoid", True,
    ),
    "tversky_loss": (lambda p, y, eps: tversky(p, y, np.longdouble(0.7)), "sigmoid", True),
    "crossentropy": (lambda p, y, eps: -np.sum(y * np.log(p + eps), axis=-1), "softmax", True),
    "kldivergence": (lambda p, y, eps: -np.sum(y * np.log(p + eps), axis=-1), "softmax", True),
    "logitcrossentropy": (lambda p, y, eps: -np.sum(y * log_softmax(p), axis=-1), "identity", True),
    "binarycrossentropy": (
        lambda p, y, eps: -y * np.log(p + eps) - (1 - y) * np.log(1 - p + eps), "sigmoid", True
    ),
    "logitbinarycrossentropy": (
        lambda p, y, eps: (1 - y) * softplus(p) + y * softplus(-p), "identity", True
    ),
}  # fmt: skip


class Network:
    """A chain and what it is trained on, and the gradient of its loss by the complex step."""

    def __init__(self, activation, loss, dtype, bias=True):
        rng = np.random.default_rng(sum(map(ord, activation + loss)))
        formula, last, self.classes = LOSSES[loss]
        names = [activation] * (len(SIZES) - 2) + [last]
        layers = [
            flux.Dense(n, m, getattr(flux, name), bias=bias)
            for n, m, name in zip(SIZES, SIZES[1:], names, strict=False)
        ]
        self.m = flux.testmode_(flux.Chain(*[f for l in layers for f in (l, flux.Dropout(0.5))]))
        self.ps = flux.params(self.m)
        for p in self.ps:
            p.data = rng.uniform(-1, 1, p.shape).astype(dtype)
        self.x = rng.standard_normal((ROWS, SIZES[0])).astype(dtype)
        shape = (ROWS, SIZES[-1])
        y = np.eye(3)[rng.integers(0, 3, ROWS)] if self.classes else rng.uniform(0.1, 0.9, shape)
        self.y = y.astype(dtype)
        self.loss = lambda: getattr(losses, loss)(self.m(self.x), self.y)
        self.by_hand = lambda arrays: self.value(arrays, names, formula, np.finfo(dtype).eps, bias)

    def value(self, arrays, names, formula, eps, bias):
        """The loss in plain NumPy."""
        h, y = self.x.astype(np.clongdouble), self.y.astype(np.longdouble)
        arrays = iter(arrays)
        for name in names:
            h = h @ next(arrays)
            h = ACTIVATIONS[name](h + next(arrays) if bias else h)
        return np.mean(formula(h, y, np.longdouble(eps)))

    def slopes(self):
        """The derivative of the loss towards every element of every parameter."""
        arrays = [p.data.astype(np.clongdouble) for p in self.ps]
        found = []
        for a in arrays:
            g = np.zeros(a.shape, np.longdouble)
            for place in np.ndindex(a.shape):
                kept = a[place]
                a[place] = kept + 1j * STEP
                g[place] = self.by_hand(arrays).imag / STEP
                a[place] = kept
            found.append(g)
        return found


def ulps(found, wanted, dtype):
    """The largest error, in units in the last place of the largest gradient."""
    size = max(np.max(np.abs(w)) for w in wanted)
    error = max(np.max(np.abs(g - w)) for g, w in zip(found, wanted, strict=True))
    return float(error / size) / np.finfo(dtype).eps


CASES = [(a, "mse") for a in ACTIVATIONS] + [("tanh", loss) for loss in LOSSES if loss != "mse"]
CASES += [("relu", "logitcrossentropy"), ("gelu", "crossentropy"), ("mish", "huber_loss")]


@pytest.mark.parametrize("case", a_third(CASES), ids="-".join)
@both
def test_gradients_of_a_network(case, dtype):
    net = Network(*case, dtype)
    wanted = net.slopes()
    value, gs = flux.withgradient(net.loss, net.ps)
    assert value.dtype == dtype and all(g.dtype == dtype for g in gs.values())
    assert abs(value - net.by_hand([p.data for p in net.ps]).real) <= 8 * np.finfo(dtype).eps * max(
        1, abs(value)
    )
    assert ulps(gs.values(), wanted, dtype) < BOUND
    hot = flux.compiled(net.loss)
    for _ in range(2):
        assert ulps(flux.withgradient(hot, net.ps)[1].values(), wanted, dtype) < BOUND


@both
def test_gradients_without_bias_and_with_labels(dtype):
    net = Network("sigmoid", "logitcrossentropy", dtype, bias=False)
    wanted = net.slopes()
    labels = net.y.argmax(axis=-1)
    for y in (labels, labels.tolist(), net.y):
        gs = flux.gradient(lambda: losses.logitcrossentropy(net.m(net.x), y), net.ps)  # noqa: B023
        assert ulps(gs.values(), wanted, dtype) < BOUND


@both
def test_a_gradient_of_the_sum_is_that_of_the_mean_times_the_number(dtype):
    """The other way to aggregate goes through other rules: both against the same oracle."""
    for loss in LOSSES:
        if loss in ("dice_coeff_loss", "tversky_loss"):  # one number as they are
            continue
        net = Network("tanh", loss, dtype)
        number = (
            ROWS
            if loss in ("crossentropy", "kldivergence", "logitcrossentropy", "focal_loss")
            else net.y.size
        )
        f = getattr(losses, loss)
        gs = flux.gradient(lambda: f(net.m(net.x), net.y, agg=np.sum), net.ps)  # noqa: B023
        found = [g / dtype(number) for g in gs.values()]
        assert ulps(found, net.slopes(), dtype) < 2 * BOUND
