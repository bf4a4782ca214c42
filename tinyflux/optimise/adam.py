"""ADAM and its relatives.

In the formulas x is a parameter, g its gradient, t = 1, 2, ... the number of its update, and
moments start at 0.

Where a paper writes m = beta * m + (1 - beta) * g, the code says only m += g * (1 - beta) / scale:
the decay is in the scale of m (`fade`), and so costs no pass over the memory. Bias corrections,
scales and learning rate are folded into few numbers in `constants`. Change `lr`, `beta`, `eps` in
mid-training as you like: m and v go on from where they are.
"""

from math import sqrt
from typing import ClassVar

import numpy as np

from .fields import Betas, Divisor, Rate
from .rule import Numbers, UpdateRule
from .writing import straight


class ADAM(UpdateRule):
    """Mean over root mean square, both corrected for their start at 0.

    m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g**2;
    x -= lr * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps)

    Parameters
    ----------
    lr : float
        The learning rate.
    beta : pair of float
        Decay of the mean m and of the mean square v.
    eps : float
        Keeps the division finite.

    Notes
    -----
    Kingma & Ba (2015), "Adam: a method for stochastic optimization", Algorithm 1; Flux's `ADAM`.

    Examples
    --------
    >>> opt = ADAM(0.001)
    >>> opt.lr = 0.0005
    >>> opt
    ADAM(lr=0.0005)
    """

    lr: Rate = 0.001
    beta: Betas = (0.9, 0.999)
    eps: Divisor = 1e-8
    moments: ClassVar[tuple[str, ...]] = ("m", "v")

    def fade(self, m, v, *others) -> Numbers:
        b1, b2 = self.beta
        return b1 * m, b2 * v, *others

    def constants(self, t, n, m, v, *_) -> Numbers:
        b1, b2 = self.beta
        root = sqrt((1 - b2**t) / v)
        return (1 - b1) / m, (1 - b2) / v, self.eps * root, self.lr * root * m / (1 - b1**t)

    def remember(self, g, u, m, v, new, square):
        """The moments, with this gradient among them."""
        m += np.multiply(g, new, out=u)
        np.multiply(g, g, out=u)
        u *= square
        v += u

    @straight
    def delta(self, x, g, u, m, v, new, square, eps, rate):
        ADAM.remember(self, g, u, m, v, new, square)
        np.sqrt(v, out=u)
        u += eps
        np.divide(m, u, out=u)
        u *= rate


class ADAMW(ADAM):
    """ADAM with decoupled weight decay: x -= (the step of ADAM) + lr * decay * x.

    Parameters
    ----------
    lr : float
        The learning rate; it multiplies the decay too.
    beta : pair of float
        Decay of the mean and of the mean square.
    decay : float
        Weight decay.
    eps : float
        Keeps the division finite.

    Notes
    -----
    Loshchilov & Hutter (2019), "Decoupled weight decay regularization", Algorithm 2. Flux 0.12 does
    not multiply the decay by the learning rate; Optimisers.jl and PyTorch do.

    Examples
    --------
    >>> ADAMW(0.001, decay=0.01)
    ADAMW(lr=0.001, decay=0.01)
    """

    lr: Rate = 0.001
    beta: Betas = (0.9, 0.999)
    decay: Rate = 0.0
    scratch = 1

    def constants(self, t, n, m, v, *_) -> Numbers:
        return *super().constants(t, n, m, v), self.lr * self.decay

    @straight
    def delta(self, x, g, u, m, v, w, new, square, eps, rate, decay):
        ADAM.delta(self, x, g, u, m, v, new, square, eps, rate)
        u += np.multiply(x, decay, out=w)


