"""What the laws need: operands for every declared operation, and independent derivatives."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinyflux  # noqa: F401  (declares the operations)
from tests.suites import QUICK
from tinyflux.primitive import OPERATIONS, Sample
from tinyflux.tensor import Tensor

# fmt: off
COMPLEX_UFUNCS = {
    np.add, np.subtract, np.multiply, np.divide, np.negative, np.positive, np.exp, np.exp2,
    np.expm1, np.log, np.log2, np.log10, np.log1p, np.sin, np.cos, np.tan, np.sinh, np.cosh,
    np.tanh,
    np.square, np.sqrt, np.reciprocal, np.arctan, np.arcsin, np.arccos, np.arcsinh, np.arctanh,
}
# fmt: on


def declared():
    """Every operation once, by a name that tells same-named ones apart."""
    found = {}
    for operation in OPERATIONS.values():
        module = getattr(operation.public, "__module__", "") or ""
        name = f"{'linalg.' if 'linalg' in module else ''}{operation.name}"
        if operation.samples != ():
            found.setdefault(name, operation)
    return found


def arity(operation):
    return len(operation.rules) or getattr(operation.public, "nin", 1)


@st.composite
def shapes_for(draw, operation):
    """Shapes that broadcast against each other, of sizes 0 to 4 on 0 to 3 axes."""
    n = arity(operation)
    if n == 1:
        return (draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)),)
    return draw(
        hnp.mutually_broadcastable_shapes(num_shapes=n, min_side=0, max_side=3, max_dims=3)
    ).input_shapes


def samples_of(operation, draw=None):
    """The samples of a declaration; for an elementwise one a drawn one."""
    if operation.samples is not None:
        return list(operation.samples)
    shapes = draw(shapes_for(operation)) if draw else ((2, 3),) * arity(operation)
    return [Sample(tuple(shapes), lambda f, *arrays: f(*arrays))]


# Shapes of one or two operands: broadcast, without axes, as they are, without elements.
SHAPES = [
    ((2, 3), (3,)), ((), (2,)), ((2, 3), (2, 3)), ((), ()), ((0, 2), (1, 2)), ((2, 1), (1, 4)),
]  # fmt: skip


def fixed_samples_of(operation):
    """The samples of a declaration; for an elementwise one those of `SHAPES`."""
    if operation.samples is not None:
        return list(operation.samples)
    n = arity(operation)
    return [Sample(shapes[:n], lambda f, *arrays: f(*arrays)) for shapes in SHAPES]


def law(n):
    """A test (name, data) of every operation: on fixed samples, where data is None.

    And on `n` drawn ones, for which the quick suite has no time. Hypothesis is given a function
    of one line, for it reads the source again for each operation.
    """

    def wrap(test):
        @settings(max_examples=n, deadline=None, derandomize=True)
        @given(data=st.data())
        @example(data=None)
        def drawn(name, data):
            test(name, data)

        def fixed(name):
            test(name, None)

        found = fixed if QUICK else drawn
        found.__name__, found.__doc__ = test.__name__, test.__doc__
        return found

    return wrap


def operands(operation, shapes, rng, dtype=np.float64):
    """Arrays in the domain of the operation."""
    domain = operation.domain
    if callable(domain):
        return [np.asarray(domain(rng, shape), dtype) for shape in shapes]
    sizes = [int(np.prod(shape, dtype=int)) for shape in shapes]
    low, high = domain  # no two elements near each other, none near 0: off every kink
    lattice = np.linspace(low, high, 2 * sum(sizes) + 2)[1:-1:2]
    lattice = lattice + rng.uniform(0, 0.01, sum(sizes))  # and no two sums of them equal
    parts = np.split(rng.permutation(lattice), np.cumsum(sizes)[:-1])
    return [np.reshape(p, shape).astype(dtype) for p, shape in zip(parts, shapes, strict=True)]


def differences(f, x, direction, h=2e-4):
    """df/dt of f(x + t direction) at 0, by central differences of order 6."""
    weights = {1: 45, 2: -9, 3: 1}
    total = 0.0
    for k, w in weights.items():
        ahead = f(*[a + k * h * d for a, d in zip(x, direction, strict=True)])
        behind = f(*[a - k * h * d for a, d in zip(x, direction, strict=True)])
        total = total + w * (np.asarray(ahead) - np.asarray(behind))
    return total / (60 * h)


def agrees_with_differences(got, f, x, direction, rtol, atol):
    """`got` is df/dt; the smaller steps are for an x that is close to a kink."""
    for h in (2e-4, 2e-5, 2e-6, 2e-7):
        wanted = differences(f, x, direction, h)
        if np.allclose(got, wanted, rtol, atol):
            return
    np.testing.assert_allclose(got, wanted, rtol=rtol, atol=atol)


def numbers(tree):
    """A result (an array, or a tuple or list of them) as one array."""
    return tree.data if isinstance(tree, Tensor) else np.asarray(tree)
