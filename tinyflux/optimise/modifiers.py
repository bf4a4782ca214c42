"""Chains of rules, and what stands in them besides a rule: decays and clips.

A chain hands the gradient from one to the next, g -> a -> b -> ..., and subtracts the last output:

>>> from tinyflux.optimise import ADAM, SGD
>>> Optimiser(ClipNorm(1.0), WeightDecay(1e-4), ADAM(0.001))
Optimiser(ClipNorm(threshold=1.0), WeightDecay(decay=0.0001), ADAM(lr=0.001))

A modifier alone works too: its output is subtracted.
"""

from collections.abc import Iterator, Sequence
from math import hypot, isfinite, sqrt
from typing import Any, overload

import numpy as np

from ..checks import LARGEST, as_integer, item, shown
from .fields import Count, Flag, Period, Positive, Rate, Unit
from .rule import Numbers, UpdateRule
from .writing import straight


class Optimiser(UpdateRule):
    """A chain of rules and modifiers: each takes what the one before it put out.

    Indexable and iterable; chains may be nested. An empty chain subtracts the gradient itself. A
    rule that is added in mid-training starts with moments of 0, the others keep theirs.

    Parameters
    ----------
    *rules : UpdateRule
        In the order in which they act; the parameters may come first: `Optimiser(ps, a, b)`.

    Notes
    -----
    Flux's `Optimiser(a, b, ...)`, in Optimisers.jl `OptimiserChain`.

    Examples
    --------
    >>> from tinyflux.optimise import ADAM
    >>> opt = Optimiser(WeightDecay(0.01), ADAM())
    >>> opt[1].lr = 0.01
    >>> opt.insert(0, ClipValue(5.0))
    >>> opt
    Optimiser(ClipValue(threshold=5.0), WeightDecay(decay=0.01), ADAM(lr=0.01))
    """

    def __init__(self, *rules: Any) -> None:
        self._rules: tuple[UpdateRule, ...] = ()
        for rule in self._start(rules):
            self.append(rule)

    def leaves(self) -> tuple[UpdateRule, ...]:
        """Return the rules that are run one after the other, those of nested chains included."""
        leaves = tuple(leaf for rule in self._rules for leaf in rule.leaves())
        if leaves != self._stepper.chain:
            self._stepper.adopt(leaves)
        return leaves

    def append(self, rule: UpdateRule) -> None:
        """Add a rule at the end.

        Examples
        --------
        >>> from tinyflux.optimise import SGD
        >>> opt = Optimiser(ClipNorm(1.0))
        >>> opt.append(SGD(0.1))
        >>> opt
        Optimiser(ClipNorm(threshold=1.0), SGD(lr=0.1))
        """
        self.insert(len(self), rule)

    def insert(self, index: int, rule: UpdateRule) -> None:
        """Add a rule before position `index`.

        Raises
        ------
        TypeError
            If it is no rule, or a chain that holds this one.

        Examples
        --------
        >>> from tinyflux.optimise import SGD
        >>> opt = Optimiser(SGD(0.1))
        >>> opt.insert(0, ClipNorm(1.0))
        >>> opt
        Optimiser(ClipNorm(threshold=1.0), SGD(lr=0.1))
        """
        if not isinstance(rule, UpdateRule) or self in _chains(rule):
            what = "itself" if isinstance(rule, UpdateRule) else shown(rule)
            hint = ": write Optimiser(*rules)" if isinstance(rule, (list, tuple)) else ""
            raise TypeError(f"Optimiser: got {what}; wanted rules such as ADAM(0.001){hint}.")
        rules = list(self._rules)
        rules.insert(as_integer(index, "Optimiser.insert: index", least=-LARGEST), rule)
        self._rules = tuple(rules)

    def __len__(self) -> int:
        return len(self._rules)

    def __iter__(self) -> Iterator[UpdateRule]:
        return iter(self._rules)

    @overload
    def __getitem__(self, index: int) -> UpdateRule: ...
    @overload
    def __getitem__(self, index: slice) -> "Optimiser": ...
    def __getitem__(self, index: int | slice) -> UpdateRule:
        if isinstance(index, slice):
            return Optimiser(*self._rules[index])
        return item(self._rules, index, "Optimiser", "rule")

    def __bool__(self) -> bool:
        return True  # an empty chain is an optimiser all the same

    def __repr__(self) -> str:
        return f"Optimiser({', '.join(map(repr, self._rules))})"


def _chains(rule: UpdateRule) -> list[UpdateRule]:
    """A rule and, if it is a chain, all that is in it."""
    return [rule, *(r for part in getattr(rule, "_rules", ()) for r in _chains(part))]


class WeightDecay(UpdateRule):
    """The gradient of decay / 2 * sum(x**2) added: g + decay * x.

    Parameters
    ----------
    decay : float
        How strongly parameters are drawn to 0.

    Notes
    -----
    Flux's `WeightDecay(0)`. In front of ADAM it passes through the moments; see `ADAMW` for a decay
    that does not.

    Examples
    --------
    >>> from tinyflux.optimise import ADAM
    >>> Optimiser(WeightDecay(1e-4), ADAM())
    Optimiser(WeightDecay(decay=0.0001), ADAM(lr=0.001))
    """

    decay: Rate = 0.0

    def constants(self, t, n) -> Numbers:
        return (self.decay,)

    @straight
    def delta(self, x, g, u, decay):
        np.multiply(x, decay, out=u)
        u += g


