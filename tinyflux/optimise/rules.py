"""The table of update rules: Flux's, each as its formula and the few NumPy operations that do it.

In the formulas x is a parameter, g its gradient, t = 1, 2, ... the number of its update, and every
rule ends in x -= step. Moments start at 0.

Where a paper writes m = beta * m + (1 - beta) * g, the code keeps M = m / (1 - beta), because
M = beta * M + g takes a pass less; what is left of (1 - beta), and the bias corrections, are folded
into two numbers, `eps` and `rate`. Change `lr`, `beta`, `rho`, `eps` in mid-training as you like:
m and v go on from where they are.
"""

from math import sqrt

import numpy as np

from tinyflux.optimise.rule import Betas, Decay, Rate, UpdateRule

Numbers = tuple[float, ...]


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

    def constants(self, t, n) -> Numbers:
        return self.lr, self.rho

    def delta(self, x, g, u, v, lr, rho):
        np.multiply(g, lr, out=u)
        v *= rho
        v += u
        np.copyto(u, v)


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
    moments, scratch = ("v",), 1

    def constants(self, t, n) -> Numbers:
        return self.lr, self.rho

    def delta(self, x, g, u, v, w, lr, rho):
        np.multiply(g, lr, out=u)
        v *= rho
        v += u
        u += np.multiply(v, rho, out=w)


class RMSProp(UpdateRule):
    """Steps in units of the gradient's usual size: acc = rho * acc + (1 - rho) * g**2;
    x -= lr * g / (sqrt(acc) + eps).

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
    eps: Rate = 1e-8
    moments = ("acc",)

    def scale(self) -> Numbers:
        return (1 - self.rho,)

    def constants(self, t, n) -> Numbers:
        root = sqrt(1 - self.rho)
        return self.rho, self.eps / root, self.lr / root

    def delta(self, x, g, u, acc, rho, eps, rate):
        np.multiply(g, g, out=u)
        acc *= rho
        acc += u
        np.sqrt(acc, out=u)
        u += eps
        np.divide(g, u, out=u)
        u *= rate


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
    eps: Rate = 1e-8
    moments = ("m", "v")

    def scale(self) -> Numbers:
        b1, b2 = self.beta
        return 1 - b1, 1 - b2

    def constants(self, t, n) -> Numbers:
        b1, b2 = self.beta
        root = sqrt((1 - b2**t) / (1 - b2))
        return b1, b2, self.eps * root, self.lr * root * (1 - b1) / (1 - b1**t)

    def delta(self, x, g, u, m, v, b1, b2, eps, rate):
        m *= b1
        m += g
        v *= b2
        v += np.multiply(g, g, out=u)
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
    scratch, reads_x = 1, True

    def constants(self, t, n) -> Numbers:
        return *super().constants(t, n), self.lr * self.decay

    def delta(self, x, g, u, m, v, w, b1, b2, eps, rate, decay):
        ADAM.delta(self, x, g, u, m, v, b1, b2, eps, rate)
        u += np.multiply(x, decay, out=w)


class RADAM(ADAM):
    """ADAM that waits with the division until the mean square can be trusted.

    With r0 = 2 / (1 - beta2) - 1 and r = r0 - 2 t beta2**t / (1 - beta2**t): while r <= 4 the step is
    lr * m / (1 - beta1**t); afterwards it is the step of ADAM times
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

    def constants(self, t, n) -> Numbers:
        b1, b2 = self.beta
        *_, eps, rate = super().constants(t, n)
        r0 = 2 / (1 - b2) - 1
        r = r0 - 2 * t * b2**t / (1 - b2**t)
        if r > 4:
            rate *= sqrt((r - 4) * (r - 2) * r0 / ((r0 - 4) * (r0 - 2) * r))
        else:
            rate = self.lr * (1 - b1) / (1 - b1**t)
        return b1, b2, eps, rate, r > 4

    def delta(self, x, g, u, m, v, b1, b2, eps, rate, trusted):
        ADAM.delta(self, x, g, u, m, v, b1, b2, eps, rate)
        if not trusted:
            np.multiply(m, rate, out=u)


