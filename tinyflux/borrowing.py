"""Arrays of others, to which somebody may write between the forward and the backward pass.

A derivative that reads such an array later would be silently wrong. So the tape takes a copy of it
when it is recorded. In `gradient`, where the way back follows at once, a large array, whose copy
would take as long as the product it goes into, is watched instead: before and after, at first all
of it, and later some elements, other ones every time. Arrays are never locked, because they belong
to others.
"""

from numpy import ndarray

from .errors import MutationError

SMALL = 8192  # bytes; up to here it is always a copy
AT_FIRST, WHOLE = 100, 1 << 22  # so many times, some 4 MiB of an array are looked at
SAMPLES = 128  # and after that so many elements
turn = [0]  # how many gradients have watched anything: it only chooses what is looked at


def kept(tape, array, operation):
    """What the rules of `operation` will read of a large array of somebody else's."""
    if tape.careful or not array.flags.forc:
        return array.copy("K")
    n = turn[0]
    step = array.nbytes // WHOLE | 1 if n < AT_FIRST else array.size // SAMPLES | 1
    where = slice(n % step, None, step)
    tape.watched.append((operation, array, where, array.ravel("K")[where].tobytes()))
    return array


def held(value):
    """A parameter of a call (an index, a mask, a shift) with copies of the arrays in it."""
    if type(value) in (tuple, list):  # one of another kind, as a named tuple, stays what it is
        return type(value)(map(held, value))
    return value.copy() if isinstance(value, ndarray) else value


def check(tape):
    """Raise if an array that is watched has been written to."""
    turn[0] += 1
    for operation, array, where, seen in tape.watched:
        if array.ravel("K")[where].tobytes() != seen:
            raise written_to(operation.name, array.shape)


def written_to(name, shape):
    """The error for an operand that is not any more what it was."""
    return MutationError(
        f"{name}: an operand of shape {shape} was written to after it had been recorded, so its "
        "derivative would be wrong. Give it a copy, or write into another array."
    )