class RADAM(ADAM):
    """ADAM that waits with the division until the mean square can be trusted.

    With r0 = 2 / (1 - beta2) - 1 and r = r0 - 2 t beta2**t / (1 - beta2**t): while r <= 4 the step
    is lr * m / (1 - beta1**t); afterwards it is the step of ADAM times
    sqrt((r - 4) (r - 2) r0 / ((r0 - 4) (r0 - 2) r)).

    Parameters
    ----------
    lr : float
        The learning rate.
    beta : pair of float
        Decay of the mean and of the mean square.
    eps : float
        Keeps the division finite.

    Notes
    -----
    Liu et al. (2020), "On the variance of the adaptive learning rate and beyond", Algorithm 2.

    Examples
    --------
    >>> RADAM()
    RADAM(lr=0.001)
    """

    def constants(self, t, n, m, v, *_) -> Numbers:
        b1, b2 = self.beta
        *added, eps, rate = super().constants(t, n, m, v)
        most = np.inf
        r0 = 2 / (1 - b2) - 1
        r = r0 - 2 * t * b2**t / (1 - b2**t)
        if r > 4:
            rate *= sqrt((r - 4) * (r - 2) * r0 / ((r0 - 4) * (r0 - 2) * r))
        else:  # a division by 1, also where the square has overflowed
            most, eps, rate = 0.0, 1.0, self.lr * m / (1 - b1**t)
        return *added, most, eps, rate

    @straight
    def delta(self, x, g, u, m, v, new, square, most, eps, rate):
        ADAM.remember(self, g, u, m, v, new, square)
        np.sqrt(v, out=u)
        np.minimum(u, most, out=u)
        u += eps
        np.divide(m, u, out=u)
        u *= rate


class AdaMax(ADAM):
    """ADAM with a decaying maximum in place of the root mean square.

    m = beta1 * m + (1 - beta1) * g;  top = max(beta2 * top, abs(g));
    x -= lr / (1 - beta1**t) * m / (top + eps)

    Parameters
    ----------
    lr : float
        The learning rate.
    beta : pair of float
        Decay of the mean and of the maximum.
    eps : float
        Keeps the division finite.

    Notes
    -----
    Kingma & Ba (2015), Algorithm 2; Flux 0.12's `AdaMax`.

    Examples
    --------
    >>> AdaMax(0.002)
    AdaMax(lr=0.002)
    """

    moments = ("m", "top")

    def constants(self, t, n, m, top) -> Numbers:
        b1, _ = self.beta
        return (1 - b1) / m, 1 / top, self.eps / top, self.lr * m / top / (1 - b1**t)

    @straight
    def delta(self, x, g, u, m, top, new, size, eps, rate):
        m += np.multiply(g, new, out=u)
        np.abs(g, out=u)
        u *= size
        np.maximum(top, u, out=top)
        np.add(top, eps, out=u)
        np.divide(m, u, out=u)
        u *= rate


class OADAM(ADAM):
    """Optimistic ADAM, for games such as GANs: x -= 2 * s - (the s before), s being ADAM's step.

    Parameters
    ----------
    lr : float
        The learning rate.
    beta : pair of float
        Decay of the mean and of the mean square.
    eps : float
        Keeps the division finite.

    Notes
    -----
    Daskalakis et al. (2018), "Training GANs with optimism", Algorithm 1.

    Examples
    --------
    >>> OADAM()
    OADAM(lr=0.001)
    """

    lr: Rate = 0.001
    beta: Betas = (0.5, 0.9)
    moments = ("m", "v", "s")
    scratch = 1

    @straight
    def delta(self, x, g, u, m, v, s, w, new, square, eps, rate):
        ADAM.delta(self, x, g, u, m, v, new, square, eps, rate)
        np.subtract(u, s, out=w)
        np.copyto(s, u)
        u += w


