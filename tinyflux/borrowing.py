"""Arrays of others, to which somebody may write between the forward and the backward pass.

A derivative that reads such an array later would be silently wrong. So the tape takes a copy of it
when it is recorded. In `gradient`, where the way back follows at once, a large array, whose copy
would take as long as the product it goes into, is watched instead: some of its elements are looked
at twice, other ones every time. Arrays are never locked, because they belong to others.
"""

from itertools import count

from .errors import MutationError

SMALL = 8192  # bytes; up to here it is always a copy
SAMPLES = 256  # elements
turn = count()


def kept(tape, array, operation):
    """What the rules of `operation` will read of a large array of somebody else's."""
    if tape.careful:
        return array.copy("K")
    step = array.size // SAMPLES | 1
    where = slice(next(turn) % step, None, step)
    tape.watched.append((operation, array, where, look(array, where)))
    return array


def look(array, where):
    """Some elements, as bytes."""
    flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
    return flat[where].tobytes()


def check(tape):
    """Raise if an array that is watched has been written to."""
    for operation, array, where, seen in tape.watched:
        if look(array, where) != seen:
            raise written_to(operation.name, array.shape)


def written_to(name, shape):
    """The error for an operand that is not any more what it was."""
    return MutationError(
        f"{name}: an operand of shape {shape} was written to after it had been recorded, so its "
        "derivative would be wrong. Give it a copy, or write into another array."
    )
