"""The training loop: loss and gradient, a check, the update, the callbacks.

`update_` is one step of an optimiser; `train_` is the loop around it, which you can also write by
hand in ten lines with `gradient` or `pullback` (`examples/flux_training.py` shows both).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextvars import copy_context
from operator import attrgetter

import numpy as np

from .callbacks import SkipDatum, StopTraining, phase
from .checks import as_callable, as_flag, brief, is_compiled, is_whole, shown
from .errors import NoGradientError, NonFiniteLossError, NotAskedError
from .gradient import Pullback
from .gradient_seeds import one_like
from .grads import Grads
from .history import History, TrainingState
from .optimise.plan import NotFinite, refuse_odd
from .progress import progress_bar
from .tape import open_tape, recording
from .tensor import Tensor
from .train_arguments import (
    arguments,
    called_with,
    explained,
    no_data,
    params_for,
    refuse_odd_data,
    wants_argument,
)

ARRAYS_ONLY = {np.ndarray}
TRAINERS = 16  # kept ready, for data of several shapes
the_data = attrgetter("_array")


def update_(opt, ps, gs):
    """Change the parameters in place by one step of the optimiser.

    Parameters
    ----------
    opt : an optimiser
    ps : Params, or list or tuple of Tensor
    gs : Grads, or a mapping from each Tensor to its gradient
        Where the gradient is None, the parameter and its state are left alone.

    Raises
    ------
    NonFiniteLossError
        When a gradient is NaN or infinite; nothing has been updated then.
    NotAskedError
        (a KeyError) if there is no gradient for one of `ps`.
    TypeError
        For arguments of the wrong kind, or in another order.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> W = flux.Tensor([1.0, 2.0])
    >>> ps = flux.params(W)
    >>> flux.update_(flux.SGD(0.1), ps, flux.gradient(lambda: np.sum(W**2), ps))
    >>> W
    Tensor([0.8, 1.6])
    """
    refuse_compiled("update_")
    if isinstance(opt, type) or not callable(getattr(opt, "step_", None)):
        raise TypeError(f"update_: opt must be an optimiser such as ADAM(0.001), got {shown(opt)}")
    if not isinstance(gs, Mapping):
        raise TypeError(f"update_: gs must be what gradient(f, ps) returns, got {shown(gs)}")
    ps = params_for(ps, "update_")
    pairs = [(p, gs[p]) for p in ps if isinstance(gs, Grads) or p in gs]
    if len(pairs) < len(ps):
        missing = next(p for p in ps if p not in gs)
        raise NotAskedError(f"update_: gs has no gradient for {ps.name(missing)}")
    gradients = [g for _, g in pairs]
    try:
        apply_(opt, [p for p, _ in pairs], gradients)
    except NotFinite:
        raise NonFiniteLossError(f"update_: {not_finite(ps, gradients)}") from None


def not_finite(ps, gradients):
    """Which is the first parameter whose gradient is not finite, and the remedy."""
    pairs = zip(ps.names(), gradients, strict=True)
    bad = (name for name, g in pairs if g is not None and not np.isfinite(g).all())
    return (
        f"the gradient of {next(bad, 'a parameter')} is not finite; nothing was updated with it. "
        "Look for a square root or a logarithm at 0, a division by something small, or a learning "
        "rate that is too large."
    )


def apply_(opt, tensors, gradients):
    """One step for lists of Tensors and gradients."""
    kinds = set(map(type, gradients))
    if kinds != ARRAYS_ONLY:
        if Tensor in kinds:
            raise TypeError("update_ inside a gradient: training steps cannot be differentiated")
        for kind in kinds - {type(None)}:
            if not issubclass(kind, (np.ndarray, np.generic)):
                raise TypeError(f"update_: a gradient is a {kind.__name__}; wanted arrays or None")
        tensors, gradients = reached(tensors, gradients)
    if tensors:
        opt.step_(tensors, list(map(the_data, tensors)), gradients)


def reached(tensors, gradients):
    """Those that have a gradient, and their gradients."""
    pairs = [(t, g) for t, g in zip(tensors, gradients, strict=True) if g is not None]
    return [t for t, _ in pairs], [g for _, g in pairs]


def train_(loss, *args, cb=None, epochs=1, progress=False):
    """Train: for every datum take the gradient of the loss and update the parameters.

    Called as `train_(loss, ps, data, opt)`, or as `train_(loss, data, opt)` with an optimiser that
    was made with its parameters, `opt = ADAM(ps, 0.001)`; these go by position, the others by name.

    Parameters
    ----------
    loss : callable
        Returns a number. A datum that is a tuple is splatted, `loss(*d)`; a dict is passed as
        keywords, `loss(**d)`; everything else is passed whole, `loss(d)`.
    ps : Params
        What to train, from `params(model)`.
    data : iterable
        Of data, gone through once per epoch: a list, a DataLoader, a zip, a generator.
    opt : an optimiser, such as ADAM(0.001)
    cb : callable or list of callables, optional
        Called after every update: with the `TrainingState` if it has a parameter that must be
        given, otherwise with nothing. See `throttle`, `stop`.
    epochs : int, default 1
        How often the data is gone through; 0 trains nothing.
    progress : bool, default False
        Show a bar with the loss (needs the extra `progress`).

    Returns
    -------
    History
        The losses and where the epochs began.

    Raises
    ------
    NonFiniteLossError
        When the loss or a gradient is NaN or infinite, before anything is updated with it; has
        the `history` of the steps before.
    NoGradientError
        When the loss depends on none of the parameters.
    ValueError, TypeError
        For data that yields nothing, and for arguments of the wrong kind.

    Notes
    -----
    One step is: loss and gradient, the check that the loss is finite, the update, the callbacks.
    `skip()` in the loss leaves the datum out; `stop()` from anywhere ends the training, over all
    epochs (in a callback: after the update). Ctrl-C re-raises KeyboardInterrupt with the `history`
    so far as an attribute; parameters and optimiser are then those after a whole step. As
    `Flux.train!` of Flux 0.12, and of 0.3 for the shorter form.

    The loop runs in a copy of the caller's context: what is set in context variables in it, such as
    the settings of `np.seterr`, ends with it.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> m = flux.Dense(1, 1)
    >>> x = np.linspace(-1, 1, 20)[:, None]
    >>> loss = lambda x, y: flux.losses.mse(m(x), y)
    >>> history = flux.train_(loss, flux.params(m), [(x, 3 * x)], flux.ADAM(0.1), epochs=200)
    >>> history.losses[-1] < 1e-3
    True
    """
    refuse_compiled("train_")
    as_callable(loss, "train_: the loss")
    ps, data, opt = arguments(args)
    refuse_odd_data(data)
    if not is_whole(epochs) or epochs < 0:
        raise TypeError(f"train_: epochs must be a whole number of at least 0, got {brief(epochs)}")
    progress = as_flag(progress, "train_: progress")
    run = Run(loss, ps, opt, cb)
    # What the loop sets is gone when its context is left, whatever exception comes, and when.
    return copy_context().run(run.through, data, int(epochs), progress)


def refuse_compiled(who):
    """Within a compiled function it would be done once, when that is recorded."""
    tape = recording()
    if tape is not None and tape.tracing:
        tape.refuse(who)


class Run:
    """One call of `train_`: what it trains, and where it stands."""

    def __init__(self, loss, ps, opt, cb):
        self.loss, self.given, self.opt = loss, ps, opt
        self.begin()
        self.callbacks = [] if cb is None else list(cb) if isinstance(cb, (list, tuple)) else [cb]
        for f in self.callbacks:
            if not callable(f):
                raise TypeError(f"train_: a callback must be a function, got {brief(f)}")
            if getattr(f, "answers", False):
                raise TypeError(
                    "train_: a trigger only says when it is time to stop; to stop then write "
                    "cb=lambda: trigger() and stop(), or take stop_early(...)"
                )
        self.takes_state = [wants_argument(f) for f in self.callbacks]
        self.history = History()
        self.step = 0
        self.drawn = False  # whether a datum was drawn that the end of training left unused

    def begin(self):
        """Take the parameters as they are given now; a callback may add some, or discard them."""
        self.ps = self.given.copy()
        self.tensors = list(self.ps)
        self.prepared = None  # the step of the optimiser over all parameters
        self.trainers = {}  # of a compiled loss, one for each recording (by its id)

    def through(self, data, epochs, progress):
        """All epochs; returns the history."""
        open_tape.set(None)  # a training inside a gradient is no part of it
        phase.set("loss")
        try:
            with progress_bar(progress, data, epochs) as advance:
                for epoch in range(1, epochs + 1):
                    self.epoch(epoch, data, advance)
            self.flush()
        except StopTraining:
            self.history.stopped = True
            self.drawn = phase.get() == "loss"
            self.flush()
        except SkipDatum:
            raise RuntimeError(
                "train_: skip() was called by the data, before there was a datum to leave out; "
                "call it in the loss, and in a generator use continue"
            ) from None
        except KeyboardInterrupt as interrupt:
            self.drawn = True
            self.flush()
            interrupt.history = self.history
            interrupt.add_note(
                f"training was interrupted after {len(self.history)} steps; "
                "the losses so far are in the attribute `history`"
            )
            raise
        except NonFiniteLossError as error:
            self.drawn = True
            self.flush()
            error.history = self.history
            raise
        finally:
            self.history.ended = time.perf_counter()
        return self.history

    def epoch(self, epoch, data, advance):
        """One pass through the data."""
        make_step = self.compiled_step if is_compiled(self.loss) else self.eager_step
        before = self.step
        self.history.begin_epoch()
        for d in data:
            if self.callbacks:  # one may have made a parameter read-only
                refuse_odd(list(map(the_data, self.tensors)))
            self.step += 1
            try:
                value, found = make_step(d)
            except SkipDatum:
                continue
            if advance is not None:
                advance(value)
            if self.callbacks:
                self.call_back(epoch, d, value, found)
        if self.step == before:
            raise ValueError(no_data(data, epoch))

    def eager_step(self, d):
        """Record the loss and update; returns the loss and the gradients."""
        value, found = self.gradient(d)
        self.update(found, value)
        return value, found

    def update(self, found, value):
        """Change the parameters by their gradients, and note the loss in the history."""
        if set(map(type, found)) == ARRAYS_ONLY:
            gradients, arrays = found, list(map(the_data, self.tensors))
            if self.prepared is None or not self.prepared.fits(arrays):
                self.prepared = self.opt.prepare(self.tensors, arrays)
            prepared = self.prepared
        else:
            tensors, gradients = reached(self.tensors, found)
            if not tensors:
                raise self.no_gradient()
            prepared = self.opt.prepare(tensors, list(map(the_data, tensors)))
        try:
            prepared.run(gradients, then=[(self.history.losses.append, value)])
        except NotFinite:
            raise self.not_finite(value, found) from None

    def compiled_step(self, d):
        """The same with a compiled loss, whose gradients are written where the update reads."""
        args, kwargs = called_with(d)
        try:
            recording, arguments = self.loss.find(args, kwargs, self.ps)
        except TypeError as error:
            raise explained(error, self.loss, d, self.step) from None
        trainer = self.trainers.get(id(recording))
        if trainer is None or not trainer.prepared.valid():
            if len(self.trainers) >= TRAINERS:
                self.trainers.clear()
            trainer = self.trainers[id(recording)] = self.bound(recording, arguments)
        value, found = self.finite(trainer.loss(arguments)), trainer.gradients
        try:
            trainer.update(arguments, [(self.history.losses.append, value)])
        except NotFinite:
            raise self.not_finite(value, found) from None
        if self.callbacks:  # they may keep what the next step writes over
            found = [None if g is None else g.copy() for g in found]
        return value, found

    def bound(self, recording, arguments):
        """A recording, bound to the optimiser."""
        from .compiled.trainer import Trainer

        if not recording.moves:
            self.finite(recording.run(arguments)[0])  # as in eager this comes first
            raise self.no_gradient()
        return Trainer(recording, self.opt, self.tensors)

    def no_gradient(self):
        """That the loss depends on no parameter."""
        return NoGradientError(
            f"train_: the loss of datum {self.step} depends on none of the {len(self.ps)} "
            f"parameters {self.ps.names()}; does it use the model that they come from, and neither "
            "read a value out, as float(t), t.item() and t.data do, nor count, as argmax and == do?"
        )

    def gradient(self, d):
        """The loss of a datum as a float, and the list of its gradients."""
        loss = self.loss
        args, kwargs = called_with(d)
        try:
            pull = Pullback(lambda: loss(*args, **kwargs), (self.ps,))
        except TypeError as error:
            raise explained(error, loss, d, self.step) from None
        seed = one_like(pull.output)
        return self.finite(pull.value), pull.pull(seed)

    def finite(self, value):
        """The loss as a float; NaN and infinity are refused."""
        try:
            value = float(value)
        except OverflowError:  # a whole number of hundreds of digits
            value = math.inf
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"the loss is {value} at step {self.step}; nothing was updated with it. Look at "
                "that datum, or at a learning rate that is too large.",
                self.step,
                value,
            )
        return value

    def not_finite(self, value, found):
        """That a gradient is NaN or infinite, and of which parameter."""
        return NonFiniteLossError(
            f"the loss is {value} at step {self.step}, but {not_finite(self.ps, found)}",
            self.step,
            value,
        )

    def call_back(self, epoch, d, value, found):
        """The callbacks, in their order."""
        phase.set("callback")
        state = TrainingState(epoch, self.step, value, Grads(self.ps, found), d, self)
        for f, takes in zip(self.callbacks, self.takes_state, strict=True):
            f(state) if takes else f()
        phase.set("loss")
        if self.given.by_id.keys() != self.ps.by_id.keys():
            self.begin()

    def flush(self):
        """The end: whatever a callback still has to do (a trailing call, restoring the best)."""
        phase.set("callback")
        for f in self.callbacks:
            finish = getattr(f, "flush", None)
            if finish is not None:
                try:
                    finish()
                except StopTraining:
                    self.history.stopped = True
