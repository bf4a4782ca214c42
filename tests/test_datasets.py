"""The bundled sets are the real ones, split as documented; the drawn ones have their geometry."""

import re
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyflux.datasets import Split, digits, iris, moons, spirals


@pytest.mark.parametrize(
    ("load", "counts", "width"),
    [
        # The number of observations per class, as the source states it.
        (digits, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180], 64),
        (iris, [50, 50, 50], 4),
    ],
)
def test_form_and_stratified_split(load, counts, width):
    data = load()
    assert isinstance(data, Split) and data._fields == ("x_train", "y_train", "x_test", "y_test")
    for x, y in (data[:2], data[2:]):
        assert x.dtype == np.float32 and y.dtype == np.int64
        assert x.shape == (len(y), width) and x.flags.c_contiguous and x.flags.writeable
    assert np.array_equal(np.bincount(data.y_test), np.array(counts) // 5)
    assert np.array_equal(np.bincount(data.y_train) + np.bincount(data.y_test), counts)


@pytest.mark.parametrize("load", [digits, iris])
def test_every_call_gives_the_same_values_in_new_arrays(load):
    first, second = load(), load()
    first.x_train[:] = -1
    first.y_test[:] = -1
    assert second.x_train.min() >= 0 and second.y_test.min() >= 0
    assert all(np.array_equal(a, b) for a, b in zip(second, load()))


def test_digits_are_the_whole_test_set_of_the_source():
    data = digits()
    pixels = np.concatenate([data.x_train, data.x_test]) * 16
    assert np.array_equal(pixels, np.rint(pixels)) and pixels.min() == 0 and pixels.max() == 16
    # The sum of all 1797 x 64 pixels: a lost, doubled or changed image would show.
    assert int(pixels.sum()) == 561718
    images = digits(flat=False)
    assert images.x_train.shape == (1442, 8, 8) and images.x_test.shape == (355, 8, 8)
    assert np.array_equal(images.x_train.reshape(1442, 64), data.x_train)


def test_digits_can_be_learnt():
    """The classes' mean images recognise unseen digits: labels and images belong together."""
    x, y, x_test, y_test = digits()
    means = np.stack([x[y == k].mean(axis=0) for k in range(10)])
    nearest = ((x_test[:, None] - means) ** 2).sum(axis=-1).argmin(axis=1)
    assert (nearest == y_test).mean() > 0.88


def test_iris_agrees_with_the_paper():
    x, y, x_test, y_test = iris()
    everything = np.concatenate([x, x_test])
    assert everything.mean(axis=0) == pytest.approx([5.8433, 3.0573, 3.7580, 1.1993], abs=5e-5)
    # The 35th flower is in the test part (the seventh fifth one), the 38th in the other.
    assert x_test[6] == pytest.approx([4.9, 3.1, 1.5, 0.2]) and y_test[6] == 0
    assert x[37 - 7] == pytest.approx([4.9, 3.6, 1.4, 0.1]) and y[37 - 7] == 0


def test_the_attribution_is_in_the_package():
    text = files("tinyflux.datasets").joinpath("ATTRIBUTION.md").read_text(encoding="utf-8")
    for needed in ("10.24432/C50P49", "10.24432/C56C76", "CC BY 4.0", "Alpaydin", "Fisher"):
        assert needed in text


@given(st.integers(1, 60), st.integers(0, 2**32))
def test_moons_without_noise_lie_on_their_circles(n, seed):
    x, y = moons(n, noise=0, rng=seed)
    assert x.shape == (n, 2) and x.dtype == np.float32 and y.dtype == np.int64
    assert np.array_equal(y, np.arange(n) % 2)
    middle = np.where(y[:, None] == 0, [0, 0], [1, 0.5])
    assert np.hypot(*(x - middle).T) == pytest.approx(np.ones(n), abs=1e-6)
    assert (np.where(y == 0, x[:, 1], 0.5 - x[:, 1]) >= -1e-6).all()


@given(st.integers(1, 60), st.integers(1, 4), st.floats(0, 3), st.integers(0, 2**32))
def test_spirals_without_noise_have_the_angle_of_their_radius(n, classes, turns, seed):
    x, y = spirals(n, classes, noise=0, turns=turns, rng=seed)
    assert x.shape == (n, 2) and x.dtype == np.float32 and y.dtype == np.int64
    assert np.array_equal(y, np.arange(n) % classes)
    r = np.hypot(*x.T)
    angle = 2 * np.pi * (turns * r + y / classes)
    assert r.max() <= 1 + 1e-6
    assert np.column_stack([r * np.cos(angle), r * np.sin(angle)]) == pytest.approx(x, abs=1e-5)


@pytest.mark.parametrize("draw", [moons, spirals])
def test_noise_has_the_stated_deviation(draw):
    clean, _ = draw(4000, noise=0, rng=1)
    noisy, _ = draw(4000, noise=0.3, rng=1)
    assert (noisy - clean).std() == pytest.approx(0.3, rel=0.05)
    assert np.array_equal(noisy, draw(4000, noise=0.3, rng=1)[0])
    assert not np.array_equal(noisy, draw(4000, noise=0.3, rng=2)[0])


@pytest.mark.parametrize(
    ("call", "error", "came"),
    [
        (lambda: moons(0), ValueError, "n is 0"),
        (lambda: moons(10.0), TypeError, "10.0 (float)"),
        (lambda: moons(True), TypeError, "True (bool)"),
        (lambda: moons(10, noise=-0.1), ValueError, "noise is -0.1"),
        (lambda: moons(10, noise=float("nan")), ValueError, "noise is nan"),
        (lambda: moons(10, noise="much"), TypeError, "noise is 'much'"),
        (lambda: moons(10, rng="x"), TypeError, "rng is 'x'"),
        (lambda: spirals(10, classes=0), ValueError, "classes is 0"),
        (lambda: spirals(10, turns=-1), ValueError, "turns is -1"),
        (lambda: spirals(10, turns=None), TypeError, "turns is None"),
    ],
)
def test_bad_arguments_are_named(call, error, came):
    with pytest.raises(error, match=re.escape(came)):
        call()
