"""Dense, Chain, Dropout, a layer of one's own; their modes, prints and first values."""

import copy
import inspect
import pickle
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyflux as flux
from tests.laws import declared, operands
from tests.suites import examples
from tinyflux import Chain, Dense, Dropout
from tinyflux.initialise import fans

thorough = settings(max_examples=examples(30), deadline=None, derandomize=True)
ACTIVATIONS = [flux.identity, flux.relu, flux.sigmoid, np.tanh, flux.gelu, flux.softmax, flux.selu]

# --- Dense ---------------------------------------------------------------------------------------


@thorough
@given(
    st.lists(st.integers(0, 4), max_size=3),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from(ACTIVATIONS),
    st.booleans(),
    st.sampled_from([np.float32, np.float64, int, bool, ">f4"]),
)
def test_dense_is_its_formula(batch, n_in, n_out, activation, bias, dtype):
    """For any number of axes before the features, and any real type of the input."""
    layer = Dense(n_in, n_out, activation, bias=bias)
    if bias:
        layer.bias.data[...] = np.arange(n_out)
    x = np.random.default_rng(0).integers(-2, 3, (*batch, n_in)).astype(dtype)
    y = layer(x)
    z = x.astype(np.float32) @ layer.weight.data + (layer.bias.data if bias else 0)
    assert type(y) is np.ndarray and y.dtype == np.float32 and y.shape == (*batch, n_out)
    np.testing.assert_allclose(y, activation(z), rtol=1e-5, atol=1e-6)


@thorough
@given(st.sampled_from([(), (3,), (0,), (2, 3)]), st.sampled_from(ACTIVATIONS), st.booleans())
def test_gradients_of_dense_are_those_of_its_formula(batch, activation, bias):
    rng = np.random.default_rng(0)
    layer = flux_f64(Dense(3, 2, activation, bias=bias))
    x, out = rng.standard_normal((*batch, 3)), rng.standard_normal((*batch, 2))
    w, b = layer.weight, layer.bias
    ps = flux.params(layer)
    formula = lambda: np.sum(activation(x @ w + (b if bias else 0.0)) * out)
    found, wanted = (flux.gradient(f, ps) for f in (lambda: np.sum(layer(x) * out), formula))
    assert len(ps) == 1 + bias
    for g, h in zip(found.values(), wanted.values(), strict=True):
        np.testing.assert_allclose(g, h, rtol=1e-12, atol=1e-14)


def flux_f64(model):
    """The model in double precision."""
    for p in flux.params(model):
        p.data = p.data.astype(np.float64)
    return model


def test_gradient_towards_the_input_has_the_type_of_the_input():
    layer = Dense(3, 2, flux.tanh)
    (g,) = flux.gradient(lambda x: np.sum(layer(x)), np.ones((4, 3)))
    assert g.dtype == np.float64 and g.shape == (4, 3)


def test_a_single_observation_and_a_list():
    layer = Dense(3, 2)
    x = np.arange(3.0)
    np.testing.assert_allclose(layer(x), layer(x[None])[0], rtol=1e-6)
    np.testing.assert_array_equal(layer([0, 1, 2]), layer(x))
    np.testing.assert_array_equal(layer([[0, 1, 2]] * 2), layer(np.stack([x, x])))


def test_an_activation_of_ones_own():
    layer = Dense(3, 2, lambda z: np.where(z > 0, z, 0.1 * z))
    layer.weight.data[...] = 1
    layer.bias.data[...] = [-4, 0]
    np.testing.assert_allclose(layer(np.ones(3)), [-0.1, 3], rtol=1e-6)
    gs = flux.gradient(lambda: np.sum(layer(np.ones(3))), flux.params(layer))
    np.testing.assert_allclose(gs[layer.bias], [0.1, 1], rtol=1e-6)


UNARY = [f for f in (op.public for op in declared().values()) if getattr(f, "nin", 0) == 1]


