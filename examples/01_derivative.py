"""A derivative in three ways: by hand, by differences, and by `gradient`.

Run me:  python examples/01_derivative.py
"""

import numpy as np

import tinyflux as flux


def f(x):
    """A function like any other: plain NumPy."""
    return np.sin(x) * x**2


def by_hand(x):
    """The product rule: (u v)' = u' v + u v'."""
    return np.cos(x) * x**2 + np.sin(x) * 2 * x


def by_differences(x, h=1e-6):
    """The slope of a short chord: almost right, and two calls of f for each input."""
    return (f(x + h) - f(x - h)) / (2 * h)


def main():
    x = 1.5
    (slope,) = flux.gradient(f, x)
    print(f"f(x) = sin(x) x^2 at x = {x}")
    print(f"  by hand         {by_hand(x):.12f}")
    print(f"  by differences  {by_differences(x):.12f}")
    print(f"  by gradient     {slope:.12f}")

    print("\nHow gradient does it. What f computed is written on a tape:\n")
    _, back = flux.pullback(f, x)
    print(back.tape)
    print("\nand the tape is walked backwards, with the derivative of each row:")
    print(f"  back(1.0) = {back(1.0)[0]:.12f}")

    print("\nThe derivative is a function as well, so it has a derivative:")
    (bend,) = flux.gradient(lambda x: flux.gradient(f, x)[0], x)
    print(f"  f''(x)          {bend:.12f}")

    print("\nMany inputs, one number out: still a single pass backwards.")
    (g,) = flux.gradient(lambda v: np.sum(f(v)), np.linspace(0, 3, 7))
    print(f"  gradient        {np.round(g, 4)}")
    return float(slope)


if __name__ == "__main__":
    main()
