"""A training step: the program writes each gradient to where the update reads it."""


class Trainer:
    """A recording bound to an optimiser, for one loop.

    Attributes
    ----------
    gradients : list of numpy.ndarray or None
        Of the last step, in the order of the parameters; None where the loss has no influence.
    """

    def __init__(self, recording, opt, tensors):
        self.recording, self.opt = recording, opt
        reached = [v is not None for v in recording.program.results[1:]]
        self.tensors = [t for t, yes in zip(tensors, reached) if yes]
        self.prepared = opt.prepare(self.tensors, [t.data for t in self.tensors])
        places = iter(self.prepared.places)
        wanted = [next(places) if yes else None for yes in reached]
        self.compute, self.gradients = recording.bind(wanted)
        self.found = [g for g in self.gradients if g is not None]

    def update(self):
        """Change the parameters by the gradients of the last step."""
        self.prepared.run(self.found, gathered=True)