@pytest.mark.parametrize("f", UNARY, ids=lambda f: f.__name__)
def test_every_function_of_numpy_is_an_activation(f):
    """Whether or not its slope follows from its output."""
    (x,) = operands(declared()[f.__name__], [(4, 3)], np.random.default_rng(0))
    layer, out = Dense(3, 3, f, init=lambda *shape: np.eye(*shape)), np.arange(12.0).reshape(4, 3)
    found = flux.gradient(lambda x: np.sum(layer(x) * out), x)
    np.testing.assert_allclose(layer(x), f(x), rtol=1e-12)
    np.testing.assert_allclose(*found, *flux.gradient(lambda x: np.sum(f(x) * out), x), rtol=1e-12)


@pytest.mark.parametrize(
    "activation, rows",
    [(np.tanh, 1), (flux.relu, 1), (flux.sigmoid, 1), (flux.identity, 1), (flux.gelu, 2)],
)
def test_a_layer_is_one_row_where_the_slope_follows_from_the_output(activation, rows):
    layer = flux.Dense(3, 2, activation)
    _, back = flux.pullback(lambda: layer(np.ones((4, 3))), flux.params(layer))
    assert back.tape.rows[0][0].__name__ == "dense" and len(back.tape) == rows


def test_parameters_at_the_start():
    layer = Dense(20, 30)
    assert layer.weight.shape == (20, 30) and layer.bias.shape == (30,)
    assert layer.weight.dtype == layer.bias.dtype == np.float32
    assert np.all(layer.bias.data == 0)
    assert 0 < np.max(np.abs(layer.weight.data)) <= np.sqrt(6 / 50)
    assert Dense(2, 3, bias=False).bias is None
    assert Dense(2, 2, init=lambda m, n: np.eye(m, n)).bias.dtype == np.float64


def test_same_seed_same_weights():
    layers = []
    for _ in range(2):
        flux.seed_(3)
        layers.append(Dense(4, 5))
    np.testing.assert_array_equal(*[layer.weight.data for layer in layers])
    assert not np.array_equal(layers[0].weight.data, Dense(4, 5).weight.data)


@pytest.mark.parametrize(
    "shape, advice",
    [
        ((5, 4), ""),
        ((), ""),
        ((3, 5), r" Observations are rows: x.T has shape \(5, 3\)."),
        ((2, 3, 1), r" Flatten first: x.reshape\(len\(x\), -1\)."),
    ],
)
def test_input_of_the_wrong_size(shape, advice):
    with pytest.raises(flux.ShapeError) as caught:
        Dense(3, 2, flux.relu)(np.ones(shape))
    assert isinstance(caught.value, ValueError)
    got = rf"got x with shape {pattern(shape)}; the last axis must be 3."
    assert caught.match(rf"^Dense\(3, 2, relu\): {got}{advice}$")


def pattern(shape):
    return str(shape).replace("(", r"\(").replace(")", r"\)")


@pytest.mark.parametrize(
    "chain, place",
    [
        (Chain(Dense(2, 3), np.tanh, Dense(4, 1)), "layer 2 of Chain"),
        (Chain(first=Dense(2, 3), second=Dense(4, 1)), "layer 'second' of Chain"),
        (Chain(Chain(Dense(2, 3), Dense(4, 1))), "layer 1 of Chain, layer 0 of Chain"),
        (
            Chain(np.tanh, Chain(a=Dense(2, 3), b=Dense(4, 1))),
            "layer 'b' of Chain, layer 1 of Chain",
        ),
    ],
)
def test_the_place_in_the_chain_is_named_from_inside_to_outside(chain, place):
    text = rf"^Dense\(4, 1\), {place}: got x with shape \(5, 3\)"
    with pytest.raises(flux.ShapeError, match=text):
        chain(np.ones((5, 2)))
    with pytest.raises(flux.ShapeError, match=text):
        flux.gradient(lambda: np.sum(chain(np.ones((5, 2)))), flux.params(chain))


@pytest.mark.parametrize(
    "x", [np.ones((2, 3), complex), [["a", "b", "c"]], np.array([[1, 2, None]])], ids=repr
)
def test_input_of_the_wrong_kind(x):
    with pytest.raises(TypeError, match=r"Dense\(3, 2\): got "):
        Dense(3, 2)(x)


