"""From tape to NumPy source: record, lower to NumPy calls, make it cheaper, write it down.

`trace.py` records (`arguments.py` says which of two calls are alike), `program.py` lowers into the
nodes of `nodes.py`, `simpler.py`, `passes.py`, `quicker.py`, `unchecked.py` and `blocks.py` make it
cheaper, `memory.py` says where values stand, `calls.py` and `source.py` write the text,
`emitted.py`, `recording.py` and `trainer.py` run it, `saving.py` writes it into a module,
`guards.py`, `check.py` and `witness.py` watch what the recording relied on, `likeness.py` says
whether it would be written down as before, `making.py` brings all of this together, and
`function.py` is what a user holds.
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

    * What the function prints, counts or stores happens then only: once, or twice if it changes a
      number or a small array. A result that depends on such a change is refused, as are clocks,
      iterators, and lists outside out of which it takes something.
    * One element of an array from outside that is larger than 16 KiB, written to after the first
      hundred calls, may be seen some calls later only: then some 128 elements are compared in each
      call, other ones every time. Of more than 4 MiB it is always a part. Smaller arrays are
      compared as a whole. An array that changed makes the function run again, so that one that
      changes in every call is better an argument.
    * `str(t)` of a value shows what it was.
    * Files, and names of libraries that somebody patches.

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
