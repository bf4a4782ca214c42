"""What an update rule is: a few named numbers, a body of plain NumPy, and what it remembers.

A rule is one small declaration. Its annotated fields become the constructor's arguments, `moments`
names the arrays it keeps for every parameter, `constants` computes the numbers of a step, and `delta`
leaves in `u` what is to be subtracted:

>>> class SignSGD(UpdateRule):
...     '''x -= lr * sign(g)'''
...     lr: Rate = 0.01
...     def constants(self, t, n):
...         return (self.lr,)
...     def delta(self, x, g, u, lr):
...         np.sign(g, out=u)
...         u *= lr
>>> opt = SignSGD(lr=0.1)
>>> opt
SignSGD(lr=0.1)

How a rule is run over all parameters at once is the business of `stepping.py`.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple, get_origin

import numpy as np

from tinyflux.optimise.stepping import Stepper


class Law(NamedTuple):
    """What the values of a field have to be: how they are read, tested and described."""

    read: Callable[[Any], Any]
    holds: Callable[[Any], bool]
    wanted: str


def _real(value: Any) -> float:
    if isinstance(value, (bool, np.bool_, str, bytes)) or np.ndim(value):
        raise TypeError
    return float(value)


def _whole(value: Any) -> int:
    number = _real(value)
    if number != int(number):
        raise ValueError
    return int(number)


Rate = Annotated[float, Law(_real, lambda v: 0 <= v < math.inf, "a finite number >= 0")]
Positive = Annotated[float, Law(_real, lambda v: 0 < v < math.inf, "a finite number > 0")]
Unit = Annotated[float, Law(_real, lambda v: 0 <= v <= 1, "a number in [0, 1]")]
Decay = Annotated[float, Law(_real, lambda v: 0 <= v < 1, "a number in [0, 1)")]
Betas = Annotated[
    tuple[float, float],
    Law(
        lambda v: tuple(map(_real, v)),
        lambda v: len(v) == 2 and all(0 <= b < 1 for b in v),
        "two numbers in [0, 1), such as (0.9, 0.999)",
    ),
]
Count = Annotated[int, Law(_whole, lambda v: v >= 0, "a whole number >= 0")]
Period = Annotated[int, Law(_whole, lambda v: v >= 1, "a whole number >= 1")]
Flag = Annotated[bool, Law(lambda v: v, lambda v: isinstance(v, (bool, np.bool_)), "True or False")]
_ANY_NUMBER = Law(_real, math.isfinite, "a finite number")


def _law(hint: Any) -> Law:
    """The law in an annotation; a bare `float` asks for any finite number."""
    laws = [item for item in getattr(hint, "__metadata__", ()) if isinstance(item, Law)]
    return laws[0] if laws else _ANY_NUMBER


def _are_parameters(first: Any) -> bool:
    """Whether a first argument is a collection of parameters (things with `.data`), not a number."""
    if isinstance(first, str) or hasattr(first, "data") or not hasattr(first, "__iter__"):
        return False
    return isinstance(first, Iterator) or all(hasattr(p, "data") for p in first)


class UpdateRule:
    """Base of all update rules and modifiers.

    Fields are plain attributes and may be changed in mid-training; every assignment is checked.
    A rule may own its parameters: `ADAM(ps, 0.001)` keeps `ps` as `opt.ps` (otherwise None).

    Attributes
    ----------
    moments : tuple of str
        The arrays kept for every parameter, of its shape; they start at 0.
    scratch : int
        How many work arrays `delta` needs besides `u`.
    reads_x : bool
        Whether `delta` reads the parameter itself.
    """

    moments: ClassVar[tuple[str, ...]] = ()
    scratch: ClassVar[int] = 0
    reads_x: ClassVar[bool] = False
    elementwise: ClassVar[bool] = True
    fields: ClassVar[dict[str, Law]] = {}
    ps: Any
    _stepper: Stepper

    delta: Callable[..., None]
    """`delta(x, g, u, *moments, *scratch, *constants)`: leaves the amount to subtract in `u`. It changes
    `u`, the moments and the work arrays in place, and nothing else; all are 1-d, constants are 0-d."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        hints = inspect.get_annotations(cls, eval_str=True).items()
        own = {name: _law(hint) for name, hint in hints if get_origin(hint) is not ClassVar}
        cls.fields = {**own, **{n: law for n, law in cls.fields.items() if n not in own}}
        kind, none = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.empty
        if "__init__" not in vars(cls):
            cls.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
                [inspect.Parameter(n, kind, default=getattr(cls, n, none)) for n in cls.fields]
            )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        args = self._start(args)
        signature = inspect.signature(type(self))
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as wrong:
            raise TypeError(f"{type(self).__name__}{signature}: {wrong}.") from None
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            setattr(self, name, value)

    def _start(self, args: tuple) -> tuple:
        """Keep the parameters if they come first; return the other arguments."""
        self._stepper, self.ps = Stepper(), None
        if args and _are_parameters(args[0]):
            self.ps = tuple(args[0]) if isinstance(args[0], Iterator) else args[0]
            args = args[1:]
        return args

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.fields:
            value = self._lawful(name, value)
        elif name != "ps" and not name.startswith("_"):
            known = ", ".join(self.fields) or "none"
            raise AttributeError(f"{type(self).__name__} has no {name!r} to set; it has: {known}.")
        object.__setattr__(self, name, value)

    def _lawful(self, name: str, value: Any) -> Any:
        read, holds, wanted = self.fields[name]
        sentence = f"{type(self).__name__}: {name} must be {wanted}; got {value!r}."
        try:
            value = read(value)
        except (TypeError, ValueError, OverflowError):
            raise TypeError(sentence) from None
        if not holds(value):
            raise ValueError(sentence)
        return value

    def __repr__(self) -> str:
        default = {n: getattr(type(self), n, None) for n in self.fields}
        shown = [
            f"{name}={getattr(self, name)!r}"
            for i, name in enumerate(self.fields)
            if i == 0 or getattr(self, name) != default[name]
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    def constants(self, t: int, n: int) -> tuple[float, ...]:
        """Return the numbers `delta` takes at the end, in double precision.

        `t` counts the updates of a parameter and `n` the calls of the optimiser, both from 1.
        """
        return ()

    def scale(self) -> tuple[float, ...]:
        """For each moment: textbook value = stored array * scale. 1 unless a rule saves passes by it."""
        return (1.0,) * len(self.moments)

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
        self._stepper.step_(self.leaves(), keys, arrays, gradients)

    def state(self, key: Any) -> dict[str, Any]:
        """Return copies of what is kept for `key`; {} if it has never been updated.

        The moments by name (in a chain `"<position>.<name>"`), `"t"`, the number of updates of this
        parameter, and `"step"`, the number of calls of the optimiser. Moments are given as they are
        stored, to the last bit; where a rule stores them rescaled there is also `"scale"`, with one
        number per moment: textbook value = array * scale.
        """
        return self._stepper.state(self.leaves(), key)

    def load_state_(self, key: Any, state: Mapping[str, Any], array: np.ndarray) -> None:
        """Put back what `state(key)` returned; `array` is the parameter, for its shape and dtype.

        Moments without a `"scale"` are taken as textbook values; {} forgets the key.
        """
        self._stepper.load_(self.leaves(), key, state, array.shape, array.dtype)

    def reset_(self) -> None:
        """Forget the state of all parameters, and the number of steps."""
        self._stepper = Stepper()

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in vars(self).items() if name != "_stepper"}
        return {**kept, "_states": self._stepper.states(self.leaves())}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        states = kept.pop("_states")
        vars(self).update(kept, _stepper=Stepper())
        self._stepper.load_all_(self.leaves(), states)
