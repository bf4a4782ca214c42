"""The activations against closed forms in extended precision, and at the ends of the range."""

from fractions import Fraction

import numpy as np
import pytest
import scipy.special as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinyflux as flux
from tests.suites import examples

thorough = settings(max_examples=examples(20), deadline=None, derandomize=True)
LONG = np.longdouble
SCALE, ALPHA = LONG(1.0507009873554805), LONG(1.6732632423543772)


def long_sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def long_softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def long_gelu(x):
    u = np.sqrt(2 / LONG("3.14159265358979323846264338327950288")) * (x + LONG("0.044715") * x**3)
    return x * long_sigmoid(2 * u)


def long_elu(x):
    return np.where(x >= 0, x, np.expm1(np.minimum(x, 0)))


FORMULAS = {
    "identity": lambda x: x,
    "sigmoid": long_sigmoid,
    "tanh": np.tanh,
    "relu": lambda x: np.where(x > 0, x, 0),
    "leakyrelu": lambda x: np.where(x > 0, x, LONG("0.01") * x),
    "elu": long_elu,
    "selu": lambda x: SCALE * np.where(x >= 0, x, ALPHA * np.expm1(np.minimum(x, 0))),
    "gelu": long_gelu,
    "swish": lambda x: x * long_sigmoid(x),
    "softplus": long_softplus,
    "mish": lambda x: x * np.tanh(long_softplus(x)),
    "logsigmoid": lambda x: -long_softplus(-x),
    "hardsigmoid": lambda x: np.clip((x + 3) / 6, 0, 1),
    "hardtanh": lambda x: np.clip(x, -1, 1),
    "relu6": lambda x: np.clip(x, 0, 6),
    "celu": long_elu,
    "logcosh": lambda x: np.abs(x) + np.log1p(np.exp(-2 * np.abs(x))) - np.log(LONG(2)),
    "softsign": lambda x: np.where(np.isinf(x), np.sign(x), x / (1 + np.abs(x))),
    "lisht": lambda x: x * np.tanh(x),
    "tanhshrink": lambda x: x - np.tanh(x),
    "hardswish": lambda x: np.where(x <= -3, 0, np.where(x >= 3, x, x * (x + 3) / 6)),
    "softshrink": lambda x: np.where(x > 0.5, x - 0.5, np.where(x < -0.5, x + 0.5, 0)),
    "trelu": lambda x: np.where(x > 1, x, 0),
}
SLOPES = {
    "identity": lambda x: np.ones_like(x),
    "sigmoid": lambda x: long_sigmoid(x) * long_sigmoid(-x),
    "tanh": lambda x: 1 / np.cosh(x) ** 2,
    "relu": lambda x: np.where(x > 0, 1, 0),
    "leakyrelu": lambda x: np.where(x > 0, 1, LONG("0.01")),
    "elu": lambda x: np.where(x >= 0, 1, np.exp(np.minimum(x, 0))),
    "selu": lambda x: SCALE * np.where(x > 0, 1, ALPHA * np.exp(np.minimum(x, 0))),
    "swish": lambda x: long_sigmoid(x) * (1 + x * long_sigmoid(-x)),
    "softplus": long_sigmoid,
    "logsigmoid": lambda x: long_sigmoid(-x),
    "hardsigmoid": lambda x: np.where(np.abs(x) < 3, LONG(1) / 6, 0),
    "hardtanh": lambda x: np.where(np.abs(x) < 1, 1, 0),
    "relu6": lambda x: np.where((x > 0) & (x < 6), 1, 0),
    "celu": lambda x: np.where(x >= 0, 1, np.exp(np.minimum(x, 0))),
    "logcosh": np.tanh,
    "softsign": lambda x: 1 / (1 + np.abs(x)) ** 2,
    "lisht": lambda x: np.tanh(x) + x / np.cosh(x) ** 2,
    "tanhshrink": lambda x: np.tanh(x) ** 2,
    "hardswish": lambda x: np.where(x < -3, 0, np.where(x > 3, 1, x / 3 + LONG(0.5))),
    "softshrink": lambda x: np.where(np.abs(x) > 0.5, 1, 0),
    "trelu": lambda x: np.where(x > 1, 1, 0),
}
every = pytest.mark.parametrize("name", FORMULAS)
both = pytest.mark.parametrize("dtype", [np.float32, np.float64])
rows = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=1, max_dims=3, max_side=4), elements=st.floats(-30, 30)
)