class ClipValue(UpdateRule):
    """Every element kept within -threshold and threshold.

    Parameters
    ----------
    threshold : float
        The largest size of an element.

    Notes
    -----
    Flux's `ClipValue(threshold)`, in Optimisers.jl `ClipGrad`.

    Examples
    --------
    >>> ClipValue(0.5)
    ClipValue(threshold=0.5)
    """

    threshold: Positive

    def constants(self, t, n) -> Numbers:
        return self.threshold, -self.threshold

    @straight
    def delta(self, x, g, u, top, bottom):
        np.minimum(g, top, out=u)
        np.maximum(u, bottom, out=u)


class ClipNorm(UpdateRule):
    """Gradients that are too long shortened: g * min(1, threshold / norm(g)).

    Parameters
    ----------
    threshold : float
        The largest Euclidean norm.
    whole : bool
        False: each array for itself, as in Flux. True: one norm over all parameters of the step,
        which keeps the direction of the whole gradient.

    Raises
    ------
    FloatingPointError
        In the step, if a norm is too large for its type. Nothing has been changed then.

    Notes
    -----
    Pascanu, Mikolov & Bengio (2013), "On the difficulty of training recurrent neural networks",
    Algorithm 1; Flux's `ClipNorm(threshold)`.

    Examples
    --------
    >>> ClipNorm(1.0, whole=True)
    ClipNorm(threshold=1.0, whole=True)
    """

    threshold: Positive
    whole: Flag = False
    elementwise = False

    def norms(self, arrays: Sequence[np.ndarray]) -> list[float]:
        """Return the norm of each array, or the one of all, once for each array."""
        norms = [_norm(a.reshape(-1)) for a in arrays]
        if self.whole:
            norms = [hypot(*norms)] * len(norms)
        if not all(map(isfinite, norms)):
            first = [*map(isfinite, norms)].index(False)
            which = "all gradients" if self.whole else f"gradient {first}"
            raise FloatingPointError(
                f"ClipNorm: the norm of {which} is not finite; look at the loss, or take a smaller "
                "learning rate."
            )
        return norms

    def clip_(self, arrays: Sequence[np.ndarray]) -> None:
        """Shorten the arrays in place."""
        for a, norm in zip(arrays, self.norms(arrays), strict=True):
            if norm > self.threshold:
                a *= np.asarray(self.threshold / norm, a.dtype)


def _norm(a: np.ndarray) -> float:
    """The Euclidean norm, also where the squares overflow."""
    norm = sqrt(np.dot(a, a))
    if norm == np.inf:
        top = np.max(np.abs(a))
        norm = float(top) * sqrt(np.dot(a / top, a / top)) if np.isfinite(top) else norm
    return norm


class ExpDecay(UpdateRule):
    """A schedule of the learning rate in steps: times 1, decay, decay**2, ..., never below clip.

    Parameters
    ----------
    decay : float
        What the factor is multiplied by.
    decay_step : int
        After how many steps, again and again.
    clip : float
        The smallest factor.
    start : int
        No decay up to this step.

    Notes
    -----
    Steps are calls of the optimiser, however many parameters it has: the factor changes at each
    multiple of `decay_step` above `start`. Flux's `ExpDecay` is itself a second learning rate,
    which multiplies that of the rule next to it, and miscounts with more than one parameter.

    Examples
    --------
    >>> from tinyflux.optimise import ADAM
    >>> Optimiser(ADAM(0.001), ExpDecay(0.5, 1000))
    Optimiser(ADAM(lr=0.001), ExpDecay(decay=0.5))
    """

    decay: Unit = 0.1
    decay_step: Period = 1000
    clip: Unit = 1e-4
    start: Count = 0

    def factor(self, n: int) -> float:
        """Return the factor of step n = 1, 2, ...

        Examples
        --------
        >>> schedule = ExpDecay(0.5, decay_step=10)
        >>> [schedule.factor(n) for n in (1, 10, 20)]
        [1.0, 0.5, 0.25]
        """
        times = max(n // self.decay_step - self.start // self.decay_step, 0)
        return max(self.decay**times, self.clip)

    def constants(self, t, n) -> Numbers:
        return (self.factor(n),)

    @straight
    def delta(self, x, g, u, factor):
        np.multiply(g, factor, out=u)


class InvDecay(UpdateRule):
    """A schedule of the learning rate: g / (1 + gamma * n) in step n = 1, 2, ...

    Parameters
    ----------
    gamma : float
        How fast it decays.

    Notes
    -----
    Flux's `InvDecay(0.001)`; steps are calls of the optimiser.

    Examples
    --------
    >>> from tinyflux.optimise import SGD
    >>> Optimiser(SGD(0.1), InvDecay(0.01))
    Optimiser(SGD(lr=0.1), InvDecay(gamma=0.01))
    """

    gamma: Rate = 0.001

    def constants(self, t, n) -> Numbers:
        return (1 / (1 + self.gamma * n),)

    @straight
    def delta(self, x, g, u, factor):
        np.multiply(g, factor, out=u)