def test_masked_input_is_refused():
    with pytest.raises(TypeError, match="mask"):
        Dense(2, 1)(np.ma.masked_array([1.0, 2.0], [False, True]))


@pytest.mark.parametrize("sizes", [(0, 1), (1, -1), (1.0, 2), (True, 2), ("a", 2), (2, None)])
def test_sizes_of_the_wrong_kind(sizes):
    with pytest.raises(TypeError, match=r"Dense: n_(in|out) must be a positive whole number"):
        Dense(*sizes)


@pytest.mark.parametrize("activation", ["relu", 3, None])
def test_activation_of_the_wrong_kind(activation):
    with pytest.raises(TypeError, match="the activation must be a function"):
        Dense(1, 1, activation)


def test_initialiser_that_gives_something_else():
    with pytest.raises(ValueError, match=r"init gave shape \(3, 2\) for \(2, 3\)"):
        Dense(2, 3, init=lambda m, n: np.ones((n, m)))
    with pytest.raises(TypeError, match="int64"):
        Dense(2, 3, init=lambda m, n: np.ones((m, n), int))


# --- Chain ---------------------------------------------------------------------------------------


def double(x):
    return 2 * x


def add_one(x):
    return x + 1


def test_chain_calls_one_after_the_other():
    assert Chain(double, add_one)(3) == 7
    assert Chain(add_one, double)(3) == 8
    assert Chain(Chain(double), Chain(Chain(add_one)))(3) == 7
    assert Chain()(3) == 3
    assert Chain(double, add_one).activations(3) == [6, 7]
    assert Chain().activations(3) == []


def test_indexing_and_slicing():
    layers = (Dense(1, 2), flux.relu, Dense(2, 1))
    m = Chain(*layers)
    assert len(m) == 3 and tuple(m) == layers and m.layers == layers
    assert m[0] is layers[0] and m[-1] is layers[2]
    assert isinstance(m[1:], Chain) and tuple(m[1:]) == layers[1:]
    assert tuple(m[::-1]) == layers[::-1]
    with pytest.raises(IndexError):
        m[3]
    with pytest.raises(KeyError, match="no layer is called 'a'; there are no names"):
        m["a"]


def test_names():
    m = Chain(encode=Dense(2, 1), decode=Dense(1, 2))
    assert m["decode"] is m[1] and m.names == ("encode", "decode")
    assert m[1:].names == ("decode",)
    assert repr(m[:1]) == "Chain(encode=Dense(2, 1))"
    with pytest.raises(KeyError, match=r"no layer is called 'x'; there are \('encode', 'decode'\)"):
        m["x"]


