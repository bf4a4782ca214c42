"""A straight line through noisy points: the smallest thing that can be trained.

Run me:  python examples/02_line.py
"""

import numpy as np

import tinyflux as flux


def main(steps=200):
    rng = np.random.default_rng(0)
    x = np.linspace(-1, 1, 50)
    y = 3 * x - 2 + 0.1 * rng.standard_normal(50)

    # Two parameters: arrays that may be changed by training.
    slope, offset = flux.Tensor(0.0), flux.Tensor(0.0)
    ps = flux.params(slope, offset)

    def loss(x, y):
        return np.mean((slope * x + offset - y) ** 2)

    print(f"before: loss {loss(x, y):.4f}")

    # One step by hand: the gradient says uphill, so go a little the other way.
    gs = flux.gradient(lambda: loss(x, y), ps)
    print(f"gradient: {gs[slope]:.4f} for the slope, {gs[offset]:.4f} for the offset")
    for p in ps:
        p.data -= 0.1 * gs[p]
    print(f"after one step: loss {loss(x, y):.4f}")

    # The same again, two hundred times.
    history = flux.train_(loss, ps, [(x, y)], flux.SGD(0.1), epochs=steps)
    print(f"after {len(history)} more: loss {loss(x, y):.4f}")
    print(f"y = {float(slope):.3f} x {float(offset):+.3f}   (drawn around y = 3 x - 2)")

    # For a line there is a formula, and training finds what it gives.
    exact = np.polyfit(x, y, 1)
    print(f"y = {exact[0]:.3f} x {exact[1]:+.3f}   by least squares")
    return abs(float(slope) - exact[0]) + abs(float(offset) - exact[1])


if __name__ == "__main__":
    main()