class AMSGrad(ADAM):
    """ADAM whose denominator never shrinks, without bias correction.

    m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g**2;  top = max(top, v);
    x -= lr * m / (sqrt(top) + eps)

    Parameters
    ----------
    lr : float
        The learning rate.
    beta : pair of float
        Decay of the mean and of the mean square.
    eps : float
        Keeps the division finite.

    Notes
    -----
    Reddi, Kale & Kumar (2018), "On the convergence of Adam and beyond", Algorithm 2. Flux 0.12
    starts all moments at eps instead of 0.

    Examples
    --------
    >>> AMSGrad()
    AMSGrad(lr=0.001)
    """

    moments = ("m", "v", "top")

    def constants(self, t, n, m, v, *_) -> Numbers:
        new, square = super().constants(t, n, m, v)[:2]
        return new, square, v, self.eps, self.lr * m

    @straight
    def delta(self, x, g, u, m, v, top, new, square, v_scale, eps, rate):
        ADAM.remember(self, g, u, m, v, new, square)
        np.multiply(v, v_scale, out=u)
        np.maximum(top, u, out=top)
        np.sqrt(top, out=u)
        u += eps
        np.divide(m, u, out=u)
        u *= rate


class NADAM(ADAM):
    """ADAM with Nesterov's look ahead.

    m and v as in ADAM;  ahead = beta1 * m / (1 - beta1**(t+1)) + (1 - beta1) * g / (1 - beta1**t);
    x -= lr * ahead / (sqrt(beta2 * v / (1 - beta2**t)) + eps)

    Parameters
    ----------
    lr : float
        The learning rate.
    beta : pair of float
        Decay of the mean and of the mean square.
    eps : float
        Keeps the division finite.

    Notes
    -----
    Dozat (2016), "Incorporating Nesterov momentum into Adam", Algorithm 8; Flux 0.12's `NADAM`.

    Examples
    --------
    >>> NADAM(0.002)
    NADAM(lr=0.002)
    """

    scratch = 1

    def constants(self, t, n, m, v, *_) -> Numbers:
        b1, b2 = self.beta
        new, square = super().constants(t, n, m, v)[:2]
        ahead = self.lr * b1 * m / (1 - b1 ** (t + 1))
        now = self.lr * (1 - b1) / (1 - b1**t)
        return new, square, ahead, now, sqrt(b2 * v / (1 - b2**t)), self.eps

    @straight
    def delta(self, x, g, u, m, v, w, new, square, ahead, now, root, eps):
        ADAM.remember(self, g, u, m, v, new, square)
        np.sqrt(v, out=w)
        w *= root
        w += eps
        np.divide(g, w, out=u)
        u *= now
        np.divide(m, w, out=w)
        w *= ahead
        u += w


class AdaBelief(ADAM):
    """ADAM that divides by how much the gradient surprises, without bias correction.

    m = beta1 * m + (1 - beta1) * g;  s = beta2 * s + (1 - beta2) * (g - m)**2;
    x -= lr * m / (sqrt(s) + eps)

    Parameters
    ----------
    lr : float
        The learning rate.
    beta : pair of float
        Decay of the mean and of the surprise.
    eps : float
        Keeps the division finite.

    Notes
    -----
    Zhuang et al. (2020), "AdaBelief optimizer: adapting stepsizes by the belief in observed
    gradients", as Flux 0.12 has it (Optimisers.jl corrects the bias).

    Examples
    --------
    >>> AdaBelief()
    AdaBelief(lr=0.001)
    """

    moments = ("m", "s")

    def constants(self, t, n, m, s) -> Numbers:
        b1, b2 = self.beta
        root = sqrt(1 / s)
        return (1 - b1) / m, m, (1 - b2) / s, self.eps * root, self.lr * m * root

    @straight
    def delta(self, x, g, u, m, s, new, m_scale, square, eps, rate):
        m += np.multiply(g, new, out=u)
        np.multiply(m, m_scale, out=u)
        np.subtract(g, u, out=u)
        np.multiply(u, u, out=u)
        u *= square
        s += u
        np.sqrt(s, out=u)
        u += eps
        np.divide(m, u, out=u)
        u *= rate
