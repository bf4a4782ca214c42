"""A training step: the program writes each gradient to where the update reads it."""

from functools import partial

from ..optimise.plan import NotFinite


class Trainer:
    """A recording bound to an optimiser, for one loop.

    Attributes
    ----------
    loss : callable
        The loss for a list of arguments; the gradients stand in their places then.
    gradients : list of numpy.ndarray or None
        Of the last step, in the order of the parameters; None for those without influence on it.
    prepared : Prepared
        The update, valid until the parameters or the optimiser change in kind.
    """

    def __init__(self, recording, opt, tensors):
        self.recording = recording
        reached = [v is not None for v in recording.program.results[1:]]
        moving = [t for t, yes in zip(tensors, reached) if yes]
        self.prepared = opt.prepare(moving, [t._array for t in moving])
        places = iter(self.prepared.places)
        wanted = [next(places) if yes else None for yes in reached]
        self.emitted = recording.unchecked or recording
        recording.trusts = self.emitted is not recording
        compute, self.gradients = self.emitted.bind(wanted)
        self.loss = partial(self.emitted.guarded, compute)
        self.found = [g for g in self.gradients if g is not None]

    def update(self, arguments, then):
        """Change the parameters by the gradients of this loss, and make the calls `then`."""
        try:
            self.prepared.run(self.found, gathered=True, then=then)
        except NotFinite:
            if self.emitted is self.recording:
                raise
            # From here on with the rows that put 0 where 0 met infinity.
            self.emitted, self.recording.trusts = self.recording, False
            self.loss = partial(self.emitted.guarded, self.recording.bind(self.gradients)[0])
            self.loss(arguments)
            self.prepared.run(self.found, gathered=True, then=then)