def slope(f, x):
    return flux.gradient(lambda x: np.sum(f(x)), x)[0]


# --- elementwise ---------------------------------------------------------------------------------


@every
@both
@thorough
@given(x=hnp.arrays(np.float64, 16, elements=st.floats(-40, 40)))
def test_values_are_those_of_the_formula(name, dtype, x):
    x = x.astype(dtype)
    y = getattr(flux, name)(x)
    assert y.dtype == dtype and y.shape == x.shape
    eps = np.finfo(dtype).eps
    error = np.abs(y - FORMULAS[name](x.astype(LONG)))
    assert np.all(error <= 16 * eps * np.abs(y) + eps * np.maximum(np.abs(x), 1))


@pytest.mark.parametrize("name", SLOPES)
@both
@thorough
@given(x=hnp.arrays(np.float64, 16, elements=st.floats(-40, 40)))
def test_slopes_are_those_of_the_formula(name, dtype, x):
    x = x.astype(dtype)
    g = slope(getattr(flux, name), x)
    assert g.dtype == dtype
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(g, SLOPES[name](x.astype(LONG)), rtol=64 * eps, atol=8 * eps)


@every
@thorough
@given(rows)
def test_slopes_agree_with_differences(name, x):
    """Away from the kinks; by central differences in extended precision."""
    x = x + 0.05 * (np.abs(x[..., :1] * 0) + 1)
    kinks = np.array([0, -1, 1, 3, -3, 6, 0.5, -0.5])
    x = np.where(np.min(np.abs(x[..., None] - kinks), axis=-1) < 1e-3, x + 0.0123, x)
    h = LONG(1e-6)
    ahead, behind = (FORMULAS[name](x.astype(LONG) + s * h) for s in (1, -1))
    wanted = ((ahead - behind) / (2 * h)).astype(np.float64)
    np.testing.assert_allclose(slope(getattr(flux, name), x), wanted, rtol=1e-8, atol=1e-10)


@every
@pytest.mark.parametrize(
    "dtype, size", [(np.float32, 100), (np.float64, 1e4), (np.float32, 1e30), (np.float64, 1e300)]
)
def test_far_out_everything_is_finite_and_silent(name, dtype, size):
    """Warnings are errors in these tests."""
    f = getattr(flux, name)
    x = np.array([-size, -size / 3, -1e-3, 0, 1e-3, size / 3, size], dtype)
    y, g = f(x), slope(f, x)
    assert np.all(np.isfinite(y)) and np.all(np.isfinite(g)) and y.dtype == g.dtype == dtype
    with np.errstate(invalid="ignore"):
        wanted = FORMULAS[name](x.astype(LONG))
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-6)
    (second,) = flux.gradient(lambda x: np.sum(slope(f, x) ** 2), x)
    assert second is None or np.all(np.isfinite(second))


@every
def test_outside_the_range_of_numbers(name):
    f = getattr(flux, name)
    with np.errstate(invalid="ignore"):
        at_inf, at_nan = f(np.array([np.inf])), f(np.array([np.nan]))
        wanted = FORMULAS[name](np.array([LONG(np.inf)]))
    np.testing.assert_array_equal(at_inf, wanted)
    assert np.isnan(at_nan[0])


@every
def test_numbers_lists_integers_and_any_shape(name):
    f = getattr(flux, name)
    x = np.arange(-2, 4).reshape(2, 3)
    if name != "identity":
        np.testing.assert_allclose(f(x), f(x.astype(float)), rtol=1e-15)
        np.testing.assert_allclose(f(x.tolist()), f(x.astype(float)), rtol=1e-15)
        assert np.ndim(f(1)) == 0 and f(1) == pytest.approx(float(f(np.array([1.0]))[0]))
    assert f(np.ones((0, 3))).shape == (0, 3)
    np.testing.assert_array_equal(f(x.astype(float).T), f(x.astype(float)).T)


