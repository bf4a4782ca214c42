"""Random programs: a list of whole numbers, read as NumPy code on values of any shape."""

import numpy as np

import tinyflux as flux
from tinyflux import losses


class Random:
    """Numbers from a list, one after another, so that a program is a function of that list."""

    def __init__(self, numbers):
        self.numbers, self.k = numbers, 0

    def below(self, n):
        self.k += 1
        return self.numbers[self.k % len(self.numbers)] * (self.k // len(self.numbers) + 1) % n

    def one_of(self, things):
        things = list(things)
        return things[self.below(len(things))]


UNARY = [
    np.tanh, np.sin, np.abs, np.negative, flux.relu, flux.sigmoid, flux.gelu, flux.softplus,
    flux.elu, flux.swish, flux.hardtanh, flux.leakyrelu, np.sign,
    lambda a: np.exp(-np.abs(a)), lambda a: np.sqrt(1 + a * a), lambda a: np.log1p(np.square(a)),
    lambda a: np.clip(a, -0.5, 0.7), lambda a: (a > 0.1) * a, lambda a: a**3 / 10, lambda a: 2 * a,
    lambda a: np.where(a > 0, a, 0.1), lambda a: (a * 0.5) * 3, lambda a: flux.detach(a) * 0.5 + a,
    lambda a: a.astype(np.float32).astype(np.float64), lambda a: np.positive(a),
    lambda a: 1 / (2 + a * a),
    lambda a: np.floor(3 * a) + a, lambda a: np.minimum(a, a[::-1]) if np.ndim(a) else a,
    lambda a: a * np.float64(1.5), lambda a: a - a.mean(), lambda a: np.isfinite(a) * a,
    lambda a: flux.gradient(lambda t: np.sum(np.tanh(t) * t), a)[0],
]  # fmt: skip
BINARY = [
    np.add, np.subtract, np.multiply, np.maximum, np.minimum, np.hypot, np.logaddexp,
    lambda a, b: a / (1 + b * b), lambda a, b: np.where(a > b, a, b), lambda a, b: a * (b > 0),
    lambda a, b: np.arctan2(a, 2 + b * b), lambda a, b: (0.5 + np.abs(a)) ** np.tanh(b),
    lambda a, b: np.where(np.logical_and(a > 0, b < 0.5), a * b, np.sin(b)),
    lambda a, b: a + (a == b) * b, lambda a, b: np.select([a > 0.5, b > 0], [a, b], 0.25),
]  # fmt: skip
REDUCE = [np.sum, np.mean, np.max, np.min, np.std, np.var, np.prod, flux.logsumexp]
SHAPE = [
    np.ravel, np.transpose, lambda a: a.T.reshape(-1), lambda a: np.expand_dims(a, 0),
    lambda a: a[..., None], lambda a: a.reshape(-1, 1), lambda a: np.ravel(a, order="F"),
    lambda a: np.reshape(a.T, a.shape), lambda a: np.swapaxes(a, 0, -1), lambda a: np.flip(a, 0),
    lambda a: np.moveaxis(a, 0, -1), np.squeeze, lambda a: np.roll(a, 1),
    lambda a: np.broadcast_to(a, (2, *np.shape(a))) if np.size(a) < 60 else a,
]  # fmt: skip
INDEX = [
    lambda a: a[0], lambda a: a[-1:], lambda a: a[::-1], lambda a: a[..., 0],
    lambda a: a[[0, -1, 0]],
    lambda a: a[..., [0, 0]], lambda a: a[np.arange(np.shape(a)[0]) % 2 == 0], lambda a: a[None],
    lambda a: a[..., ::-2], lambda a: a[np.argmax(a, axis=0)] if np.size(a) < 60 else a, np.sort,
    lambda a: np.take_along_axis(a, np.argsort(a, axis=-1), axis=-1), lambda a: np.cumsum(a, -1),
    lambda a: np.take(a, np.argmin(a, axis=0), axis=0) if np.size(a) < 60 else a,
]  # fmt: skip
JOIN = [
    lambda a, b: np.concatenate([np.ravel(a), np.ravel(b)]), lambda a, b: np.hstack([a, a]),
    lambda a, b: np.stack([a, -a], axis=-1), lambda a, b: np.concatenate([a, a[:1]], axis=0),
    lambda a, b: np.outer(np.ravel(a)[:5], np.ravel(b)[:5]), lambda a, b: np.vstack([a, 2 * a]),
]  # fmt: skip
CLASSES = [flux.softmax, flux.logsoftmax, lambda a: a / (1 + np.linalg.norm(a))]


def layers():
    """Dense layers from 3 to 4 features and back, with activations of all kinds."""
    activations = [flux.relu, np.tanh, flux.gelu, flux.sigmoid, flux.identity, flux.softmax, np.sin]
    sizes = [(3, 4), (4, 3)]
    init = lambda *shape: flux.glorot_uniform(*shape).astype(np.float64)
    return [
        flux.Dense(*size, f, bias=i % 3 > 0, init=init)
        for i, f in enumerate(activations)
        for size in sizes
    ]


def materials(seed):
    """What programs are made of: a generator, weights, and dense layers."""
    rng = np.random.default_rng(seed)
    return rng, [flux.Tensor(rng.standard_normal(s)) for s in [(3, 4), (4,), ()]], layers()


def grow(values, random, dense):
    """One more value, made from those that there are."""
    kind = random.below(12)
    a, b = random.one_of(values), random.one_of(values)
    axes = np.ndim(a) > 0 and np.size(a) > 0
    if kind < 3 or not axes:
        return random.one_of(UNARY)(a)
    if kind < 6:
        try:
            np.broadcast_shapes(np.shape(a), np.shape(b))
        except ValueError:
            b = random.one_of(np.ravel(b)[:1].reshape(()) for _ in range(1))
        return random.one_of(BINARY)(a, b)
    if kind == 6:
        f, axis = random.one_of(REDUCE), random.one_of([-1, 0, *range(np.ndim(a))])
        return f(a / 2, axis=axis, keepdims=bool(random.below(2)))
    if kind == 7:
        return random.one_of(SHAPE)(a)
    if kind == 8:
        return random.one_of(INDEX)(a)
    if kind == 9:
        return random.one_of(JOIN)(a, b)
    if kind == 10:
        return random.one_of(CLASSES)(a)
    if np.shape(a)[-1] in (3, 4):
        return random.one_of(d for d in dense if d.weight.shape[0] == np.shape(a)[-1])(a)
    fitting = [v for v in values if np.ndim(v) in (1, 2) and len(v) == np.shape(a)[-1]]
    return np.matmul(a, random.one_of(fitting)) / 3 if fitting else np.tanh(a)


def grown(random, numbers, weights, dense, x, c, mask):
    """The values of the program that a list of whole numbers stands for."""
    values = [x, c, *weights, np.where(mask[:, None], x, 0.5)]
    for _ in range(3 + len(numbers)):
        new = grow(values, random, dense)
        if np.size(new) and np.size(new) < 400:
            values.append(new)
    return values


def model(numbers, weights, dense):
    """Such a program that returns its last array."""

    def run(x, c, mask):
        values = grown(Random(numbers), numbers, weights, dense, x, c, mask)
        return [v for v in values if np.ndim(v)][-1] * 0.5

    return run


def program(numbers, weights, dense):
    """Such a program that ends in a loss."""

    def loss(x, c, labels, mask):
        random = Random(numbers)
        values = grown(random, numbers, weights, dense, x, c, mask)
        wide = [v for v in values if np.shape(v) in ((5, 3), (5, 4))]
        total = losses.logitcrossentropy(random.one_of(wide), labels)
        for v in values[-3:]:
            total = total + np.mean(np.tanh(v))
        same = [v for v in values if np.shape(v) == np.shape(values[-1])]
        return total + losses.mse(values[-1], random.one_of(same))

    return loss
