"""Arrays of others, to which somebody may write between the forward and the backward pass.

A derivative that reads such an array later would be silently wrong. So the tape takes a copy of it
when it is recorded: arrays are never locked, because they belong to others. The memory for copies
of large arrays is used again by the next gradient with the same parameters, because new memory
takes several times as long to write.
"""

from sys import getrefcount

from numpy import empty, empty_like

from .errors import MutationError

SMALL = 8192  # bytes; above, memory is used again


def references_of_a_variable():
    """What `getrefcount` says of an array that one variable alone has."""
    array = empty(0)
    return getrefcount(array)


ALONE = references_of_a_variable()


def kept(tape, array):
    """A copy of a large array, for as long as the rows of the tape are there."""
    if tape.keeps or not array.flags.forc:
        return array.copy("K")
    try:
        memory = tape.spare.popleft()  # in the order of the last gradient
    except IndexError:
        memory = array[:0]
    if layout(memory) != layout(array) or getrefcount(memory) > ALONE:
        memory = empty_like(array)
    tape.used.append(memory)
    copy = memory.view()  # what still reads it later, somewhere, has a reference to the memory
    copy[...] = array
    return copy


def layout(array):
    """What an array is made of, other than its numbers."""
    return array.shape, array.dtype, array.strides


def written_to(name, shape):
    """The error for an operand that is not any more what it was."""
    return MutationError(
        f"{name}: an operand of shape {shape} was written to after it had been recorded, so its "
        "derivative would be wrong. Give it a copy, or write into another array."
    )