@pytest.mark.parametrize(
    "make, error, text",
    [
        (lambda: Chain(double, 3), TypeError, "layer 1 is 3, which is not callable"),
        (lambda: Chain(a=3), TypeError, "layer 'a' is 3"),
        (lambda: Chain([double]), TypeError, "layer 0 is"),
        (lambda: Chain(double, a=double), TypeError, "not both"),
        (lambda: Chain(layers=double), ValueError, "cannot be called"),
    ],
)
def test_chains_that_are_refused(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_other_errors_get_a_note_with_the_place():
    def broken(x):
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine") as caught:
        Chain(double, Chain(a=broken))(1)
    assert caught.value.__notes__[0].startswith("in layer 'a' of Chain, broken")
    assert caught.value.__notes__[1].startswith("in layer 1 of Chain, Chain(a=")


def test_a_shared_layer_counts_once():
    layer = Dense(2, 2)
    m = Chain(layer, layer)
    assert len(flux.params(m)) == 2
    gs = flux.gradient(lambda: np.sum(m(np.ones((1, 2)))), flux.params(m))
    w = layer.weight.data.astype(float)
    np.testing.assert_allclose(gs[layer.bias], 1 + w.sum(axis=1), rtol=1e-5)


# --- a layer of one's own ------------------------------------------------------------------------


class Bilinear:
    """Nothing to inherit from, nothing to register."""

    def __init__(self, n):
        self.weight = flux.Tensor(np.ones((n, n)))
        self.parts = {"out": [Dense(1, 2)], "drop": (Dropout(0.5),)}

    def __call__(self, x):
        y = np.sum((x @ self.weight) * x, axis=-1, keepdims=True)
        return self.parts["drop"][0](self.parts["out"][0](y))


def test_a_class_of_ones_own_is_a_layer():
    layer = Bilinear(3)
    m = Chain(layer, flux.relu)
    ps = flux.params(m)
    assert ps.names() == [
        "layers[0].weight",
        "layers[0].parts['out'][0].weight",
        "layers[0].parts['out'][0].bias",
    ]
    loss = lambda x, y: flux.losses.mse(m(x), y)
    before = [p.data.copy() for p in ps]
    layer.parts["out"][0].weight.data[...] = 1
    flux.train_(loss, ps, [(np.ones((8, 3)), np.zeros((8, 2)))], flux.SGD(0.001))
    assert all(not np.array_equal(p.data, b) for p, b in zip(ps, before, strict=True))
    flux.trainmode_(m)
    assert layer.parts["drop"][0].mode is True
    assert "15 parameters" not in str(m) and "13 parameters" in str(m)


def test_models_pickle_and_copy():
    shared = Dense(2, 2, flux.relu)
    m = Chain(a=shared, b=np.tanh, c=shared, d=Dropout(0.1), e=flux.softmax)
    x = np.ones((3, 2))
    for twin in (copy.deepcopy(m), *(pickle.loads(pickle.dumps(m, p)) for p in range(2, 6))):
        assert repr(twin) == repr(m)
        np.testing.assert_array_equal(twin(x), m(x))
        assert twin["a"] is twin["c"] and len(flux.params(twin)) == 2
        assert twin["a"].weight is not shared.weight
        assert twin["a"].activation is flux.relu and twin["e"] is flux.softmax
        twin["a"].weight.data[...] = 0
    assert np.any(shared.weight.data)


# --- how models print ----------------------------------------------------------------------------

MODELS = [
    Chain(),
    Chain(Dense(2, 3)),
    Chain(Dense(2, 3, flux.relu), Dense(3, 1, np.tanh, bias=False)),
    Chain(encode=Dense(4, 2, flux.σ), decode=Chain(Dense(2, 4), flux.softmax, flux.identity)),
    Chain(Dropout(0.5), Dropout(0.25, axis=1), Dropout(0)),
    Dense(1, 1),
    Dropout(0.5, axis=(0, 1)),
]
NAMES = {**vars(flux), "tanh": np.tanh}


@pytest.mark.parametrize("m", MODELS, ids=repr)
def test_repr_reads_as_the_constructor(m):
    again = eval(repr(m), NAMES)
    assert repr(again) == repr(m) and "\n" not in repr(m)
    assert [p.shape for p in flux.params(again)] == [p.shape for p in flux.params(m)]


def test_what_cannot_be_shown_as_it_would_be_typed_is_shown_in_short():
    deep = []
    for _ in range(100_000):
        deep = [deep]

    class Holder:
        def __repr__(self):
            return f"Holder({deep!r})"

        def __call__(self, x):
            return x

    shown = repr(Chain(Holder(), flux.relu))
    assert shown.startswith("Chain(") and shown.endswith(", relu)") and len(shown) < 200


def test_str_counts_the_parameters_in_one_column():
    m = Chain(a=Dense(784, 32, flux.σ), b=Chain(Dropout(0.5), Dense(32, 10)), c=flux.softmax)
    assert str(m).splitlines() == [
        "Chain(",
        "  a=Dense(784, 32, sigmoid),  # 25_120 parameters",
        "  b=Chain(",
        "    Dropout(0.5),",
        "    Dense(32, 10),            # 330 parameters",
        "  ),",
        "  c=softmax,",
        ")                             # 25_450 parameters, 4 arrays, 99.4 KiB",
    ]
    assert flux.summary(m) == str(m)


def test_summary_counts_shared_once_and_frozen_apart():
    layer = Dense(2, 2)
    m = Chain(layer, layer)
    assert "# 6 parameters, 2 arrays" in str(m)
    flux.freeze_(layer)
    assert str(m).endswith("6 of them frozen")
    assert str(Chain(flux.relu)).splitlines()[-1].startswith(")        # no parameters")


# --- Dropout and modes ---------------------------------------------------------------------------

X = np.ones((200, 50))


def trained(layer, x=X):
    """What a layer does while a gradient is taken."""
    seen = []
    flux.gradient(lambda x: np.sum(seen.append(flux.detach(layer(x))) or x), x)
    return seen[0]


def test_dropout_acts_only_while_a_gradient_is_taken():
    layer = Dropout(0.25, rng=0)
    assert np.array_equal(layer(X), X)
    y = trained(layer)
    assert set(np.unique(y)) == {0.0, 1 / 0.75}
    assert abs(np.mean(y == 0) - 0.25) < 0.02
    assert np.array_equal(layer(X), X)


def test_every_call_draws_anew_and_a_seed_repeats():
    layer = Dropout(0.5, rng=0)
    first, second = trained(layer), trained(layer)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, trained(Dropout(0.5, rng=0)))
    runs = []
    for _ in range(2):
        flux.seed_(5)
        runs.append(trained(Dropout(0.5)))
    assert np.array_equal(*runs)