@every
def test_operands_are_not_written_to(name):
    x = np.linspace(-2, 2, 7)
    x.flags.writeable = False
    y = getattr(flux, name)(x)
    if name != "identity":
        assert not np.shares_memory(x, y)


def test_names_and_parameters():
    assert flux.σ is flux.sigmoid and flux.tanh is np.tanh
    x = np.array([-2.0, 3.0])
    np.testing.assert_allclose(flux.leakyrelu(x, a=0.5), [-1, 3])
    np.testing.assert_allclose(flux.elu(x, alpha=2.0), [2 * np.expm1(-2), 3])
    np.testing.assert_allclose(flux.elu(x, 2.0), flux.elu(x, alpha=2.0))
    np.testing.assert_allclose(slope(lambda x: flux.leakyrelu(x, a=0.5), x), [0.5, 1])
    np.testing.assert_allclose(slope(lambda x: flux.elu(x, alpha=2.0), x), [2 * np.exp(-2), 1])
    np.testing.assert_allclose(flux.celu(x, alpha=2.0), [2 * np.expm1(-1), 3])
    np.testing.assert_allclose(slope(lambda x: flux.celu(x, alpha=2.0), x), [np.exp(-1), 1])
    np.testing.assert_allclose(flux.softshrink(x, lam=1.0), [-1, 2])
    np.testing.assert_allclose(flux.softshrink(x, 2.5), [0, 0.5])
    np.testing.assert_allclose(slope(lambda x: flux.softshrink(x, lam=2.5), x), [0, 1])
    np.testing.assert_allclose(flux.trelu(x, theta=-3.0), x)
    np.testing.assert_allclose(slope(lambda x: flux.trelu(x, theta=3.0), x), [0, 0])


@pytest.mark.parametrize("number", [float, np.float32, np.float64])
def test_a_parameter_does_not_change_the_type(number):
    x = np.array([-2.0, 0.25, 3.0], np.float32)
    for f in (flux.leakyrelu, flux.celu, flux.softshrink, flux.trelu):
        y, g = f(x, number(0.5)), slope(lambda x: f(x, number(0.5)), x)  # noqa: B023
        assert y.dtype == g.dtype == np.float32


@pytest.mark.parametrize(
    "f, parameter", [("leakyrelu", "a"), ("elu", "alpha"), ("celu", "alpha"), ("softshrink", "lam")]
)
@pytest.mark.parametrize("wrap", [lambda f: f, flux.compiled])
def test_a_parameter_can_be_learned(f, parameter, wrap):
    """By position or by name, beside an input that is differentiated as well."""
    f, x = getattr(flux, f), np.array([-2.0, -0.75, 0.25, 3.0])
    for call in (lambda x, a: f(x, a), lambda x, a: f(x, **{parameter: a})):
        for loss in (
            lambda x, a: np.sum(call(x, a) ** 2),  # noqa: B023
            lambda x, a: np.sum(call(x * a, a)),  # noqa: B023
            lambda x, a: np.sum(call(np.array([-1.0, 2.0]), a)) * x[0],  # noqa: B023
        ):
            assert flux.gradcheck(wrap(loss), x, 0.4)
    (g,) = flux.gradient(lambda a: flux.trelu(2.0, theta=a), 0.4)
    assert g is None


@pytest.mark.parametrize("f", [flux.relu, flux.sigmoid, np.exp, np.sum], ids=lambda f: f.__name__)
def test_out_may_be_given_as_none(f):
    x = np.array([-2.0, 3.0])
    (wanted,) = flux.gradient(lambda x: np.sum(f(x)), x)
    np.testing.assert_array_equal(flux.gradient(lambda x: np.sum(f(x, out=None)), x)[0], wanted)
    hot = flux.compiled(lambda x: np.sum(f(x, out=None)))
    np.testing.assert_array_equal(flux.gradient(hot, x)[0], wanted)


