"""A callback that keeps checkpoints while a model is trained."""

from __future__ import annotations

import errno
import os
import string
import time
from collections.abc import Callable
from inspect import signature
from typing import Any

from ..checks import as_callable, as_integer, as_real
from ..saving import checked, restored, save

__all__ = ["checkpoint"]

TAKEN = {"step", "epoch", *signature(save).parameters} - {"extra"}  # no names for extras


class checkpoint:
    """A callback that saves a checkpoint now and then, and when the training has ended.

    Parameters
    ----------
    path : str or Path
        As for `save`. `{epoch}` and `{step}` in it are filled in, so that every file is kept:
        `"run-{step:06}.npz"`.
    model, opt, loader
        As for `save`.
    every : int, optional
        Save after this many steps, again and again.
    seconds : float, optional
        Save when this much time has passed. Give one of the two, or both.
    extra : callable, optional
        Takes nothing and gives a dict of what else is to be saved.

    Attributes
    ----------
    step, epoch : int
        At the latest save: how many steps had been made, and how many epochs finished, since the
        training was first begun. After `resume_` they go on counting. They are saved too.
    extras : dict
        What `extra` gave when the file was written that `resume_` loaded; empty before.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
        For arguments of the wrong kind and a folder that is not there; at the first save, if
        something cannot be saved.

    Notes
    -----
    Saved is what stands after a whole step, and after the callbacks before it in the list: the last
    place is the right one. The end is that of `train_`, by itself or by `stop()`;
    after Ctrl-C, an error, or `stop()` in the loss the latest file stays as it is, because a batch
    has been drawn and not used. An epoch counts as finished when the loader has no more batches,
    and without a loader when the next one begins or the training ends. The loader is that of the
    training alone: a callback that goes through the data makes one of its own.

    Examples
    --------
    >>> import numpy as np, os, tempfile, tinyflux as flux
    >>> folder = tempfile.TemporaryDirectory()
    >>> model, opt = flux.Dense(2, 1), flux.ADAM()
    >>> loader = flux.DataLoader(np.ones((6, 2)), np.ones((6, 1)), batchsize=2, shuffle=True)
    >>> keep = flux.checkpoint(folder.name + "/run.npz", model, opt, loader, every=2)
    >>> keep.resume_()
    False
    >>> loss = lambda x, y: flux.losses.mse(model(x), y)
    >>> left = 5 - keep.epoch
    >>> h = flux.train_(loss, flux.params(model), loader, opt, epochs=left, cb=keep)
    >>> keep.resume_(), keep.step, keep.epoch
    (True, 15, 5)
    >>> folder.cleanup()
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        model: Any,
        opt: Any = None,
        loader: Any = None,
        *,
        every: int | None = None,
        seconds: float | None = None,
        extra: Callable[[], dict[str, Any]] | None = None,
    ):
        self.path, _ = checked(path, opt, loader, "checkpoint")
        fields = {f for _, f, _, _ in string.Formatter().parse(self.path) if f is not None}
        if not fields <= {"epoch", "step"}:
            raise ValueError(f"checkpoint: only {{epoch}} and {{step}} are filled in, got {path!r}")
        folder = os.path.dirname(self.path) or os.curdir
        if "{" not in folder and not os.path.isdir(folder):
            raise FileNotFoundError(errno.ENOENT, "checkpoint: there is no such folder", folder)
        if every is None and seconds is None:
            raise TypeError("checkpoint: say every=..., a number of steps, or seconds=...")
        self.model, self.opt, self.loader = model, opt, loader
        self.every = None if every is None else as_integer(every, "checkpoint: every", least=1)
        self.seconds = None if seconds is None else as_real(seconds, "checkpoint: seconds")
        self.extra = None if extra is None else as_callable(extra, "checkpoint: extra")
        self.step = self.epoch = 0
        self.extras: dict[str, Any] = {}
        self._fields = bool(fields)
        self._run: Any = None  # the run of `train_` that it belongs to at present
        self._before = (0, 0)  # steps and epochs when that run began
        self._since = (0, 0)  # those made since the latest save
        self._saved = time.monotonic()

    def __call__(self, state: Any) -> None:
        run = state.run
        if run is not self._run:
            more, further = self._since
            self._run, self._before = run, (self.step + more, self.epoch + further)
        if run.drawn:  # a throttle may make up for a call when the training has ended
            return
        step, epoch = self._count(run)  # what is saved is of now, and the state may be older
        self._since = (step - self.step, epoch - self.epoch)
        if (self.every is not None and step // self.every > self.step // self.every) or (
            self.seconds is not None and time.monotonic() >= self._saved + self.seconds
        ):
            self._save(step, epoch)

    def _count(self, run: Any, over: bool = False) -> tuple[int, int]:
        """All steps made and epochs finished, those of this run among them."""
        if self.loader is not None:
            over = self.loader.ended
        return self._before[0] + run.step, self._before[1] + len(run.history.epochs) - (not over)

    def _save(self, step: int, epoch: int) -> None:
        """Save at this step, when so many epochs are finished."""
        added = {} if self.extra is None else self.extra()
        if taken := TAKEN & set(added):
            raise ValueError(f"checkpoint: extra returned {sorted(taken)}, names that are taken")
        path = self.path.format(epoch=epoch, step=step) if self._fields else self.path
        save(path, self.model, self.opt, self.loader, **{**added, "step": step, "epoch": epoch})
        self.step, self.epoch, self._saved = step, epoch, time.monotonic()
        self._since = (0, 0)

    def flush(self) -> None:
        """Save what is not saved yet; `train_` calls it at its end."""
        run, self._run = self._run, None
        if run is None or run.drawn:  # a batch that was not used, but the loader counts it
            return
        step, epoch = self._count(run, over=True)
        if (step, epoch) != (self.step, self.epoch):
            self._save(step, epoch)

    def resume_(self) -> bool:
        """Load the file, if there is one, and go on counting from there; whether there was one.

        Call it before `train_`. If the path has `{epoch}` or `{step}` in it, use `load_`.
        """
        if self._fields:
            raise ValueError(f"checkpoint: which file of {self.path}? Say load_(path, ...)")
        if not os.path.exists(self.path):
            return False
        needed = ("step", "epoch")
        kept = restored(self.path, self.model, self.opt, self.loader, needed=needed)
        self.step, self.epoch, self._run = kept.pop("step"), kept.pop("epoch"), None
        self._since = (0, 0)
        self.extras = kept
        return True