def test_gradient_of_dropout_is_its_mask():
    layer = Dropout(0.5, rng=3)
    y, back = flux.pullback(layer, 2 * X)
    np.testing.assert_array_equal(back(np.ones_like(X))[0], y / 2)


def test_dropout_along_an_axis():
    y = trained(Dropout(0.5, axis=0, rng=0))
    assert np.all(y == y[:, :1]) and set(np.unique(y)) == {0.0, 2.0}
    y = trained(Dropout(0.5, axis=(-1,), rng=0))
    assert np.all(y == y[:1]) and set(np.unique(y)) == {0.0, 2.0}


@pytest.mark.parametrize("p, value", [(0, 1.0), (1, 0.0), (1.0, 0.0), (0.0, 1.0)])
def test_dropout_of_nothing_and_of_all(p, value):
    assert np.all(trained(Dropout(p)) == value)


def test_dropout_keeps_the_type():
    layer = flux.trainmode_(Dropout(0.5))
    assert layer(np.ones(3, np.float32)).dtype == np.float32
    assert layer(np.ones(3, int)).dtype == np.float64
    assert set(layer([1.0, 1.0])) <= {0.0, 2.0}


@pytest.mark.parametrize("p", [-0.1, 1.1, np.nan, "a", None, True])
def test_dropout_with_a_wrong_probability(p):
    with pytest.raises(ValueError, match="p is a probability"):
        Dropout(p)


def test_dropout_takes_a_numpy_number():
    assert repr(Dropout(np.float32(0.5))) == "Dropout(0.5)"


@pytest.mark.parametrize(
    "set_mode, outside, inside",
    [
        (lambda m: m, False, True),
        (flux.trainmode_, True, True),
        (flux.testmode_, False, False),
        (partial(flux.trainmode_, mode=False), False, False),
        (partial(flux.testmode_, mode=False), True, True),
        (lambda m: flux.testmode_(flux.trainmode_(m), "auto"), False, True),
        (lambda m: flux.trainmode_(flux.testmode_(m), "auto"), False, True),
    ],
)
def test_modes(set_mode, outside, inside):
    m = Chain(Dense(50, 50, init=flux.identity_init), Chain(drop=Dropout(0.5)))
    assert set_mode(m) is m
    assert np.any(m(X) == 0) == outside
    assert np.any(trained(m) == 0) == inside


def test_modes_are_those_of_layers_that_have_them():
    class Resize:
        mode = "nearest"

        def __init__(self):
            self.mode, self.drop = "bilinear", Dropout(0.5)

        def __call__(self, x):
            return self.drop(x)

    class Halved(flux.layers.TwoModes):
        def __call__(self, x):
            return x / 2 if flux.layers.training(self) else x

    m = Chain(Resize(), Halved())
    assert flux.trainmode_(m)[0].mode == "bilinear" and m[0].drop.mode
    assert set(m(X).ravel()) == {0, *X.ravel()}  # dropped or doubled, and halved
    flux.testmode_(m)
    assert (m(X) == X).all()
    hot = flux.compiled(m)
    for training in (False, True, False):
        flux.trainmode_(m, training)
        m[0].drop.p = 0
        np.testing.assert_array_equal(hot(X), X / 2 if training else X)


