"""A network learns to read handwritten digits.

Run me:  python examples/digits.py

The 1,797 digits are real: 8 x 8 pixels each, written by 13 people. Four fifths of them are learned
from; the others the network has never seen when it is tested on them.
"""

import time

import numpy as np

import tinyflux as flux
from tinyflux.losses import logitcrossentropy

SHADES = " .:-=+*#%@"


def picture(images, labels):
    """Images of 8 x 8 side by side as text, with a line of labels below."""
    shades = np.array(list(SHADES))
    rows = [shades[(image * (len(SHADES) - 1)).round().astype(int)] for image in images]
    lines = ["   ".join("".join(c * 2 for c in row[i]) for row in rows) for i in range(8)]
    return "\n".join([*lines, "   ".join(f"{label:^16}" for label in labels)])


def main(epochs=60, target=0.975, seed=0):
    flux.seed_(seed)
    x, y, x_test, y_test = flux.datasets.digits()
    data = flux.DataLoader((x, y), batchsize=64, shuffle=True)
    model = flux.Chain(flux.Dense(64, 64, flux.relu), flux.Dropout(0.2), flux.Dense(64, 10))
    print(model)

    def loss(x, y):
        return logitcrossentropy(model(x), y)

    def accuracy():
        return np.mean(flux.onecold(model(x_test)) == y_test)

    def show(state):
        right = accuracy()
        print(
            f"epoch {state.epoch:3}   loss {state.loss:.4f}   {right:6.1%} of the test digits right"
        )
        if right >= target:
            flux.stop()

    began = time.perf_counter()
    flux.train_(
        loss, flux.params(model), data, flux.ADAM(0.003), epochs=epochs, cb=flux.throttle(show, 0.1)
    )
    right = accuracy()
    print(
        f"\n{right:.1%} of the {len(y_test)} test digits right, after "
        f"{time.perf_counter() - began:.1f} s. Five of them, and what the network reads:\n"
    )
    read = flux.onecold(model(x_test[:5]))
    print(picture(x_test[:5].reshape(-1, 8, 8), read))
    return right


if __name__ == "__main__":
    main()
