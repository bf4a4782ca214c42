"""Objects that are a few named numbers: the annotated fields of a class make its constructor.

>>> class Spring(Declared):
...     length: float
...     stiffness: Positive = 1.0
>>> Spring(2.0)
Spring(length=2.0)
>>> Spring(2.0, stiffness=-1)
Traceback (most recent call last):
ValueError: Spring: stiffness must be a finite number > 0; got -1.

Dataclasses would check nothing, and nothing at all on a later assignment.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Annotated, Any, ClassVar, NamedTuple, get_origin

import numpy as np

from ..checks import brief, to_float


class Law(NamedTuple):
    """What the values of a field have to be: how they are read, tested and described."""

    read: Callable[[Any], Any]
    holds: Callable[[Any], bool]
    wanted: str


def as_whole(value: Any) -> int:
    number = to_float(value)
    if number != int(number):
        raise ValueError
    return int(number)


def as_divisor(value: Any) -> float:
    """A number that keeps a divisor from 0: as large at least as the smallest root in float32."""
    number = to_float(value)
    return max(number, 1e-22) if number >= 0 else number


def _numbers(value: Any) -> tuple[float, ...]:
    if isinstance(value, (set, frozenset, Mapping)):  # in no order
        raise TypeError
    return tuple(map(to_float, islice(value, 3)))  # a third is one too many


Rate = Annotated[float, Law(to_float, lambda v: 0 <= v < math.inf, "a finite number >= 0")]
Divisor = Annotated[float, Law(as_divisor, lambda v: 0 < v < math.inf, "a finite number >= 0")]
Positive = Annotated[float, Law(to_float, lambda v: 0 < v < math.inf, "a finite number > 0")]
Unit = Annotated[float, Law(to_float, lambda v: 0 <= v <= 1, "a number in [0, 1]")]
Decay = Annotated[float, Law(to_float, lambda v: 0 <= v < 1, "a number in [0, 1)")]
Betas = Annotated[
    tuple[float, float],
    Law(
        _numbers,
        lambda v: len(v) == 2 and all(0 <= b < 1 for b in v),
        "two numbers in [0, 1), such as (0.9, 0.999)",
    ),
]
Count = Annotated[int, Law(as_whole, lambda v: v >= 0, "a whole number >= 0")]
Period = Annotated[int, Law(as_whole, lambda v: v >= 1, "a whole number >= 1")]
Flag = Annotated[bool, Law(lambda v: v, lambda v: isinstance(v, (bool, np.bool_)), "True or False")]

_NUMBER = Law(to_float, math.isfinite, "a finite number")
_ANYTHING = Law(lambda v: v, lambda v: True, "anything")


def _law(hint: Any) -> Law:
    """The law in an annotation; a bare `float` asks for any finite number."""
    laws = [item for item in getattr(hint, "__metadata__", ()) if isinstance(item, Law)]
    return laws[0] if laws else _NUMBER if hint is float else _ANYTHING


class Declared:
    """Base of what is declared by its fields: makes the constructor, checks, and prints.

    Arguments are positional in the order of the fields (a class's own first, then the inherited
    ones), or by keyword. Fields are plain attributes and may be changed later; every assignment is
    checked. Equality is identity.
    """

    fields: ClassVar[dict[str, Law]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        hints = inspect.get_annotations(cls, eval_str=True).items()
        own = {
            name: _law(hint)
            for name, hint in hints
            if get_origin(hint) is not ClassVar and not name.startswith("_")
        }
        cls.fields = own | {name: law for name, law in cls.fields.items() if name not in own}
        if "__init__" not in vars(cls):
            kind, none = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.empty
            cls.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
                [inspect.Parameter(n, kind, default=getattr(cls, n, none)) for n in cls.fields]
            )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        signature = inspect.signature(type(self))
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as wrong:
            raise TypeError(f"{type(self).__name__}{signature}: {wrong}.") from None
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.fields:
            value = self._lawful(name, value)
        elif not name.startswith("_"):
            known = f"it has: {', '.join(self.fields)}" if self.fields else "it has none"
            raise AttributeError(
                f"{type(self).__name__} has no field {name!r} to set; {known}. In a class of your "
                f"own declare it, {name}: float = 0.1, and leave __init__ out."
            )
        object.__setattr__(self, name, value)

    def _lawful(self, name: str, value: Any) -> Any:
        read, holds, wanted = self.fields[name]
        wrong: type[Exception] | None
        try:
            lawful = read(value)
            wrong = None if holds(lawful) else ValueError
        except (TypeError, ValueError, OverflowError):
            wrong = TypeError
        if wrong is not None:
            sentence = f"{type(self).__name__}: {name} must be {wanted}; got {brief(value)}."
            raise wrong(sentence)
        return lawful

    def __repr__(self) -> str:
        shown = [
            f"{name}={getattr(self, name)!r}"
            for i, name in enumerate(self.fields)
            if i == 0 or getattr(self, name) != getattr(type(self), name, None)
        ]
        return f"{type(self).__name__}({', '.join(shown)})"
