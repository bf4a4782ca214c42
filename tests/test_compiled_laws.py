"""Compiled equals eager, for every declared operation, from the samples in its declaration."""

import numpy as np
import pytest

import tinyflux as flux
from tests.compiling import agree, agree_all, buffers, poison, separate, steady
from tests.laws import declared, fixed_samples_of, operands
from tests.suites import a_third, either, only
from tinyflux.compiled import compiled

EVERY = declared()
every_operation = pytest.mark.parametrize("name", EVERY)
some = pytest.mark.parametrize("name", only([*EVERY][::9], EVERY))  # in the quick suite
DTYPES = [np.float64, np.float32]
RTOL = {np.float64: 1e-12, np.float32: 1e-5}
# Where a sum is computed as a product with ones: the last bit may be another one.
BY_PRODUCT = {"var", "std", "average", "dot", "linalg.norm", "linalg.vector_norm"}


def cases(name, dtype=np.float64, most=99, quick=1):
    """(function, several lists of inputs of one signature, rng) for every sample."""
    operation = EVERY[name]
    rng = np.random.default_rng(sum(map(ord, name)))
    for sample in fixed_samples_of(operation)[: either(most, quick)]:
        inputs = [operands(operation, sample.shapes, rng, dtype) for _ in range(either(3, 2))]
        yield (lambda *a, s=sample: s.call(operation.public, *a)), inputs, rng


def weighted(run, x, rng):
    """A loss made of a function: its elements with random weights."""
    value = np.asarray(run(*x))
    weights = rng.standard_normal(value.shape).astype(value.dtype)
    return lambda *a: np.sum(run(*a) * weights)


@some
def test_values_equal_those_of_numpy_bit_for_bit(name):
    for run, inputs, _ in cases(name, quick=2):
        hot = compiled(run)
        for x in inputs:
            agree(hot(*x), run(*x), 1e-12 if name in BY_PRODUCT else 0)
            poison(hot)


@pytest.mark.parametrize("name", a_third(EVERY))
@pytest.mark.parametrize("dtype", only([np.float64], DTYPES))
def test_gradients_towards_arguments_equal_eager_ones(name, dtype):
    for run, inputs, rng in cases(name, dtype):
        loss = weighted(run, inputs[0], rng)
        hot = compiled(loss)
        for x in inputs:
            kept = [a.copy() for a in x]
            value, wanted = flux.withgradient(loss, *x)
            got, found = flux.withgradient(hot, *x)
            agree(got, value, RTOL[dtype])
            agree_all(found, wanted, RTOL[dtype])
            agree_all(x, kept)
            poison(hot)


@pytest.mark.slow
@every_operation
def test_gradients_towards_parameters_equal_eager_ones(name):
    for run, inputs, rng in cases(name):
        tensors = [flux.Tensor(a) for a in inputs[0]]
        ps = flux.Params(tensors)
        weigh = weighted(run, inputs[0], rng)
        loss = lambda weigh=weigh, tensors=tensors: weigh(*tensors)
        hot = compiled(loss)
        once = steady(hot)
        for x in inputs:
            for t, a in zip(tensors, x, strict=True):
                t.data[...] = a  # in place, as an optimiser does it
            value, wanted = flux.withgradient(loss, ps)
            got, found = flux.withgradient(hot, ps)
            agree(got, value, 1e-12)
            agree_all(found.values(), wanted.values(), 1e-12)
            once()
            poison(hot)
            agree_all([t.data for t in tensors], x)


@some
def test_results_belong_to_the_caller_alone(name):
    for run, inputs, rng in cases(name, most=2):
        hot, loss = compiled(run), compiled(weighted(run, inputs[0], rng))
        x = inputs[0]
        first = [hot(*x)]
        got, found = flux.withgradient(loss, *x)
        first += [got, *(g for g in found if g is not None)]
        kept = [np.array(a) for a in first]
        separate(first, x, buffers(hot), buffers(loss))
        for other in inputs[1:]:
            hot(*other)
            flux.withgradient(loss, *other)
        agree_all(first, kept)  # later calls change nothing that was handed out
        for a in first:
            if isinstance(a, np.ndarray):
                a.fill(7)
        agree(hot(*x), kept[0])  # nor does the caller change anything here
        agree_all([g for g in flux.withgradient(loss, *x)[1] if g is not None], kept[2:])


@some
def test_layout_of_the_arguments_does_not_matter(name):
    for run, inputs, rng in cases(name, most=2):
        loss = weighted(run, inputs[0], rng)
        hot = compiled(loss)
        once = steady(hot)
        for x in inputs[:1]:
            wanted = flux.withgradient(loss, *x)[1]
            wide = [np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a for a in x]
            for others in (x, wide, [np.asfortranarray(a) if a.ndim else a for a in x]):
                agree_all(flux.withgradient(hot, *others)[1], wanted, 1e-12)
                once()