def test_parameters_that_are_refused():
    x = np.array([-2.0, 3.0])
    for wrong in (0, -1.0, np.nan):
        with pytest.raises(ValueError, match="celu: alpha must be positive, got"):
            flux.celu(x, alpha=wrong)
    for wrong in (-0.5, np.nan):
        with pytest.raises(ValueError, match="softshrink: lam must not be negative, got"):
            flux.softshrink(x, lam=wrong)
    for f, name in [(flux.celu, "alpha"), (flux.softshrink, "lam"), (flux.trelu, "theta")]:
        for wrong in ("a", None, [1.0, 2.0], 1j):
            with pytest.raises(TypeError, match=f"{f.name}: {name} is .* must be a real number"):
                f(x, wrong)
            with pytest.raises(TypeError, match=f"{f.name}: {name} is .* must be a real number"):
                f(x, **{name: wrong})


def test_ends_of_the_range():
    """Where a product or a quotient of the formula would be nan, or overflow."""
    inf = np.array([-np.inf, np.inf])
    np.testing.assert_array_equal(flux.softsign(inf), [-1, 1])
    np.testing.assert_array_equal(flux.hardswish(inf), [0, np.inf])
    np.testing.assert_array_equal(flux.lisht(inf), [np.inf, np.inf])
    np.testing.assert_array_equal(flux.tanhshrink(inf), inf)
    np.testing.assert_array_equal(flux.softshrink(inf), inf)
    np.testing.assert_array_equal(flux.logcosh(inf), [np.inf, np.inf])
    np.testing.assert_array_equal(flux.celu([-1e300, 1e300], alpha=1e-300), [-1e-300, 1e300])
    largest = np.finfo(np.float32).max * np.array([-1, 1], np.float32)
    np.testing.assert_array_equal(flux.softsign(largest), [-1, 1])
    np.testing.assert_array_equal(flux.logcosh(largest), [largest[1]] * 2)