class AdaMax(UpdateRule):
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

    lr: Rate = 0.001
    beta: Betas = (0.9, 0.999)
    eps: Rate = 1e-8
    moments = ("m", "top")

    def scale(self) -> Numbers:
        return 1 - self.beta[0], 1.0

    def constants(self, t, n) -> Numbers:
        b1, b2 = self.beta
        return b1, b2, self.eps, self.lr * (1 - b1) / (1 - b1**t)

    def delta(self, x, g, u, m, top, b1, b2, eps, rate):
        m *= b1
        m += g
        top *= b2
        np.maximum(top, np.abs(g, out=u), out=top)
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

    beta: Betas = (0.5, 0.9)
    moments, scratch = ("m", "v", "s"), 1

    def scale(self) -> Numbers:
        return *super().scale(), 1.0

    def delta(self, x, g, u, m, v, s, w, b1, b2, eps, rate):
        ADAM.delta(self, x, g, u, m, v, b1, b2, eps, rate)
        np.subtract(u, s, out=w)
        np.copyto(s, u)
        u += w


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
    eps: Rate = 1e-8
    moments = ("acc",)

    def constants(self, t, n) -> Numbers:
        return self.eps, self.lr

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
    Zeiler (2012), "ADADELTA: an adaptive learning rate method", Algorithm 1; Flux 0.12's `ADADelta`.

    Examples
    --------
    >>> ADADelta(0.95)
    ADADelta(rho=0.95)
    """

    rho: Decay = 0.9
    eps: Rate = 1e-8
    moments, scratch = ("acc", "d"), 1

    def scale(self) -> Numbers:
        return 1 - self.rho, 1 - self.rho

    def constants(self, t, n) -> Numbers:
        return self.rho, self.eps / (1 - self.rho)

    def delta(self, x, g, u, acc, d, w, rho, eps):
        acc *= rho
        acc += np.multiply(g, g, out=u)
        np.add(d, eps, out=w)
        w /= np.add(acc, eps, out=u)
        np.sqrt(w, out=w)
        np.multiply(g, w, out=u)
        d *= rho
        d += np.multiply(u, u, out=w)


class AMSGrad(UpdateRule):
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

    lr: Rate = 0.001
    beta: Betas = (0.9, 0.999)
    eps: Rate = 1e-8
    moments = ("m", "v", "top")

    def scale(self) -> Numbers:
        b1, b2 = self.beta
        return 1 - b1, 1 - b2, 1 - b2

    def constants(self, t, n) -> Numbers:
        b1, b2 = self.beta
        root = sqrt(1 - b2)
        return b1, b2, self.eps / root, self.lr * (1 - b1) / root

    def delta(self, x, g, u, m, v, top, b1, b2, eps, rate):
        m *= b1
        m += g
        v *= b2
        v += np.multiply(g, g, out=u)
        np.maximum(top, v, out=top)
        np.sqrt(top, out=u)
        u += eps
        np.divide(m, u, out=u)
        u *= rate


class NADAM(UpdateRule):
    """ADAM with Nesterov's look ahead.

    m and v as in ADAM;  x -= lr * (beta1 * m / (1 - beta1**(t+1)) + (1 - beta1) * g / (1 - beta1**t))
    / (sqrt(beta2 * v / (1 - beta2**t)) + eps)

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

    lr: Rate = 0.001
    beta: Betas = (0.9, 0.999)
    eps: Rate = 1e-8
    moments, scratch = ("m", "v"), 1

    def scale(self) -> Numbers:
        b1, b2 = self.beta
        return 1 - b1, 1 - b2

    def constants(self, t, n) -> Numbers:
        b1, b2 = self.beta
        ahead = self.lr * b1 * (1 - b1) / (1 - b1 ** (t + 1))
        now = self.lr * (1 - b1) / (1 - b1**t)
        return b1, b2, ahead, now, sqrt(b2 * (1 - b2) / (1 - b2**t)), self.eps

    def delta(self, x, g, u, m, v, w, b1, b2, ahead, now, root, eps):
        m *= b1
        m += g
        v *= b2
        v += np.multiply(g, g, out=u)
        np.sqrt(v, out=w)
        w *= root
        w += eps
        np.multiply(g, now, out=u)
        u /= w
        w_inverse = np.divide(m, w, out=w)
        w_inverse *= ahead
        u += w_inverse


class AdaBelief(UpdateRule):
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

    lr: Rate = 0.001
    beta: Betas = (0.9, 0.999)
    eps: Rate = 1e-8
    moments = ("m", "s")

    def scale(self) -> Numbers:
        b1, b2 = self.beta
        return 1 - b1, 1 - b2

    def constants(self, t, n) -> Numbers:
        b1, b2 = self.beta
        root = sqrt(1 - b2)
        return b1, b2, 1 - b1, self.eps / root, self.lr * (1 - b1) / root

    def delta(self, x, g, u, m, s, b1, b2, c1, eps, rate):
        m *= b1
        m += g
        np.multiply(m, c1, out=u)
        np.subtract(g, u, out=u)
        s *= b2
        s += np.multiply(u, u, out=u)
        np.sqrt(s, out=u)
        u += eps
        np.divide(m, u, out=u)
        u *= rate


Descent = SGD
