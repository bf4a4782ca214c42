"""The laws that every declared operation obeys, from the samples in its declaration."""

import copy

import numpy as np
import pytest
from hypothesis import strategies as st

import tinyflux as flux
from tests.laws import (
    COMPLEX_UFUNCS,
    agrees_with_differences,
    declared,
    fixed_samples_of,
    law,
    operands,
    samples_of,
)
from tests.suites import a_third
from tinyflux.primitive import OPERATIONS, Sample

EVERY = declared()
every_operation = pytest.mark.parametrize("name", EVERY)
a_third_of_them, the_next, the_rest = (
    pytest.mark.parametrize("name", a_third(EVERY, first)) for first in range(3)
)
seeds = st.integers(0, 2**32 - 1)


def samples(operation, data):
    """(generator, sample): drawn ones, or the fixed ones if there are no `data`."""
    if data is None:
        found, seed = fixed_samples_of(operation), 0
    else:
        seed = data.draw(seeds)
        found = samples_of(operation, data.draw)
    rng = np.random.default_rng(seed)
    for sample in found:
        yield rng, sample


def cases(name, data):
    operation = EVERY[name]
    for rng, sample in samples(operation, data):
        x = operands(operation, sample.shapes, rng)
        run = lambda *a, s=sample: s.call(operation.public, *a)
        yield rng, run, x


@every_operation
@law(12)
def test_gradient_agrees_with_differences(name, data):
    for rng, run, x in cases(name, data):
        weights = rng.standard_normal(np.shape(run(*x)))
        loss = lambda *a: np.sum(run(*a) * weights)  # noqa: B023
        found = flux.gradient(loss, *x)
        for _ in range(2):
            direction = [rng.standard_normal(a.shape) for a in x]
            got = sum(np.sum(g * d) for g, d in zip(found, direction, strict=True) if g is not None)
            if EVERY[name].public in COMPLEX_UFUNCS:
                shifted = [a + 1e-30j * d for a, d in zip(x, direction, strict=True)]
                wanted = np.imag(loss(*shifted)) / 1e-30
                np.testing.assert_allclose(got, wanted, rtol=2e-7, atol=2e-8)
            else:
                agrees_with_differences(got, loss, x, direction, rtol=2e-7, atol=2e-8)


@a_third_of_them
@law(4)
def test_second_derivative_agrees_with_differences_of_the_first(name, data):
    for rng, run, x in cases(name, data):
        weights = rng.standard_normal(np.shape(run(*x)))
        direction = [rng.standard_normal(a.shape) for a in x]

        def slope(*a, run=run, weights=weights, direction=direction):
            found = flux.gradient(lambda *b: np.sum(run(*b) ** 2 * weights), *a)
            pairs = zip(found, direction, strict=True)
            return sum((np.sum(g * d) for g, d in pairs if g is not None), 0.0)

        found = flux.gradient(slope, *x)
        again = [rng.standard_normal(a.shape) for a in x]
        got = sum(np.sum(g * d) for g, d in zip(found, again, strict=True) if g is not None)
        agrees_with_differences(got, slope, x, again, rtol=2e-6, atol=1e-6)


@every_operation
@law(4)
def test_recorded_value_is_that_of_numpy(name, data):
    for _, run, x in cases(name, data):
        plain = run(*x)
        value, _ = flux.pullback(run, *x)
        np.testing.assert_allclose(value, plain, rtol=1e-12, atol=1e-12)
        assert np.shape(value) == np.shape(plain)
        assert not isinstance(plain, flux.Tensor) and not isinstance(value, flux.Tensor)


@the_next
@law(6)
def test_dtypes_stay(name, data):
    operation = EVERY[name]
    module = getattr(operation.public, "__module__", "") or ""
    dtypes = [np.float32, np.float64]
    if "linalg" not in module and hasattr(operation.public, "reduce"):
        dtypes.append(np.longdouble)  # LAPACK has none
    for _, run, arrays in cases(name, data):
        for dtype in dtypes:
            x = [a.astype(dtype) for a in arrays]
            if isinstance(operation.kernel, np.ufunc) and run(*x).dtype != dtype:
                continue  # a function that always computes in double, as float_power
            try:
                plain = run(*x)
            except TypeError:
                continue  # SciPy has no longdouble form of this function
            value, back = flux.pullback(run, *x)
            assert np.result_type(value) == np.result_type(plain)
            for g, a in zip(back(np.ones_like(value)), x, strict=True):
                assert g is None or type(g) is np.ndarray
                assert g is None or (g.dtype == dtype and g.shape == a.shape)


@the_rest
@law(4)
def test_nothing_is_written_to_and_nothing_is_shared(name, data):
    for _, run, x in cases(name, data):
        kept = [a.copy() for a in x]
        value, back = flux.pullback(run, *x)
        seed = np.ones_like(value)
        first, second = back(seed), back(seed)
        for a, b in zip(x, kept, strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(seed, np.ones_like(value))
        mine = [g for g in (*first, *second) if g is not None]
        for i, g in enumerate(mine):
            for other in [*mine[i + 1 :], *x, seed, np.asarray(value)]:
                assert not np.shares_memory(g, other)
        for g, h in zip(first, second, strict=True):
            np.testing.assert_array_equal(g, h)


@a_third_of_them
@law(3)
def test_memory_layout_does_not_matter(name, data):
    for rng, run, x in cases(name, data):
        strided = []
        for a in x:
            wide = np.full((*a.shape[:-1], 2 * a.shape[-1]), np.nan) if a.ndim else a.copy()
            if a.ndim:
                wide[..., ::2] = a
                strided.append(wide[..., ::2] if rng.random() < 0.5 else np.asfortranarray(a))
            else:
                strided.append(wide)
        for g, h in zip(
            *(flux.pullback(run, *o)[1](np.ones_like(run(*x))) for o in (x, strided)), strict=True
        ):
            if g is not None:
                np.testing.assert_allclose(g, h, rtol=1e-13, atol=1e-13)


BODIES = [n for n, o in EVERY.items() if o.body is not None and o.joint is not None]


@pytest.mark.parametrize("name", BODIES)
@law(12)
def test_fast_path_agrees_with_the_definition(name, data):
    operation = EVERY[name]
    for rng, sample in samples(operation, data):
        x = operands(operation, sample.shapes, rng)
        runs = [lambda *a, f=f, s=sample: s.call(f, *a) for f in (operation, operation.body)]
        (y, back), (z, through) = (flux.pullback(run, *x) for run in runs)
        np.testing.assert_allclose(y, z, rtol=1e-13, atol=1e-13)
        seed = rng.standard_normal(np.shape(y))
        for g, h in zip(back(seed), through(seed), strict=True):
            np.testing.assert_allclose(g, h, rtol=1e-12, atol=1e-12)


def test_every_operation_is_documented_and_sampled():
    for operation in OPERATIONS.values():
        assert operation.__doc__ or callable(operation.public)
        for sample in operation.samples or ():
            assert isinstance(sample, Sample)
        assert copy.deepcopy(operation) is operation


def test_operations_of_every_form_are_among_them():
    names = {"exp", "concatenate", "std", "softmax", "dense", "mean_square", "mean_dot", "getitem"}
    assert names <= set(EVERY)
