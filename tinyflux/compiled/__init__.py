"""From tape to NumPy source: record, lower to NumPy calls, make it cheaper, write it down.

`trace.py` records (`arguments.py` says which of two calls are alike), `program.py` lowers into the
nodes of `nodes.py`, `simpler.py`, `passes.py`, `quicker.py`, `unchecked.py` and `blocks.py` make it
cheaper, `memory.py` says where values stand, `calls.py` and `source.py` write the text,
`emitted.py`, `recording.py` and `trainer.py` run it, `saving.py` writes it into a module,
`guards.py` and `witness.py` watch what the recording relied on, and `function.py` is what a user
holds.
"""


def compiled(f):
    """Turn a function into NumPy source that runs at the speed of code written by hand.

    Parameters
    ----------
    f : callable
        A loss or a model, written in NumPy and tinyflux.

    Returns
    -------
    Compiled
        Called like `f`; in `train_`, `gradient` and `withgradient` the gradient is compiled, too.
        `.source` shows the NumPy code of the latest call, `.explain()` what was done to it.

    Raises
    ------
    CannotCompileError
        When the function branches on a value, reads one out, or draws random numbers of its own:
        that would be frozen as it was when it was recorded.

    Notes
    -----
    The function runs once for each signature: shapes and types of arrays, values of plain numbers
    and strings among the arguments, and whether it is trained. Values are those of the function
    itself, bit for bit, except that sums over an axis of a matrix are computed as a product with
    ones. Parameters may be changed in place. Numbers, flags, functions and layers that it reaches
    through its closure, globals, attributes and classes are watched: changed, it is recorded again.
    Random rows such as Dropout draw anew; other draws are refused.

    What cannot be seen stays as it was recorded:

    * What the function prints, counts or stores happens then only, and a state that it changes
      itself (`self.calls += 1`, `next(iterator)`) stands still.
    * An array that is not an argument is read anew where it meets an argument or a parameter.
      What is computed from such arrays alone is computed once; up to 16 KiB they are compared
      before each call, larger ones are not: pass them as arguments.
    * `t.data` and `str(t)` of a value show what it was; use `detach(t)` to stop the gradient.
    * The clock, files and the environment.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> W = flux.Tensor([[1.0, 2.0]])
    >>> @flux.compiled
    ... def loss(x, y):
    ...     return np.mean((x @ W - y) ** 2)
    >>> float(loss(np.ones((3, 1)), np.zeros((3, 2))))
    2.5
    """
    from .function import Compiled  # here, so that importing tinyflux stays quick

    return Compiled(f)
