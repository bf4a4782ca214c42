"""Laws of batches, splits and one-hot rows, and what is said of arguments that cannot be meant."""

import copy
import itertools
import math
import pickle
import re
import warnings
from collections import namedtuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyflux.data import (
    DataLoader,
    batch,
    chunk,
    ncycle,
    onecold,
    onehot,
    onehotbatch,
    shuffleobs,
    splitobs,
    unbatch,
)
from tinyflux.generators import seed_

Pair = namedtuple("Pair", "x y")

sizes = st.integers(1, 40)
seeds = st.integers(0, 2**32)
switch = st.booleans()


def numbered(n, width=2):
    """Observations that know their number: row i of x is (i, i, ...), y[i] is i."""
    y = np.arange(n)
    return np.repeat(y[:, None], width, axis=1).astype(np.float32), y


def quiet_loader(*data, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return DataLoader(*data, **options)


# --- DataLoader ----------------------------------------------------------------------------------


@given(sizes, st.integers(1, 50), switch, switch, seeds)
def test_every_observation_comes_exactly_once(n, size, shuffle, partial, seed):
    x, y = numbered(n)
    options = dict(batchsize=size, shuffle=shuffle, partial=partial, rng=seed)
    loader = quiet_loader(x, y, **options)
    size = min(size, n)
    for _ in range(2):
        batches = list(loader)
        assert len(batches) == len(loader) == (math.ceil(n / size) if partial else n // size)
        lengths = [len(by) for _, by in batches]
        whole = [size] * (n // size)
        assert lengths == (whole + [n % size] if partial and n % size else whole)
        assert all(np.array_equal(bx, np.stack([by, by], axis=1)) for bx, by in batches)
        seen = np.concatenate([by for _, by in batches])
        assert len(set(seen.tolist())) == len(seen)
        if partial:
            assert np.array_equal(np.sort(seen), y)
        if not shuffle:
            assert np.array_equal(seen, y[: len(seen)])


def order(loader):
    return np.concatenate(list(loader)).tolist()


@given(st.integers(20, 40), seeds)
def test_seeds_decide_the_orders_and_each_epoch_has_its_own(n, seed):
    first, second = (DataLoader(np.arange(n), shuffle=True, rng=seed) for _ in range(2))
    epochs = [order(first) for _ in range(3)]
    assert epochs == [order(second) for _ in range(3)]
    assert len(set(map(tuple, epochs))) == 3
    assert epochs[0] != order(DataLoader(np.arange(n), shuffle=True, rng=seed + 1))


def test_without_rng_the_default_generator_decides():
    loader = DataLoader(np.arange(30), shuffle=True)
    seed_(4)
    first = order(loader)
    assert order(loader) != first
    seed_(4)
    assert order(loader) == first == order_of_default_rng(30, 4)


def order_of_default_rng(n, seed):
    return np.random.default_rng(seed).permutation(n).tolist()


@given(st.integers(2, 30), st.integers(1, 5), seeds, st.data())
def test_two_iterations_at_once_are_independent(n, size, seed, data):
    make = lambda: quiet_loader(np.arange(n), batchsize=size, shuffle=True, rng=seed)
    apart = make()
    expected = [[b.tolist() for b in apart], [b.tolist() for b in apart]]
    together = make()
    iterators = [iter(together), iter(together)]
    got = [[], []]
    turns = [0] * len(expected[0]) + [1] * len(expected[1])
    for i in data.draw(st.permutations(turns)):
        got[i].append(next(iterators[i]).tolist())
    assert got == expected
    assert [next(it, None) for it in iterators] == [None, None]


def test_batches_have_the_form_of_the_data():
    x, y = numbered(5)
    assert type(next(iter(DataLoader(x)))) is np.ndarray
    one = next(iter(DataLoader((x,))))
    assert type(one) is tuple and len(one) == 1
    assert type(next(iter(DataLoader(x, y)))) is tuple
    assert type(next(iter(DataLoader((x, y))))) is tuple
    named = next(iter(DataLoader(Pair(x, y), batchsize=2)))
    assert type(named) is Pair and named.y.tolist() == [0, 1]
    keyed = next(iter(DataLoader({"x": x, "y": y}, batchsize=2)))
    assert list(keyed) == ["x", "y"] and keyed["x"].shape == (2, 2)
    (a, b), c = next(iter(DataLoader((x, x), y, batchsize=2)))
    assert a.shape == b.shape == (2, 2) and c.shape == (2,)
    assert next(iter(DataLoader(x))).shape == (1, 2)
    assert [b.tolist() for b in DataLoader([3, 1, 2], batchsize=2)] == [[3, 1], [2]]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "u8", "?", "c8", "U3", "O"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_element_types_and_strange_layouts_stay(dtype, shuffle):
    whole = np.arange(48).reshape(8, 6).astype(dtype)
    for a in (whole, whole[::2], whole.T, whole[:, :0], np.asfortranarray(whole)):
        got = np.concatenate(list(DataLoader(a, batchsize=2, shuffle=shuffle, rng=0)))
        expected = a[np.random.default_rng(0).permutation(len(a))] if shuffle else a
        assert got.dtype == a.dtype and np.array_equal(got, expected)


def test_batches_are_views_in_order_and_copies_when_shuffled():
    x = np.zeros((6, 2))
    loader = DataLoader(x, batchsize=4)
    assert loader.data is x
    assert all(np.shares_memory(b, x) for b in loader)
    assert not any(np.shares_memory(b, x) for b in DataLoader(x, batchsize=4, shuffle=True))


def test_collate_gets_the_observations():
    x, y = numbered(5)
    for shuffle in (False, True):
        loader = DataLoader(x, y, batchsize=2, shuffle=shuffle, collate=lambda obs: obs)
        batches = list(loader)
        assert [len(obs) for obs in batches] == [2, 2, 1]
        for row, number in itertools.chain(*batches):
            assert row.shape == (2,) and row.tolist() == [number, number]
    assert list(DataLoader([1, 2, 3], batchsize=2, collate=sum)) == [3, 3]


def test_a_batch_larger_than_the_data_shrinks_with_a_warning():
    with pytest.warns(UserWarning, match="batchsize is 8, but there are only 3") as caught:
        loader = DataLoader(np.arange(3), batchsize=8, partial=False)
    assert caught[0].filename == __file__
    assert loader.batchsize == 3 and [b.tolist() for b in loader] == [[0, 1, 2]]


def test_repr_reads_as_the_call():
    x, y = numbered(5)
    assert repr(DataLoader(x)) == "DataLoader(float32(5, 2), batchsize=1)"
    assert repr(DataLoader((y,), batchsize=2)) == "DataLoader((int64(5),), batchsize=2)"
    loader = DataLoader(Pair(x, y), batchsize=2, shuffle=True, partial=False, collate=len)
    assert repr(loader) == (
        "DataLoader(Pair(x=float32(5, 2), y=int64(5)), batchsize=2, shuffle=True, partial=False, "
        "collate=len)"
    )
    assert repr(DataLoader({"x": x})) == "DataLoader({'x': float32(5, 2)}, batchsize=1)"


@pytest.mark.parametrize("again", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_a_copy_goes_on_as_the_original_would(again):
    loader = DataLoader(*numbered(20), batchsize=3, shuffle=True, rng=np.random.default_rng(5))
    next(iter(loader))
    twin = again(loader)
    for _ in range(2):
        for (x, y), (tx, ty) in zip(loader, twin, strict=True):
            assert np.array_equal(x, tx) and np.array_equal(y, ty)


@given(sizes, st.integers(1, 7), switch, switch, seeds, st.data())
def test_a_restored_loader_gives_the_rest_of_the_epoch(n, size, shuffle, own, seed, data):
    def make(number):
        return quiet_loader(
            np.arange(n), batchsize=size, shuffle=shuffle, rng=number if own else None
        )

    seed_(seed)
    loader = make(seed)
    done = data.draw(st.integers(0, len(loader)))
    running = iter(loader)
    for _ in range(done):
        next(running)
    other = make(seed + 1)
    other.restore_(pickle.loads(pickle.dumps(loader.state())))
    rest = [b.tolist() for b in running]
    if rest:
        assert [b.tolist() for b in other] == rest
    if own:
        assert order(other) == order(loader)
    assert len(list(other)) == len(loader)


def test_a_shallow_copy_has_a_position_of_its_own():
    loader = DataLoader(np.arange(6))
    loader.restore_({"order": None, "next": 3, "rng": None})
    assert order(copy.copy(loader)) == order(loader) == [3, 4, 5]


def test_a_loader_that_has_not_begun_restores_to_one_that_has_not():
    loader = DataLoader(np.arange(20), shuffle=True, rng=0)
    other = DataLoader(np.arange(20), shuffle=True, rng=1)
    other.restore_(loader.state())
    assert order(other) == order(loader) == order_of_default_rng(20, 0)


def test_a_state_that_does_not_fit_is_refused():
    seeded = DataLoader(np.arange(4), shuffle=True, rng=0)
    begun = DataLoader(np.arange(4), shuffle=True)
    iter(begun)
    for other, loader, what in [
        (seeded, DataLoader(np.arange(4), shuffle=True), "another rng"),
        (begun, DataLoader(np.arange(4)), "another shuffle"),
        (begun, DataLoader(np.arange(5), shuffle=True), "another number of observations"),
        (DataLoader([1, 2, 3]), DataLoader(np.arange(4), batchsize=2), "number of batches"),
        # batch 1 of these would be other observations, or end elsewhere
        (DataLoader(np.arange(4)), DataLoader(np.arange(9)), "another number of observations"),
        (DataLoader(np.arange(9), batchsize=3), DataLoader(np.arange(9)), "another batchsize"),
        (
            DataLoader(np.arange(3), batchsize=2, partial=False),
            DataLoader(np.arange(3), batchsize=2),
            "another partial",
        ),
    ]:
        with pytest.raises(ValueError, match=what):
            loader.restore_(other.state())


X = np.zeros((5, 2))


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: DataLoader(X, np.zeros(4)), ValueError, "data[0] has 5 observations, but data[1]"),
        (lambda: DataLoader({"a": X, "b": [1]}), ValueError, "5 observations, but data['b'] has 1"),
        (lambda: DataLoader((X, X), [1]), ValueError, "data[0][0] has 5 observations, but"),
        (lambda: DataLoader(X[:0]), ValueError, "no observation in the data (data has shape (0,"),
        (lambda: DataLoader(), TypeError, "at least one array is needed"),
        (lambda: DataLoader(()), TypeError, "got ()"),
        (lambda: DataLoader({}), TypeError, "got {}"),
        (lambda: DataLoader(3.5), TypeError, "got 3.5 (float), which has no axis of observations"),
        (lambda: DataLoader(X, None), TypeError, "got None (NoneType)"),
        (lambda: DataLoader(iter(X)), TypeError, "(iterator)"),
        (lambda: DataLoader([[1, 2], [3]]), ValueError, "cannot make an array of a list"),
        (lambda: DataLoader(X, batchsize=0), ValueError, "batchsize is 0, but it must be an"),
        (lambda: DataLoader(X, batchsize=-3), ValueError, "batchsize is -3"),
        (lambda: DataLoader(X, batchsize=2.0), TypeError, "batchsize is 2.0 (float)"),
        (lambda: DataLoader(X, batchsize=True), TypeError, "batchsize is True (bool)"),
        (lambda: DataLoader(X, batchsize="2"), TypeError, "batchsize is '2' (str)"),
        (lambda: DataLoader(X, batchsize=None), TypeError, "batchsize is None"),
        (lambda: DataLoader(X, rng="x"), TypeError, "rng is 'x' (str)"),
        (lambda: DataLoader(X, collate=3), TypeError, "collate is 3"),
    ],
)  # fmt: skip
def test_bad_loaders_say_what_came(make, error, said):
    with pytest.raises(error, match=re.escape(said)):
        make()


def test_numpy_integers_are_batchsizes():
    assert len(DataLoader(X, batchsize=np.int64(2))) == 3


# --- observations --------------------------------------------------------------------------------


@given(sizes, st.integers(0, 5))
def test_ncycle_repeats_and_knows_its_length(n, times):
    loader = DataLoader(np.arange(n))
    assert order(loader) * times == [int(b[0]) for b in ncycle(loader, times)]
    assert len(ncycle(loader, times)) == n * times
    assert repr(ncycle([n], times)) == f"ncycle([{n}], {times})"


def test_ncycle_shuffles_anew_and_can_be_used_twice():
    cycle = ncycle(DataLoader(np.arange(20), batchsize=20, shuffle=True, rng=0), 2)
    orders = [tuple(b.tolist()) for b in [*cycle, *cycle]]
    assert len(set(orders)) == 4


def test_ncycle_begins_no_epoch_before_it_is_gone_through():
    loader = DataLoader(np.arange(6), shuffle=True, rng=0)
    batches = iter(loader)
    head = [next(batches) for _ in range(2)]
    again = DataLoader(np.arange(6), shuffle=True, rng=1)
    again.restore_(loader.state())
    assert [*head, *ncycle(again, 2)] == [*head, *batches, *loader]


def test_ncycle_refuses_what_is_empty_the_second_time():
    with pytest.raises(ValueError, match=r"iterator \(generator\).*2 times"):
        ncycle((i for i in range(3)), 2)
    assert list(ncycle((i for i in range(3)), 1)) == [0, 1, 2]
    for n, error in [(-1, ValueError), (1.5, TypeError), (True, TypeError)]:
        with pytest.raises(error, match=f"n is {n}"):
            ncycle([1], n)


@given(st.integers(2, 50), st.floats(0.02, 0.98), switch, seeds)
def test_a_split_is_a_partition(n, share, shuffle, seed):
    x, y = numbered(n)
    first = math.floor(n * share + 0.5)
    if not 0 < first < n:
        with pytest.raises(ValueError, match=re.escape(str([first, n - first]))):
            splitobs(x, y, at=share)
        return
    parts = splitobs(x, y, at=share, shuffle=shuffle, rng=seed)
    assert [len(py) for _, py in parts] == [first, n - first]
    assert all(np.array_equal(px[:, 0], py) for px, py in parts)
    together = np.concatenate([py for _, py in parts])
    assert np.array_equal(np.sort(together), y)
    assert shuffle or np.array_equal(together, y)
    again = splitobs(x, y, at=first, shuffle=shuffle, rng=seed)
    assert all(np.array_equal(a, b) for p, q in zip(parts, again) for a, b in zip(p, q))


def test_split_into_several_parts_and_forms():
    assert [len(p) for p in splitobs(np.arange(10), at=(0.7, 0.2))] == [7, 2, 1]
    assert [len(p) for p in splitobs(np.arange(10), at=[3, 0.25])] == [3, 3, 4]
    train, _ = splitobs(Pair(*numbered(10)))
    assert type(train) is Pair and len(train.y) == 8


@pytest.mark.parametrize(
    ("at", "error", "said"),
    [
        (1.0, ValueError, "at has 1.0"),
        (0.0, ValueError, "at has 0.0"),
        (-0.5, ValueError, "at has -0.5"),
        (float("nan"), ValueError, "at has nan"),
        (0, ValueError, "at is 0"),
        (10, ValueError, "[10, 0]"),
        ((0.7, 0.7), ValueError, "[7, 7, -4]"),
        (True, TypeError, "at has True"),
        ("half", TypeError, "at has 'half'"),
    ],
)
def test_bad_splits_say_what_came(at, error, said):
    with pytest.raises(error, match=re.escape(said)):
        splitobs(np.arange(10), at=at)


@given(sizes, seeds)
def test_shuffling_permutes_all_arrays_alike(n, seed):
    x, y = numbered(n)
    sx, sy = shuffleobs(x, y, rng=seed)
    assert np.array_equal(sx[:, 0], sy) and np.array_equal(np.sort(sy), y)
    assert not np.shares_memory(sx, x)
    assert np.array_equal(shuffleobs(y, rng=seed), sy)


@given(sizes, st.sampled_from(["array", "tuple", "named", "dict"]))
def test_batch_and_unbatch_are_inverse(n, form):
    x, y = numbered(n)
    data = {"array": x, "tuple": (x, y), "named": Pair(x, y), "dict": {"x": x, "y": y}}[form]
    observations = unbatch(data)
    assert len(observations) == n and type(batch(observations)) is type(data)
    leaves = lambda d: [d] if form == "array" else list(d.values() if form == "dict" else d)
    for a, b in zip(leaves(batch(observations)), leaves(data), strict=True):
        assert a.dtype == b.dtype and np.array_equal(a, b)


@pytest.mark.parametrize(
    ("observations", "said"),
    [
        ([], "no observation"),
        ([np.zeros(2), np.zeros(3)], "shapes (2,), (3,)"),
        ([(1, 2), (3,)], "(1, 2) and (3,)"),
        ([{"x": 1}, {"y": 1}], "{'x': 1} and {'y': 1}"),
    ],
)
def test_observations_that_do_not_stack_are_refused(observations, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        batch(observations)


@given(st.integers(1, 50), st.integers(1, 50))
def test_chunks_are_consecutive_and_even(n, pieces):
    y = np.arange(n)
    if pieces > n:
        with pytest.raises(ValueError, match=f"{n} observations into {pieces}"):
            chunk(y, pieces)
    else:
        expected = np.array_split(y, pieces)
        assert all(np.array_equal(a, b) for a, b in zip(chunk(y, pieces), expected, strict=True))
    sized = chunk((y, y), size=pieces)
    assert np.array_equal(np.concatenate([a for a, _ in sized]), y)
    assert [len(a) for a, _ in sized[:-1]] == [pieces] * (len(sized) - 1)
    assert 1 <= len(sized[-1][0]) <= pieces


def test_bad_chunks_say_what_came():
    for options, error, said in [
        ({}, TypeError, "n=None and size=None"),
        ({"n": 2, "size": 2}, TypeError, "n=2 and size=2"),
        ({"n": 0}, ValueError, "n is 0"),
        ({"size": 1.5}, TypeError, "size is 1.5"),
    ]:
        with pytest.raises(error, match=said):
            chunk(np.arange(5), **options)


# --- one-hot -------------------------------------------------------------------------------------

labellings = st.lists(
    st.one_of(st.integers(-9, 9), st.text("ab01", max_size=3)), min_size=1, max_size=8, unique=True
)


@given(labellings, st.data())
def test_onecold_is_the_inverse_of_onehotbatch(labels, data):
    ys = data.draw(st.lists(st.sampled_from(labels), max_size=10))
    rows = onehotbatch(ys, labels)
    assert rows.dtype == np.float32 and rows.shape == (len(ys), len(labels))
    assert set(rows.ravel().tolist()) <= {0.0, 1.0} and (rows.sum(axis=1) == 1).all()
    assert onecold(rows, labels).tolist() == ys
    assert onecold(rows).tolist() == [labels.index(y) for y in ys]
    for y, row in zip(ys, rows):
        assert np.array_equal(onehot(y, labels), row)
        assert onecold(row, labels) == y


@given(st.integers(1, 9), st.lists(st.integers(0, 3), max_size=3), seeds)
def test_integer_labels_of_any_shape(k, shape, seed):
    ys = np.random.default_rng(seed).integers(k, size=shape)
    rows = onehotbatch(ys, range(k))
    assert np.array_equal(rows, np.eye(k, dtype="f4")[ys])
    assert np.array_equal(onecold(rows), ys)


def test_kinds_of_labels():
    assert onehotbatch("cab", "abc").tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert onehot(np.float32(0.1), np.float32([0.1, 0.2])).tolist() == [1, 0]
    assert onehot(True, [False, True], dtype=bool).dtype == bool
    assert onehotbatch(np.array(["b", "a"]), ["a", "b"]).tolist() == [[0, 1], [1, 0]]
    with pytest.raises(ValueError, match="label 1 "):
        onehot(1, ["1", 2])  # NumPy would make strings of both


def test_an_unknown_label_takes_the_place_of_the_default():
    assert onehotbatch([7, 1], [0, 1, 2], 2).tolist() == [[0, 0, 1], [0, 1, 0]]
    assert onehot("z", ["a", "?"], "?").tolist() == [0, 1]
    with pytest.raises(ValueError, match="default 9 is not in labels"):
        onehotbatch([0], [0, 1], 9)


def test_of_equal_scores_the_first_counts():
    assert onecold([[1.0, 3.0, 3.0], [0.0, 0.0, 0.0]]).tolist() == [1, 0]
    assert onecold(np.zeros((2, 3, 4))).shape == (2, 3)
    assert onecold([0.2, np.inf], ["a", "b"]) == "b"


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: onehot("z", ["a", "b"]), ValueError, "label 'z' is not in labels: ['a', 'b']"),
        (lambda: onehotbatch([1, 10], range(10)), ValueError, "label 10 is not in labels"),
        (lambda: onehotbatch([3], range(20, 40)), ValueError, "28, 29] and 10 more"),
        (lambda: onehot(np.nan, [0.0, 1.0]), ValueError, "label nan is not"),
        (lambda: onehot(1.0, [np.nan, 1.0]), ValueError, "labels has a NaN"),
        (lambda: onehotbatch([1], 10), TypeError, "labels is 10 (int)"),
        (lambda: onehotbatch([1], {1, 2}), TypeError, "labels is {1, 2} (set)"),
        (lambda: onehotbatch([1], []), ValueError, "labels is empty"),
        (lambda: onehotbatch([1], [1, 2, 1]), ValueError, "labels has 1 twice"),
        (lambda: onehotbatch([1], np.eye(2)), TypeError, "a label is a scalar"),
        (lambda: onehotbatch([np.ones((2, 2)), np.ones((2, 3))], [1]), TypeError, "ys does not"),
        (lambda: onecold([[1.0, np.nan]]), ValueError, "NaN"),
        (lambda: onecold(3.0), ValueError, "shape ()"),
        (lambda: onecold(np.zeros((2, 0))), ValueError, "shape (2, 0)"),
        (lambda: onecold([[1.0, 2.0]], "abc"), ValueError, "3 labels, but the last axis"),
    ],
)  # fmt: skip
def test_bad_labels_say_what_came(call, error, said):
    with pytest.raises(error, match=re.escape(said)):
        call()
