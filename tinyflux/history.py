"""What `train_` hands out: the `History` of a run, and the `TrainingState` for its callbacks."""

from __future__ import annotations

import time
from itertools import pairwise
from types import SimpleNamespace

from .checks import as_number


class History:
    """The losses of a training run.

    Attributes
    ----------
    losses : list of float
        One per step, measured before its update.
    epochs : list of int
        For each epoch that was begun, how many steps came before it.
    recorded : dict of str to list of (int, float)
        What `record` was given: pairs of the number of losses so far, and the value.
    stopped : bool
        Whether `stop()` ended the run.
    seconds : float
        How long the run took, or has taken until now.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> W = flux.Tensor([1.0])
    >>> loss = lambda x: np.sum(W * x)
    >>> h = flux.train_(loss, flux.params(W), [1.0, 2.0], flux.SGD(0.5), epochs=2)
    >>> h, h.losses, h.epoch_means()
    (History(4 steps in 2 epochs, last loss -2), [1.0, 1.0, -0.5, -2.0], [1.0, -1.25])
    """

    def __init__(self):
        self.losses = []
        self.epochs = []
        self.recorded = {}
        self.stopped = False
        self.began = time.perf_counter()
        self.ended = None

    @property
    def seconds(self):
        """How long the run took, or has taken until now."""
        return (self.ended or time.perf_counter()) - self.began

    def begin_epoch(self):
        """Note that another epoch begins here."""
        self.epochs.append(len(self.losses))

    def record(self, **values):
        """Keep values of your own beside the losses, each with the step that it belongs to.

        In a callback: `state.history.record(accuracy=0.97)`.

        Examples
        --------
        >>> from tinyflux import History
        >>> h = History()
        >>> h.record(accuracy=0.5)
        >>> h.recorded
        {'accuracy': [(0, 0.5)]}
        """
        values = {name: as_number(value, f"record: {name}") for name, value in values.items()}
        for name, value in values.items():
            self.recorded.setdefault(name, []).append((len(self.losses), value))

    def epoch_means(self):
        """The mean loss of each epoch that has steps."""
        cuts = [*self.epochs, len(self.losses)]
        parts = (self.losses[a:b] for a, b in pairwise(cuts))
        return [sum(p) / len(p) for p in parts if p]

    def plot(self, ax=None):
        """Draw the losses and what was recorded (needs the extra `plot`); returns the axes."""
        try:
            import matplotlib.pyplot as plt
        except ImportError:
            raise ImportError(
                'History.plot needs matplotlib: pip install "tinyflux-autodiff[plot]"'
            ) from None
        ax = plt.subplots()[1] if ax is None else ax
        ax.plot(range(1, len(self) + 1), self.losses, label="loss", linewidth=0.8)
        for name, pairs in self.recorded.items():
            ax.plot(*zip(*pairs, strict=True), label=name)
        ax.set_xlabel("step")
        ax.legend()
        return ax

    def __len__(self):
        return len(self.losses)

    def __repr__(self):
        last = f", last loss {self.losses[-1]:.4g}" if self.losses else ""
        end = ", stopped" if self.stopped else ""
        return f"History({len(self)} steps in {len(self.epochs)} epochs{last}{end})"


class TrainingState:
    """Where training stands, for a callback that takes an argument.

    Attributes
    ----------
    epoch, step : int
        Both count from 1; the step counts the data of all epochs, those left out by `skip` too.
    loss : float
        Of this step, before its update.
    gradients : Grads
        With which the update was made.
    batch : object
        The datum.
    params, opt, history
        What is trained, by what, and the losses so far. Parameters that are added or discarded here
        are so from the next step on.
    elapsed : float
        Seconds since the run began.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> W = flux.Tensor([1.0])
    >>> show = lambda state: print(state.epoch, state.step, state.loss, state.gradients[W])
    >>> h = flux.train_(lambda x: np.sum(W * x), flux.params(W), [2.0], flux.SGD(0.5), cb=show)
    1 1 2.0 [2.]
    """

    def __init__(self, epoch, step, loss, gradients, batch, run):
        self.epoch, self.step, self.loss = epoch, step, loss
        self.gradients, self.batch, self.run = gradients, batch, run

    params = property(lambda self: self.run.given)
    opt = property(lambda self: self.run.opt)
    history = property(lambda self: self.run.history)
    elapsed = property(lambda self: self.run.history.seconds)

    def __getstate__(self):  # of a copy or a pickle: without the loss and the loop itself
        run = SimpleNamespace(given=self.params, opt=self.opt, history=self.history)
        return {**vars(self), "run": run}