@thorough
@given(hnp.arrays(np.float64, 8, elements=st.floats(-300, 300)))
def test_identities(x):
    near = {"rtol": 1e-13, "atol": 1e-15}
    np.testing.assert_allclose(flux.sigmoid(x) + flux.sigmoid(-x), 1, **near)
    np.testing.assert_allclose(flux.softplus(x) - flux.softplus(-x), x, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(flux.logsigmoid(x), -flux.softplus(-x), **near)
    np.testing.assert_allclose(flux.sigmoid(x), sp.expit(x), rtol=1e-13, atol=2e-16)
    np.testing.assert_array_equal(flux.relu(x) - flux.relu(-x), x)


# --- over classes --------------------------------------------------------------------------------

AXES = [-1, 0, (0, 1)]


@pytest.mark.parametrize("axis", AXES)
@both
@thorough
@given(x=hnp.arrays(np.float64, (3, 4), elements=st.floats(-50, 50)))
def test_softmax_and_its_relatives_are_those_of_scipy(axis, dtype, x):
    x = x.astype(dtype)
    long = x.astype(LONG)
    close = {"rtol": 100 * np.finfo(dtype).eps, "atol": 4 * np.finfo(dtype).tiny}
    for f in ("softmax", "logsoftmax", "logsumexp"):
        reference = {
            "softmax": sp.softmax,
            "logsoftmax": sp.log_softmax,
            "logsumexp": sp.logsumexp,
        }[f]
        y = getattr(flux, f)(x, axis=axis)
        assert y.dtype == dtype
        loose = close | {"atol": 100 * np.finfo(dtype).eps} if f != "softmax" else close
        np.testing.assert_allclose(y, reference(long, axis=axis), **loose)


@thorough
@given(hnp.arrays(np.float64, (2, 3), elements=st.floats(-20, 20)), st.floats(-1e6, 1e6))
def test_shifting_all_scores_changes_nothing(x, shift):
    np.testing.assert_allclose(flux.softmax(x + shift), flux.softmax(x), rtol=1e-8)
    np.testing.assert_allclose(flux.logsoftmax(x + shift), flux.logsoftmax(x), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(np.sum(flux.softmax(x), axis=-1), 1, rtol=4e-16)
    np.testing.assert_allclose(np.exp(flux.logsoftmax(x)), flux.softmax(x), rtol=1e-13)
    np.testing.assert_allclose(slope(flux.logsumexp, x), flux.softmax(x), rtol=1e-13)
    weights = np.arange(6.0).reshape(2, 3)
    g = slope(lambda x: flux.softmax(x) * weights, x)
    np.testing.assert_allclose(np.sum(g, axis=-1), 0, atol=1e-14)


@pytest.mark.parametrize("dtype, size", [(np.float32, 100), (np.float64, 1e4), (np.float64, 1e300)])
def test_scores_of_any_size(dtype, size):
    x = np.array([[size, 0, -size], [0, 0, 0]], dtype)
    for f in (flux.softmax, flux.logsoftmax, flux.logsumexp):
        y, g = f(x), slope(lambda x: f(x) * 2, x)  # noqa: B023
        assert np.all(np.isfinite(y)) and np.all(np.isfinite(g)) and y.dtype == g.dtype == dtype
    np.testing.assert_allclose(flux.softmax(x)[0], [1, 0, 0], atol=1e-40)
    np.testing.assert_array_equal(flux.logsoftmax(x)[0], [0, -x[0, 0], -2 * x[0, 0]])
    np.testing.assert_array_equal(flux.logsumexp(x)[0], x[0, 0])


def test_logsumexp_keeps_dimensions_if_told():
    x = np.arange(6.0).reshape(2, 3)
    assert flux.logsumexp(x).shape == (2,) and flux.logsumexp(x, keepdims=True).shape == (2, 1)
    assert flux.logsumexp(x, axis=0).shape == (3,)


@pytest.mark.parametrize("f", [flux.softmax, flux.logsoftmax, flux.logsumexp])
def test_whole_numbers_lists_and_a_single_number(f):
    np.testing.assert_allclose(f([1, 2, 3]), f(np.array([1.0, 2.0, 3.0])), rtol=1e-15)
    with pytest.raises(ValueError, match=f"{f.name}: got a single number"):
        f(1.0)


# --- as part of a layer --------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*FORMULAS, "softmax", "logsoftmax"])
def test_as_the_activation_of_dense(name):
    """Some run inside the product, over its result: the gradients must not notice."""
    f = getattr(flux, name)
    rng = np.random.default_rng(0)
    layer = flux.Dense(3, 4, f)
    x = rng.standard_normal((5, 3)).astype(np.float32)
    w, b = layer.weight, layer.bias
    weights = rng.standard_normal((5, 4)).astype(np.float32)
    np.testing.assert_allclose(layer(x), f(x @ w.data + b.data), rtol=1e-5, atol=1e-6)
    gs = flux.gradient(lambda: np.sum(layer(x) * weights), flux.params(layer))
    wanted = flux.gradient(lambda: np.sum(f(x @ w + b) * weights), flux.params(layer))
    for g, h in zip(gs.values(), wanted.values(), strict=True):
        np.testing.assert_allclose(g, h, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", sorted({*flux.activations.__all__} - {"identity", "tanh"}))
def test_whole_numbers_count_by_their_values_and_complex_ones_are_refused(name):
    f, whole = getattr(flux, name), np.array([-2, 0, 3])
    np.testing.assert_array_equal(f(whole), f(whole.astype(float)))
    np.testing.assert_array_equal(f(whole.tolist()), f(whole.astype(float)))
    with pytest.raises(TypeError, match="got dtype complex128; real numbers are wanted"):
        f(np.array([1 + 2j, 0.5]))


def test_the_parameter_of_an_activation_may_be_any_real_number():
    quarter = flux.leakyrelu(np.array([-1.0, 1.0], "f4"), Fraction(1, 4))
    assert quarter.dtype == np.float32 and quarter.tolist() == [-0.25, 1]
