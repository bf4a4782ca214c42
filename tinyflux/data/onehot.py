"""One-hot encoding: labels as rows with a single 1, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ..checks import as_array, brief, numeric, shown

__all__ = ["onecold", "onehot", "onehotbatch"]


def onehot(
    label: Any,
    labels: Sequence[Any] | np.ndarray,
    default: Any = None,
    *,
    dtype: DTypeLike = np.float32,
) -> np.ndarray:
    """Return the vector that is 1 at the place of `label` in `labels` and 0 elsewhere.

    Parameters
    ----------
    label : scalar
        A number, a string, ...
    labels : sequence or array, shape (k,)
        All labels, in the order of the classes.
    default : scalar, optional
        The label in whose place an unknown one is counted.
    dtype : dtype
        Of the result; float32 unless told.

    Returns
    -------
    numpy.ndarray
        Shape (k,).

    Raises
    ------
    ValueError
        If `label` is not in `labels` and there is no default, or a label is there twice.
    TypeError
        If `labels` is not a sequence.

    Examples
    --------
    >>> onehot("b", ["a", "b", "c"])
    array([0., 1., 0.], dtype=float32)
    """
    kept = np.empty((), object)  # also where the label is a tuple, or a list by mistake
    kept[()] = label
    return _encode("onehot", kept, labels, default, dtype)


def onehotbatch(
    ys: Any,
    labels: Sequence[Any] | np.ndarray,
    default: Any = None,
    *,
    dtype: DTypeLike = np.float32,
) -> np.ndarray:
    """Return one row per label of `ys`, 1 at the place of that label in `labels` and 0 elsewhere.

    Parameters
    ----------
    ys : sequence or array, shape (n,) or any other
        Numbers or strings; of a single string, its characters.
    labels : sequence or array, shape (k,)
        All labels, in the order of the classes; for digits `range(10)`.
    default : scalar, optional
        The label in whose place unknown ones are counted.
    dtype : dtype
        Of the result; float32 unless told.

    Returns
    -------
    numpy.ndarray
        Shape (n, k): that of `ys`, and a last axis for the classes.

    Raises
    ------
    ValueError
        If a label is not in `labels` and there is no default, or one is there twice.
    TypeError
        If `labels` is not a sequence.

    Examples
    --------
    >>> onehotbatch([2, 0], range(3))
    array([[0., 0., 1.],
           [1., 0., 0.]], dtype=float32)
    """
    if isinstance(ys, str):
        ys = list(ys)
    try:
        ys = ys if isinstance(ys, np.ndarray) else np.array(ys, object)
    except ValueError as error:  # arrays of unequal shapes
        raise TypeError(f"onehotbatch: ys does not form an array of labels: {error}") from None
    return _encode("onehotbatch", ys, labels, default, dtype)


def _encode(who: str, ys: np.ndarray, labels: Any, default: Any, dtype: DTypeLike) -> np.ndarray:
    """The rows of `onehotbatch`, for `ys` of any shape."""
    known, dtype = _listed(labels, who), _numeric(dtype, who)
    if ys.ndim > 32:
        raise TypeError(f"{who}: the labels are nested {ys.ndim} deep; a list of them is wanted")
    given = ys.ravel().tolist()
    for label in (*given, default):
        if not _hashable(label):
            raise TypeError(
                f"{who}: a label is {shown(label)}, but it must be a number, a string, ..."
            )
    # A dict compares as Python does, so 1 is never "1", whatever array the labels would make.
    place = {label: i for i, label in enumerate(known)}
    if len(place) < len(known):
        twice = next(label for i, label in enumerate(known) if place[label] != i)
        raise ValueError(
            f"{who}: labels has {brief(twice)} twice, but each label must be there once"
        )
    if default is not None:
        fallback = place.get(default)
        if fallback is None:
            raise ValueError(
                f"{who}: the default {brief(default)} is not in labels: {_shown(known)}"
            )
        places = [place.get(y, fallback) for y in given]
    else:
        try:
            places = [place[y] for y in given]
        except KeyError as unknown:
            raise ValueError(
                f"{who}: the label {brief(unknown.args[0])} is not in labels: {_shown(known)}"
            ) from None
    rows = np.zeros((len(places), len(known)), dtype)
    rows[np.arange(len(places)), places] = 1
    return rows.reshape(*ys.shape, len(known))


def _hashable(label: Any) -> bool:
    """Whether it can be a label: no list, no array, no Tensor with axes."""
    if getattr(label, "ndim", 0):
        return False
    try:
        hash(label)
    except TypeError:
        return False
    return True


def _numeric(dtype: Any, who: str) -> np.dtype:
    """The dtype of the rows, if it is one of numbers."""
    try:
        known = np.dtype(dtype)
    except (TypeError, ValueError, AttributeError, RecursionError, DeprecationWarning):
        known = None
    if dtype is None or known is None or known.kind not in "fiub":
        raise TypeError(f"{who}: dtype is {shown(dtype)}, but it must be one of real numbers")
    return known


def _listed(labels: Any, who: str) -> list[Any]:
    """The labels as a list of plain Python values."""
    if (
        isinstance(labels, (set, frozenset))
        or not np.iterable(labels)
        or not hasattr(labels, "__len__")
    ):
        raise TypeError(
            f"{who}: labels is {shown(labels)}, but it must list all labels in "
            "order, as range(10) or ['cat', 'dog'] does"
        )
    known = labels.tolist() if isinstance(labels, np.ndarray) else list(labels)
    known = [label.item() if isinstance(label, np.generic) else label for label in known]
    if not known:
        raise ValueError(f"{who}: labels is empty, but at least one label is needed")
    if any(isinstance(label, tuple) or not _hashable(label) for label in known):
        raise TypeError(f"{who}: labels has an array or a list in it, but a label is a scalar")
    if any(label != label for label in known):
        raise ValueError(f"{who}: labels has a NaN, which is equal to nothing and so no label")
    return known


def _shown(known: list[Any]) -> str:
    first = f"[{', '.join(map(brief, known[:10]))}]"
    return first if len(known) <= 10 else f"{first} and {len(known) - 10} more"


def onecold(y: ArrayLike, labels: Sequence[Any] | np.ndarray | None = None) -> Any:
    """Return the label of the largest entry along the last axis; the inverse of `onehotbatch`.

    Parameters
    ----------
    y : array_like, shape (..., k)
        One-hot rows, or the scores or probabilities a model gives them.
    labels : sequence or array, shape (k,), optional
        All labels, in the order of the classes; without it the result is the index.

    Returns
    -------
    numpy.ndarray or scalar
        Shape (...), so a scalar for a vector. Of equal entries the first counts.

    Raises
    ------
    ValueError
        If `y` contains NaN, has no last axis or an empty one, or one of another length than
        `labels`.
    TypeError
        If `labels` is not a sequence.

    Examples
    --------
    >>> onecold([[0.1, 0.7, 0.2], [0.5, 0.0, 0.5]], ["a", "b", "c"])
    array(['b', 'a'], dtype='<U1')
    """
    kept = hasattr(y, "__array_function__") and not isinstance(y, np.ndarray)  # a Tensor, ...
    scores = numeric(y if kept else as_array(y, "onecold"), "onecold")
    if np.ndim(scores) == 0 or np.shape(scores)[-1] == 0:
        raise ValueError(
            f"onecold: got shape {np.shape(scores)}, but the last axis must be classes"
        )
    if np.any(np.isnan(scores)):
        raise ValueError("onecold: got NaN among the scores, so there is no largest one")
    index = np.argmax(scores, axis=-1)
    if labels is None:
        return index
    known, width = _listed(labels, "onecold"), np.shape(scores)[-1]
    if len(known) != width:
        raise ValueError(
            f"onecold: there are {len(known)} labels, but the last axis of y has length {width}"
        )
    # An array of unlike things would turn them all into strings.
    alike = len({type(label) for label in known}) == 1
    return np.array(known, dtype=None if alike else object)[index]
