"""Two sets of points in the plane, drawn at random: half moons and spirals."""

from __future__ import annotations

import numpy as np

from ..checks import as_integer, as_real
from ..generators import generator

__all__ = ["moons", "spirals"]


def moons(
    n: int, noise: float = 0.1, rng: np.random.Generator | int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Two half circles of radius 1 that reach into each other.

    With t uniform in [0, π], class 0 is (cos t, sin t) and class 1 is (1 - cos t, 1/2 - sin t);
    normal noise is added to both coordinates.

    Parameters
    ----------
    n : int
        The number of points, at least 1. The classes alternate.
    noise : float
        The standard deviation of the noise.
    rng : numpy.random.Generator, int or None
        See `tinyflux.generators.generator`.

    Returns
    -------
    x : numpy.ndarray
        The points, shape (n, 2), float32.
    y : numpy.ndarray
        The class of each, shape (n,), int64.

    Raises
    ------
    TypeError, ValueError
        If `n` is not a positive integer, or `noise` not a number of at least 0.

    Examples
    --------
    >>> x, y = moons(200, rng=0)
    >>> x.shape, np.bincount(y).tolist()
    ((200, 2), [100, 100])
    """
    n = as_integer(n, "moons: n", least=1)
    noise = as_real(noise, "moons: noise", finite=True)
    rng = generator(rng)
    t = rng.uniform(0, np.pi, n)
    y = np.arange(n) % 2
    upper = np.column_stack([np.cos(t), np.sin(t)])
    lower = np.column_stack([1 - np.cos(t), 0.5 - np.sin(t)])
    return _blurred(np.where(y[:, None] == 0, upper, lower), noise, rng), y.astype(np.int64)


def spirals(
    n: int,
    classes: int = 2,
    noise: float = 0.02,
    turns: float = 1.0,
    rng: np.random.Generator | int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Spirals around the origin, one per class, each turned against the next.

    With r uniform in [0, 1], class k is (r cos φ, r sin φ) with φ = 2π (turns · r + k / classes);
    normal noise is added to both coordinates.

    Parameters
    ----------
    n : int
        The number of points, at least 1. The classes take turns.
    classes : int
        The number of spirals, at least 1.
    noise : float
        The standard deviation of the noise. The arms lie 1 / (turns · classes) apart.
    turns : float
        How often a spiral goes around.
    rng : numpy.random.Generator, int or None
        See `tinyflux.generators.generator`.

    Returns
    -------
    x : numpy.ndarray
        The points, shape (n, 2), float32.
    y : numpy.ndarray
        The class of each, shape (n,), int64.

    Raises
    ------
    TypeError, ValueError
        If `n` or `classes` is not a positive integer, or `noise` or `turns` not a number of at
        least 0.

    Examples
    --------
    >>> x, y = spirals(300, classes=3, rng=0)
    >>> x.shape, np.bincount(y).tolist()
    ((300, 2), [100, 100, 100])
    """
    n = as_integer(n, "spirals: n", least=1)
    classes = as_integer(classes, "spirals: classes", least=1)
    noise = as_real(noise, "spirals: noise", finite=True)
    turns = as_real(turns, "spirals: turns", finite=True)
    rng = generator(rng)
    r = rng.uniform(0, 1, n)
    y = np.arange(n) % classes
    angle = 2 * np.pi * (turns * r + y / classes)
    arms = np.column_stack([r * np.cos(angle), r * np.sin(angle)])
    return _blurred(arms, noise, rng), y.astype(np.int64)


def _blurred(points: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """The points with normal noise, as float32."""
    return (points + noise * rng.standard_normal(points.shape)).astype(np.float32)