@pytest.mark.parametrize("mode", [None, 3, "train"])
def test_mode_that_is_none(mode):
    with pytest.raises(ValueError, match='mode must be True, False or "auto"'):
        flux.testmode_(Dropout(0.5), mode)


# --- initialisers --------------------------------------------------------------------------------

UNIFORM = {flux.glorot_uniform: (6 / 500, 1.0), flux.kaiming_uniform: (3 / 200, np.sqrt(2))}
NORMAL = {flux.glorot_normal: (2 / 500, 1.0), flux.kaiming_normal: (1 / 200, np.sqrt(2))}
EVERY = [
    *UNIFORM, *NORMAL, flux.lecun_normal, flux.truncated_normal, flux.orthogonal, flux.sparse_init,
    flux.identity_init, flux.zeros_init, flux.ones_init,
]  # fmt: skip


@pytest.mark.parametrize("init", UNIFORM)
@pytest.mark.parametrize("gain", [None, 0.5])
def test_uniform_ranges(init, gain):
    square, usual = UNIFORM[init]
    w = init(200, 300, rng=0, **({} if gain is None else {"gain": gain}))
    limit = (usual if gain is None else gain) * np.sqrt(square)
    assert np.max(np.abs(w)) <= limit * (1 + 1e-6) and np.max(np.abs(w)) > 0.999 * limit
    assert abs(np.mean(w)) < 0.01 * limit and abs(np.std(w) / limit - 1 / np.sqrt(3)) < 0.01


@pytest.mark.parametrize("init", NORMAL)
def test_normal_moments(init):
    square, gain = NORMAL[init]
    w = init(200, 300, rng=0) / (gain * np.sqrt(square))
    assert abs(np.mean(w)) < 0.02 and abs(np.std(w) - 1) < 0.01
    assert abs(np.mean(w**4) - 3) < 0.1 and np.max(np.abs(w)) > 3


def test_truncated_normals():
    w = flux.truncated_normal(200, 300, rng=0, mean=1.0, std=2.0, lo=0.0, hi=2.0)
    assert w.min() >= 0 and w.max() <= 2 and abs(np.mean(w) - 1) < 0.01
    for sign in (1, -1):  # in both tails alike: 7 is the mode, and the density falls by 7
        lo, hi = sorted((7.0 * sign, 12.0 * sign))
        w = flux.truncated_normal(1000, rng=0, lo=lo, hi=hi)
        assert len(np.unique(w)) > 900 and abs(np.mean(w) * sign - 7.14) < 0.01
    w = flux.truncated_normal(1000, rng=0, mean=-1.0, std=0.5, lo=4.0, hi=9.0)  # 10 deviations off
    assert len(np.unique(w)) > 900 and w.max() < 4.5
    with pytest.raises(ValueError, match="is too far from mean"):
        flux.truncated_normal(2, lo=41.0, hi=42.0)
    w = flux.lecun_normal(200, 300, rng=0) * np.sqrt(200)
    assert abs(np.std(w) - 1) < 0.01


@pytest.mark.parametrize("shape", [(4, 4), (3, 7), (7, 3), (2, 2, 3, 5)])
def test_orthogonal(shape):
    w = flux.orthogonal(*shape, rng=0, gain=2.0).reshape(-1, shape[-1]).astype(float) / 2
    small = w @ w.T if w.shape[0] < w.shape[1] else w.T @ w
    np.testing.assert_allclose(small, np.eye(len(small)), atol=1e-6)


def test_a_matrix_with_orthonormal_columns_has_a_size():
    with pytest.raises(ValueError, match="orthogonal: at least one size is wanted"):
        flux.orthogonal(())


