"""The two real sets, read from the package: handwritten digits and iris flowers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..checks import as_flag

__all__ = ["Split", "digits", "iris"]


class Split(NamedTuple):
    """A set of labelled data in two parts, one to learn from and one to be examined on.

    Examples
    --------
    >>> x_train, y_train, x_test, y_test = iris()
    >>> iris().y_test.shape
    (30,)
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def digits(flat: bool = True) -> Split:
    """Handwritten digits: 1,797 grey images of 8 x 8 pixels, of 0 to 9, by 13 people.

    Parameters
    ----------
    flat : bool
        True gives images of shape (64,), row after row; False gives (8, 8).

    Returns
    -------
    Split
        `x_train` (1442, 64) and `x_test` (355, 64) of float32 in [0, 1], 1 being full ink;
        `y_train` (1442,) and `y_test` (355,) of int64, the digit. The arrays are yours to change.

    Notes
    -----
    In the order of the file, every fifth image of a digit belongs to the test part, beginning with
    the fifth. So the split is always the same, and each digit has the same share in both parts.
    The same people wrote both parts: the score says nothing about an unknown hand.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
    Learning Repository, 1998, doi:10.24432/C50P49, the test set; licence CC BY 4.0.

    Examples
    --------
    >>> data = digits()
    >>> data.x_train.shape, data.x_test.shape
    ((1442, 64), (355, 64))
    >>> image = digits(flat=False).x_train[0]
    >>> for row in image:
    ...     print("".join(" .:*#"[int(4 * ink)] for ink in row).rstrip())
      .*:
      **:*.
      *  ::
     .*  ::
     .:  ::
     .:  *.
      *.:*
      .*:
    """
    flat = as_flag(flat, "digits: flat")
    stored = _read("digits.npz")
    x = stored["pixels"].astype(np.float32) / np.float32(16)
    return _split(x if flat else x.reshape(-1, 8, 8), stored["labels"].astype(np.int64))


def iris() -> Split:
    """Iris flowers: four lengths of 150 flowers, 50 of each of three species.

    Returns
    -------
    Split
        `x_train` (120, 4) and `x_test` (30, 4) of float32: length and width of the sepal, length
        and width of the petal, in cm; `y_train` (120,) and `y_test` (30,) of int64: 0 is *Iris
        setosa*, 1 *versicolor*, 2 *virginica*. The arrays are yours to change.

    Notes
    -----
    Every fifth flower of a species belongs to the test part, beginning with the fifth. The flowers
    are in the order of the file, which is by species: shuffle them for training.

    The numbers are those of Fisher's paper, as scikit-learn has them. The UCI copy differs in two
    flowers, both setosa: in its 35th the petal is 0.1 cm wide instead of 0.2, and its 38th has
    (4.9, 3.1, 1.5, 0.1) instead of (4.9, 3.6, 1.4, 0.1).

    Source: R. A. Fisher, "The use of multiple measurements in taxonomic problems", Annals of
    Eugenics 7 (1936) 179-188; "Iris", UCI Machine Learning Repository, doi:10.24432/C56C76;
    licence CC BY 4.0.

    Examples
    --------
    >>> x, y, x_test, y_test = iris()
    >>> x.shape, x[0].tolist() == np.float32([5.1, 3.5, 1.4, 0.2]).tolist()
    ((120, 4), True)
    """
    stored = _read("iris.npz")
    return _split(
        stored["tenths"].astype(np.float32) / np.float32(10), stored["labels"].astype(np.int64)
    )


def _read(name: str) -> dict[str, np.ndarray]:
    """The arrays of a bundled file, which may lie inside a zip archive."""
    from importlib.resources import files

    with files(__package__).joinpath(name).open("rb") as file, np.load(file) as stored:
        return dict(stored)


def _split(x: np.ndarray, y: np.ndarray) -> Split:
    """Put every fifth observation of each class into the test part."""
    test = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        test[np.flatnonzero(y == label)[4::5]] = True
    return Split(x[~test], y[~test], x[test], y[test])
