"""The classic update rules: each as its formula and the few NumPy operations that do it.

In the formulas x is a parameter, g its gradient, t = 1, 2, ... the number of its update, and
moments start at 0. Every rule ends in x -= step; `delta` computes the step.

Where a paper writes acc = rho * acc + (1 - rho) * g**2, the code mostly says only
acc += g**2 * (1 - rho) / scale: the decay is in the scale of acc (`fade`), and so costs no pass
over the memory. Change `lr`, `rho`, `eps` in mid-training as you like: the moments go on from where
they are.
"""

from math import sqrt

import numpy as np

from .fields import Decay, Divisor, Rate
from .rule import Numbers, UpdateRule
from .writing import straight


class SGD(UpdateRule):
    """Gradient descent: x -= lr * g.

    Parameters
    ----------
    lr : float
        The learning rate.

    Notes
    -----
    Robbins & Monro (1951); Flux's `Descent(0.1)`.

    Examples
    --------
    >>> SGD(0.1)
    SGD(lr=0.1)
    """

    lr: Rate = 0.1

    def constants(self, t, n) -> Numbers:
        return (self.lr,)

    @straight
    def delta(self, x, g, u, lr):
        np.multiply(g, lr, out=u)


class Momentum(UpdateRule):
    """A ball with friction: v = rho * v + lr * g; x -= v.

    Parameters
    ----------
    lr : float
        The learning rate.
    rho : float
        How much of the velocity v is kept from step to step.

    Notes
    -----
    Polyak (1964), "Some methods of speeding up the convergence of iteration methods"; Flux's
    `Momentum(0.01, 0.9)`.

    Examples
    --------
    >>> Momentum(0.01, rho=0.95)
    Momentum(lr=0.01, rho=0.95)
    """

    lr: Rate = 0.01
    rho: Decay = 0.9
    moments = ("v",)

    def fade(self, v) -> Numbers:
        return (self.rho * v,)

    def constants(self, t, n, v) -> Numbers:
        return self.lr / v, v

    @straight
    def delta(self, x, g, u, v, new, v_scale):
        v += np.multiply(g, new, out=u)
        np.multiply(v, v_scale, out=u)


class Nesterov(UpdateRule):
    """Momentum that looks ahead: v = rho * v + lr * g; x -= rho * v + lr * g.

    Parameters
    ----------
    lr : float
        The learning rate.
    rho : float
        How much of the velocity v is kept from step to step.

    Notes
    -----
    Sutskever et al. (2013), "On the importance of initialization and momentum in deep learning",
    in the variables of Bengio et al. (2013), eq. 7; Flux's `Nesterov(0.001, 0.9)`.

    Examples
    --------
    >>> Nesterov()
    Nesterov(lr=0.001)
    """

    lr: Rate = 0.001
    rho: Decay = 0.9
    moments = ("v",)
    scratch = 1

    def fade(self, v) -> Numbers:
        return (self.rho * v,)

    def constants(self, t, n, v) -> Numbers:
        return self.lr / v, self.rho * v, self.lr

    @straight
    def delta(self, x, g, u, v, w, new, ahead, lr):
        v += np.multiply(g, new, out=u)
        np.multiply(g, lr, out=u)
        u += np.multiply(v, ahead, out=w)


class RMSProp(UpdateRule):
    """Steps in units of the gradient's usual size.

    acc = rho * acc + (1 - rho) * g**2;  x -= lr * g / (sqrt(acc) + eps)

    Parameters
    ----------
    lr : float
        The learning rate.
    rho : float
        Decay of the mean square.
    eps : float
        Keeps the division finite.

    Notes
    -----
    Tieleman & Hinton (2012), Coursera, lecture 6.5; Flux 0.12's `RMSProp(0.001, 0.9)`.

    Examples
    --------
    >>> RMSProp(0.002)
    RMSProp(lr=0.002)
    """

    lr: Rate = 0.001
    rho: Decay = 0.9
    eps: Divisor = 1e-8
    moments = ("acc",)

    def fade(self, acc) -> Numbers:
        return (self.rho * acc,)

    def constants(self, t, n, acc) -> Numbers:
        root = sqrt(1 / acc)
        return (1 - self.rho) / acc, self.eps * root, self.lr * root

    @straight
    def delta(self, x, g, u, acc, new, eps, rate):
        np.multiply(g, g, out=u)
        u *= new
        acc += u
        np.sqrt(acc, out=u)
        u += eps
        np.divide(g, u, out=u)
        u *= rate


class ADAGrad(UpdateRule):
    """A rate per element that only shrinks: acc += g**2; x -= lr * g / (sqrt(acc) + eps).

    Parameters
    ----------
    lr : float
        The learning rate.
    eps : float
        Keeps the division finite.

    Notes
    -----
    Duchi, Hazan & Singer (2011), "Adaptive subgradient methods", Algorithm 1 (diagonal). Flux 0.12
    starts acc at eps instead of 0.

    Examples
    --------
    >>> ADAGrad()
    ADAGrad(lr=0.1)
    """

    lr: Rate = 0.1
    eps: Divisor = 1e-8
    moments = ("acc",)

    def constants(self, t, n) -> Numbers:
        return self.eps, self.lr

    @straight
    def delta(self, x, g, u, acc, eps, lr):
        acc += np.multiply(g, g, out=u)
        np.sqrt(acc, out=u)
        u += eps
        np.divide(g, u, out=u)
        u *= lr


class ADADelta(UpdateRule):
    """Steps in the unit of x, without a learning rate.

    acc = rho * acc + (1 - rho) * g**2;  step = g * sqrt(d + eps) / sqrt(acc + eps);
    d = rho * d + (1 - rho) * step**2;  x -= step

    Parameters
    ----------
    rho : float
        Decay of both mean squares.
    eps : float
        Sets the size of the first steps.

    Notes
    -----
    Zeiler (2012), "ADADELTA: an adaptive learning rate method", Algorithm 1; Flux's
    `ADADelta`.

    Examples
    --------
    >>> ADADelta(0.95)
    ADADelta(rho=0.95)
    """

    rho: Decay = 0.9
    eps: Divisor = 1e-8
    moments = ("acc", "d")
    scratch = 1

    def constants(self, t, n) -> Numbers:
        return self.rho, 1 - self.rho, self.eps

    @straight
    def delta(self, x, g, u, acc, d, w, rho, new, eps):
        acc *= rho
        np.multiply(g, g, out=u)
        u *= new
        acc += u
        np.add(d, eps, out=w)
        w /= np.add(acc, eps, out=u)
        np.sqrt(w, out=w)
        np.multiply(g, w, out=u)
        d *= rho
        np.multiply(u, u, out=w)
        w *= new
        d += w


Descent = SGD