def test_sparse_init():
    w = flux.sparse_init(10, 20, rng=0, sparsity=0.25)
    assert np.all(np.sum(w == 0, axis=0) == 3)
    assert np.all(np.sum(flux.sparse_init(100, 3, rng=0, sparsity=0.07) == 0, axis=0) == 7)
    assert len({tuple(np.flatnonzero(c == 0)) for c in w.T}) > 1
    assert np.all(flux.sparse_init(3, 4, sparsity=2.0) == 0)
    with pytest.raises(ValueError, match="two sizes"):
        flux.sparse_init(2, 2, 2)


def test_fixed_values():
    np.testing.assert_array_equal(flux.identity_init(2, 3, gain=2.0), [[2, 0, 0], [0, 2, 0]])
    tap = flux.identity_init(3, 3, 2, 2)
    np.testing.assert_array_equal(tap[1, 1], np.eye(2))
    assert tap.sum() == 2
    assert np.all(flux.ones_init(2, 3) == 1) and np.all(flux.zeros_init(2) == 0)


@pytest.mark.parametrize("init", EVERY, ids=lambda f: f.__name__)
def test_every_initialiser(init):
    """Single precision, a shape as numbers or as a tuple, a seed, a function of keywords alone."""
    w = init(4, 5, rng=1)
    assert w.shape == (4, 5) and w.dtype == np.float32
    np.testing.assert_array_equal(init((4, 5), rng=np.random.default_rng(1)), w)
    np.testing.assert_array_equal(init(rng=1)(4, 5), w)
    assert init(0, 4).shape == (0, 4)
    if init is not flux.sparse_init:
        assert init(3, 3, 4, 5).shape == (3, 3, 4, 5) and init(7).shape == (7,)
    for sizes in ((2.0, 3), (-1, 3), ("a",)):
        with pytest.raises(TypeError, match=f"{init.__name__}: the sizes must be whole numbers"):
            init(*sizes)
    assert Dense(2, 3, init=init).weight.shape == (2, 3)
    assert str(inspect.signature(init)).startswith("(*shape, rng=None")  # what `help` shows
    inspect.signature(init).bind(4, 5, rng=1)


def test_later_keywords_win():
    half = flux.glorot_uniform(gain=0.5, rng=1)
    np.testing.assert_array_equal(half(4, 5, gain=1.0), flux.glorot_uniform(4, 5, rng=1))


def test_fans():
    assert fans(()) == (1, 1) and fans((5,)) == (1, 5) and fans((4, 5)) == (4, 5)
    assert fans((3, 3, 16, 32)) == (144, 288)


@pytest.mark.parametrize("shape", [(3,), (1,), (), (4, 1), (1, 3), (4, 3)])
@pytest.mark.parametrize("kinds", [("f4", "f4"), ("f8", "f4"), ("f8", "f8")])
@pytest.mark.parametrize("wrap", [lambda f: f, flux.compiled])
def test_a_bias_of_another_shape_or_type(shape, kinds, wrap):
    """As NumPy adds it; its gradient has its shape and its type."""
    rng = np.random.default_rng(0)
    layer = Dense(2, 3, flux.tanh)
    layer.weight = flux.Tensor(layer.weight.data.astype(kinds[0]))
    layer.bias = flux.Tensor(rng.standard_normal(shape).astype(kinds[1]))
    x, ps = rng.standard_normal((4, 2)).astype(kinds[0]), [layer.weight, layer.bias]
    found = flux.gradient(wrap(lambda: np.sum(layer(x) ** 2)), ps)
    wanted = flux.gradient(lambda: np.sum(np.tanh(x @ layer.weight + layer.bias) ** 2), ps)
    for t in ps:
        assert found[t].shape == t.shape and found[t].dtype == t.dtype
        np.testing.assert_allclose(found[t], wanted[t], rtol=1e-4, atol=1e-5)


def test_a_weight_that_is_no_tensor():
    layer = Dense(2, 3)
    layer.weight = np.ones((2, 3))
    with pytest.raises(TypeError, match=r"must be a Tensor: write layer\.weight = Tensor\(array\)"):
        layer(np.ones((4, 2)))
