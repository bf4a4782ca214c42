"""What the tests of `compiled` need: the memory of a recording, and comparisons."""

from types import FunctionType

import numpy as np

from tinyflux.tensor import Tensor


def buffers(hot):
    """The arrays that the latest recording of `hot` works in, in all its bound copies."""
    entry = hot.latest
    names = {name for name, *_ in entry.source.buffers}
    names |= {name for name in entry.source.gradients if name is not None}
    found = []
    for step, *_ in entry.idle:
        found += [a for name, a in cells(step) if name in names]
    return found


def cells(step):
    """Pairs (name, content) of what a function and those that it calls hold on to."""
    seen, todo = [], [step]
    while todo:
        f = todo.pop()
        for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
            seen.append((name, cell.cell_contents))
            if isinstance(cell.cell_contents, FunctionType):
                todo.append(cell.cell_contents)
    return seen


def poison(hot):
    """Fill all memory that is used again with what would be seen in a result."""
    for a in buffers(hot):
        a.fill(np.nan if a.dtype.kind == "f" else True if a.dtype.kind == "b" else 99)


def steady(hot):
    """A check that nothing was recorded since it was made, or since it was first called."""
    seen = []

    def check():
        seen.append(hot.latest)
        assert seen[0] is hot.latest

    return check


def agree(found, wanted, rtol=0.0):
    """Whether two results are equal: in type, shape and bits, or up to `rtol`."""
    if found is None or wanted is None:
        assert found is wanted
        return
    assert not isinstance(found, Tensor)
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    if rtol:
        scale = np.max(np.abs(wanted), where=np.isfinite(wanted), initial=1e-30)
        np.testing.assert_allclose(found, wanted, rtol=rtol, atol=rtol * scale)
    else:
        np.testing.assert_array_equal(found, wanted)


def agree_all(found, wanted, rtol=0.0):
    """`agree` for each pair of two lists."""
    for a, b in zip(found, wanted, strict=True):
        agree(a, b, rtol)


def separate(*groups):
    """No array of one group shares memory with one of another, nor with one of its own group."""
    arrays = [[a for a in group if isinstance(a, np.ndarray)] for group in groups]
    flat = [(i, a) for i, group in enumerate(arrays) for a in group]
    for k, (i, a) in enumerate(flat):
        for j, b in flat[k + 1 :]:
            if i == 0 or j == 0:  # the first group is what was returned
                assert a is not b and not np.shares_memory(a, b)
