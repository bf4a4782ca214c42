"""What an update rule is: a few named numbers, a body of plain NumPy, and what it remembers.

A rule is one small declaration. Its annotated fields become the constructor's arguments, `moments`
names the arrays it keeps for every parameter, `constants` computes the numbers of a step, and
`delta` leaves in `u` what is to be subtracted:

>>> class SignSGD(UpdateRule):
...     '''x -= lr * sign(g)'''
...     lr: float = 0.01
...     def constants(self, t, n):
...         return (self.lr,)
...     def delta(self, x, g, u, lr):
...         np.sign(g, out=u)
...         u *= lr
>>> SignSGD(lr=0.1)
SignSGD(lr=0.1)

How a rule is run over all parameters at once is the business of `plan.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ..checks import as_array, shown
from .fields import Declared
from .schedules import Schedule
from .stepping import Stepper


def _are_parameters(first: Any) -> bool:
    """Whether a first argument is a collection of parameters: of things with `.data`."""
    if isinstance(first, (str, type, np.ndarray)) or hasattr(first, "data"):
        return False
    if not hasattr(first, "__iter__"):
        return False
    return isinstance(first, Iterator) or all(_is_parameter(p) for p in first)


def _is_parameter(p: Any) -> bool:
    """Whether it has `.data`; that of an array is another thing."""
    return not isinstance(p, np.ndarray) and hasattr(p, "data")


def _parameters(given: Iterator[Any], who: str) -> Iterator[Any]:
    """What an iterator yields, as long as it is parameters."""
    for p in given:
        if not _is_parameter(p):
            raise TypeError(f"{who}: the parameters hold {shown(p)}; write params(model)")
        yield p


def _remedy(who: str, args: tuple) -> str:
    """What to do with a schedule, a model or parameters among the numbers of a rule."""
    if any(isinstance(a, Schedule) for a in args):
        return f"A schedule sets a field of a rule: Scheduler({who}(), schedule)"
    if any(map(_are_parameters, args)) or any(map(callable, args[:1])):
        return f"Parameters come first, as what params(model) returns: {who}(ps, ...)"
    return ""


Numbers = tuple[float, ...]


class UpdateRule(Declared):
    """Base of all update rules and modifiers.

    A rule may own its parameters: `ADAM(ps, 0.001)` keeps `ps` as `opt.ps` (otherwise None).

    Attributes
    ----------
    moments : tuple of str
        The arrays kept for every parameter; they start at 0.
    scratch : int
        How many work arrays `delta` needs besides `u`.
    elementwise : bool
        False for a rule that looks at whole gradients: instead of `delta` it has `clip_(arrays)`,
        which changes all gradients in place.

    Notes
    -----
    `delta(x, g, u, *moments, *scratch, *constants)` leaves the amount to subtract in `u`. It
    changes `u`, the moments and the work arrays in place and nothing else, and returns nothing.
    Arrays are 1-d: a block of a parameter, or many parameters end to end; constants are 0-d, of
    their dtype. A field that is a `float` is any finite number; `tinyflux.optimise.fields` has
    narrower ones (`Rate`, `Unit`, `Betas`).

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> from tinyflux.optimise import UpdateRule
    >>> class SignSGD(UpdateRule):
    ...     lr: float = 0.01
    ...     def constants(self, t, n):
    ...         return (self.lr,)
    ...     def delta(self, x, g, u, lr):
    ...         np.multiply(np.sign(g), lr, out=u)
    >>> W = flux.Tensor([1.0, -2.0])
    >>> flux.update_(SignSGD(0.5), [W], flux.gradient(lambda: np.sum(W**2), [W]))
    >>> W
    Tensor([ 0.5, -1.5])
    """

    moments: ClassVar[tuple[str, ...]] = ()
    scratch: ClassVar[int] = 0
    elementwise: ClassVar[bool] = True
    _stepper: Stepper
    _ps: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not isinstance(cls.moments, tuple):
            raise TypeError(f"{cls.__name__}.moments is {shown(cls.moments)}; write ('v',)")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        rest = self._start(args)
        try:
            super().__init__(*rest, **kwargs)
        except TypeError as wrong:
            remedy = _remedy(type(self).__name__, rest)
            if not remedy:
                raise
            raise TypeError(f"{wrong} {remedy}") from None

    def _start(self, args: tuple) -> tuple:
        """Keep the parameters if they come first; return the other arguments."""
        self._stepper, self._ps = Stepper(), None
        if args and _are_parameters(args[0]):
            first, who = args[0], type(self).__name__
            self._ps = tuple(_parameters(first, who)) if isinstance(first, Iterator) else first
            args = args[1:]
        return args

    @property
    def ps(self) -> Any:
        """The parameters it was made with, or None."""
        return self._ps

    def constants(self, t: int, n: int, *scales: Any, **_: Any) -> Numbers:
        """Return the numbers `delta` takes last, computed in double precision.

        `t` counts the updates of a parameter and `n` the calls of the optimiser, both from 1.
        Rules that `fade` get the scales of their moments.
        """
        return ()

    def fade(self, *scales: Any, **_: Any) -> Numbers:
        """Return the scales of the moments one step later, before `delta`; (): none has a scale.

        Textbook value = array * scale, so a scale that shrinks makes a moment fade without a pass
        over its memory. `constants` gets the new scales: `delta` divides by them what it adds to a
        moment, and multiplies by them what it reads there.
        """
        return ()

    def delta(self, x: Any, g: Any, u: Any, *numbers: Any) -> None:
        """Leave in `u` what is to be subtracted from `x`, given its gradient `g`: see above."""
        raise TypeError(
            f"{type(self).__name__} has no delta(self, x, g, u, ...), which leaves in u what is to "
            "be subtracted from x"
        )

    def clip_(self, arrays: Sequence[np.ndarray]) -> None:
        """Change all gradients in place, in a rule that is not `elementwise`."""
        raise TypeError(
            f"{type(self).__name__} is not elementwise, but has no clip_(self, arrays), which "
            "changes the gradients in place"
        )

    def leaves(self) -> tuple["UpdateRule", ...]:
        """Return the rules that are run one after the other: here this one alone."""
        return (self,)

    def step_(
        self, keys: Sequence[Any], arrays: Sequence[np.ndarray], gradients: Sequence[np.ndarray]
    ) -> None:
        """Update `arrays` in place by their `gradients`.

        Parameters
        ----------
        keys : sequence of objects
            Whom the state belongs to: weakly referenced and told apart by identity, never by `==`.
        arrays : sequence of arrays of float
            The parameters, one per key.
        gradients : sequence of arrays
            One per parameter, of its shape and dtype; they are not written to.

        Raises
        ------
        ValueError, TypeError
            If the sequences do not match one another. Nothing has been changed then.
        FloatingPointError
            If a gradient is NaN or infinite. Nothing has been changed then either.

        Examples
        --------
        >>> from tinyflux.optimise import SGD
        >>> class Parameter:
        ...     def __init__(self, data): self.data = data
        >>> w = Parameter(np.array([1.0, 2.0]))
        >>> SGD(lr=0.5).step_([w], [w.data], [np.array([1.0, -1.0])])
        >>> w.data
        array([0.5, 2.5])
        """
        gradients = self._checked(keys=keys, arrays=arrays, gradients=gradients)
        self._stepper.step_(self.leaves(), keys, arrays, gradients)

    def _checked(self, **given: Any) -> Any:
        """The gradients as arrays; refuse what is none, or does not belong together."""
        counts = []
        for name, values in given.items():
            if type(values) is not list and not (
                hasattr(type(values), "__len__") and getattr(values, "ndim", True)
            ):
                raise TypeError(
                    f"{type(self).__name__}.step_: {name} is {shown(values)}, but it must be a list"
                )
            counts.append(len(values))
        if len({*counts}) > 1:
            pairs = ", ".join(f"{n} {name}" for n, name in zip(counts, given))
            raise ValueError(f"{type(self).__name__}.step_: got {pairs}; one of each is wanted")
        gradients = given["gradients"]
        if set(map(type, gradients)) == {np.ndarray}:
            return gradients
        called = [f"{type(self).__name__}.step_: gradient {i}" for i in range(len(gradients))]
        for name, g in zip(called, gradients, strict=True):
            if not isinstance(g, (np.ndarray, np.generic)):
                raise TypeError(f"{name} is {shown(g)}, but it must be an array")
        return [as_array(g, name) for name, g in zip(called, gradients, strict=True)]

    def prepare(self, keys: Sequence[Any], arrays: Sequence[np.ndarray]) -> Any:
        """Look up a step over these parameters once, to `run(gradients)` many times.

        What comes back has `places` (where each gradient may be written straight away, or None) and
        is `valid()` until the parameters, their state or the optimiser change in kind.
        """
        return self._stepper.prepare(self.leaves, keys, arrays)

    def state(self, key: Any) -> dict[str, Any]:
        """Return copies of what is kept for `key`; {} if it has never been updated.

        The moments by name (in a chain `"<position>.<name>"`), `"t"`, the number of updates of this
        parameter, and `"step"`, the number of calls of the optimiser. Moments are given as they are
        stored, to the last bit; where they `fade` there is also `"scale"`, one number per moment:
        textbook value = array * scale.

        Examples
        --------
        >>> import tinyflux as flux
        >>> opt, W = flux.ADAGrad(lr=0.5), flux.Tensor([1.0])
        >>> opt.step_([W], [W.data], [np.array([2.0])])
        >>> opt.state(W)
        {'acc': array([4.]), 't': 1, 'step': 1}
        """
        return self._stepper.state(self.leaves(), key)

    def load_state_(self, key: Any, state: Mapping[str, Any], array: np.ndarray) -> None:
        """Put back what `state(key)` returned; `array` is the parameter, for its shape and dtype.

        Moments without a `"scale"` are taken as textbook values; {} forgets the key.

        Raises
        ------
        ValueError, TypeError
            If the state is not that of such a rule and parameter. Nothing has been changed then.

        Examples
        --------
        >>> import tinyflux as flux
        >>> opt, W = flux.Momentum(), flux.Tensor([1.0])
        >>> opt.load_state_(W, {"v": [0.5], "t": 3}, W.data)
        >>> opt.state(W)
        {'v': array([0.5]), 't': 3, 'step': 3}
        """
        shape, dtype = getattr(array, "shape", None), getattr(array, "dtype", None)
        if not isinstance(shape, tuple) or not isinstance(dtype, np.dtype):
            raise TypeError(
                f"load_state_: array is {shown(array)}, but it must be the array of the parameter"
            )
        self._stepper.load_(self.leaves(), key, state, shape, dtype)

    def reset_(self) -> None:
        """Forget the state of all parameters, and the number of steps."""
        self._stepper.reset_()

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in vars(self).items() if name != "_stepper"}
        return {**kept, "_states": self._stepper.states(self.leaves())}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        vars(self).update(kept, _stepper=Stepper())
        self._stepper.load_all_(self.leaves(), vars(self).pop("_states"))
