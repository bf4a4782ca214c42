"""Misuse: every mistake gets one sentence with the remedy, and changes nothing."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

import tinyflux as flux
from tests.suites import a_third, either
from tinyflux import losses, schedules
from tinyflux.callbacks import phase
from tinyflux.checks import as_flag, as_number, as_real
from tinyflux.tape import open_tape

X, Y = np.ones((5, 4), np.float32), np.ones((5, 2), np.float32)
MASKED = np.ma.masked_array(np.ones((5, 4)), np.eye(5, 4))


class Student:
    """A model with all that belongs to it, and what must not change when a call fails."""

    def __init__(self):
        self.m = flux.Chain(flux.Dense(4, 3, flux.tanh), flux.Dense(3, 2))
        self.ps = flux.params(self.m)
        self.opt = flux.ADAM(0.01)
        self.W = flux.Tensor(np.ones(3))

    def loss(self, x, y):
        return losses.mse(self.m(x), y)

    def classes(self, x, y):
        return losses.logitcrossentropy(self.m(x), y)

    def gradient(self):
        return flux.gradient(lambda: self.loss(X, Y), self.ps)

    def train(self, loss=None, **given):
        """`train_` with one thing of the caller's choice and the rest as it should be."""
        known = {"ps": self.ps, "data": [(X, Y)], "opt": self.opt}
        args = [given.pop(name, known[name]) for name in known]
        return flux.train_(self.loss if loss is None else loss, *args, **given)

    def state(self):
        kept = [t.data.copy() for t in (*self.ps, self.W)]
        return [a.tobytes() for a in kept], [str(self.opt.state(p)) for p in self.ps]


def in_itself():
    data = {}
    data["again"] = data
    return data


def used_up():
    g = ((X, Y) for _ in range(2))
    list(g)
    return g


def write(s):
    s.W[0] = 2.0
    return np.sum(s.W)


def add_to(s):
    a = np.zeros(3)
    a += s.W
    return np.sum(a)


def put(gs, key, value):
    gs[key] = value


def replaced(s, value):
    s.m[0].weight.data, kept = value, s.m[0].weight.data
    try:
        s.m(X)
    finally:
        s.m[0].weight.data = kept


def reweighted(s, weight):
    layer = flux.Dense(4, 2)
    layer.weight = weight
    flux.Chain(layer)(X)


# What is done, the exception, and words that its sentence must have, in this order.
NAMED = [
    # layers
    (lambda s: s.m(np.ones((5, 7))), ValueError, "Dense(4, 3, tanh) layer 0 Chain (5, 7) be 4"),
    (lambda s: flux.Chain(s.m, s.m)(X), ValueError, "layer 0 of Chain, layer 1 (5, 2) be 4"),
    (lambda s: s.m(X.T), ValueError, "(4, 5) Observations are rows: x.T"),
    (lambda s: s.m(X.reshape(5, 2, 2)), ValueError, "Flatten first: x.reshape(len(x), -1)"),
    (lambda s: s.m(None), TypeError, "Dense(4, 3, tanh): got None numbers"),
    (lambda s: s.m([[1.0], [1.0, 2.0]]), TypeError, "Dense(4, 3, tanh) lists do not form an array"),
    (lambda s: s.m(MASKED), TypeError, "Dense(4, 3, tanh) masked .filled(value)"),
    (lambda s: s.m([["a"] * 4]), TypeError, "Dense(4, 3, tanh): got numbers are wanted"),
    (lambda s: s.m(10**30), TypeError, "Dense(4, 3, tanh): got 1000"),
    (lambda s: s.m[5], IndexError, "Chain: 5 is not the index of a layer; there are 2"),
    (lambda s: flux.Dense(4, 3, init=None), TypeError, "Dense: init is None must be a function"),
    (lambda s: flux.Dense(4, 3, bias=np.zeros(3)), TypeError, "Dense: bias must be True or False"),
    (lambda s: flux.Dropout(0.5, axis="x"), TypeError, "Dropout: axis whole number"),
    (lambda s: flux.trainmode_(flux.Dropout(0.5, axis=7))(X), ValueError, "axis=7 (5, 4) no such"),
    (lambda s: flux.Dropout(0.5)(MASKED), TypeError, "Dropout(0.5): masked"),
    (lambda s: flux.trainmode_(s.m, "on"), ValueError, 'True, False or "auto", got \'on\''),
    (lambda s: flux.testmode_(s.m, X), ValueError, 'mode must be True, False or "auto"'),
    (lambda s: replaced(s, "one"), TypeError, "t.data = array: got dtype <U3"),
    (lambda s: replaced(s, np.ones((4, 3), int)), TypeError, "t.data = array: got dtype int64"),
    (lambda s: replaced(s, MASKED), TypeError, "t.data = array: masked"),
    # losses
    (lambda s: s.train(data=[(X, np.ones(5))]), ValueError, "mse: (5, 2) (5,) must be equal"),
    (lambda s: s.train(s.classes, data=[(X, [0, 1, 2, 1, 0])]), ValueError, "from 0 to 1; got 2"),
    (lambda s: s.train(s.classes, data=[(X, [0, -1, 0, 1, 0])]), ValueError, "from 0 to 1; got -1"),
    (lambda s: losses.mse(Y * 1j, Y), TypeError, "mse: yhat: got dtype complex64; real numbers"),
    (lambda s: losses.mae(Y, Y, agg=3), TypeError, "mae: agg is 3 must be a function"),
    (lambda s: losses.crossentropy(Y, Y, eps="x"), TypeError, "crossentropy: eps is 'x'"),
    (lambda s: losses.huber_loss(Y, Y, delta=None), TypeError, "huber_loss: delta is None"),
    (lambda s: losses.focal_loss(Y, Y, gamma=-1), ValueError, "focal_loss: gamma is -1 at least 0"),
    (lambda s: losses.tversky_loss(Y, Y, beta=1.5), ValueError, "beta is 1.5 at most 1"),
    (lambda s: losses.dice_coeff_loss(Y, Y, smooth=None), TypeError, "smooth is None"),
    (
        lambda s: losses.siamese_contrastive_loss(Y, Y, margin=-1), ValueError,
        "siamese_contrastive_loss: margin is -1 at least 0",
    ),
    (
        lambda s: losses.hinge_loss(np.ones(2), np.array([0, 1])), ValueError,
        "hinge_loss: y is -1 or 1, got 0.0; of labels 0 and 1 2 * y - 1",
    ),
    (
        lambda s: losses.poisson_loss(np.array([-0.5]), [1]), ValueError,
        "poisson_loss: yhat must not be negative, got -0.5; rates softplus",
    ),
    (
        lambda s: losses.binary_focal_loss(np.full(2, 0.5), np.array([-1, 1])), ValueError,
        "binary_focal_loss: y goes from 0 to 1, got -1 (y + 1) / 2",
    ),
    (lambda s: losses.label_smoothing(Y, None), TypeError, "label_smoothing: alpha is None"),
    (lambda s: losses.label_smoothing(Y, 0.1, axis=4), ValueError, "axis=4 is not an axis of"),
    (lambda s: losses.label_smoothing([], 0.1), ValueError, "no class"),
    # parameters
    (lambda s: flux.Tensor([1, 2]), TypeError, "Tensor: int64 x.astype(np.float32)"),
    (lambda s: flux.Tensor([1j]), TypeError, "Tensor: complex128 as two arrays"),
    (lambda s: flux.Tensor([None]), TypeError, "Tensor: [None] np.array(..., dtype=np.float32)"),
    (lambda s: flux.Tensor(s.gradient()), TypeError, "no array: use gs[W]"),
    (lambda s: flux.Params([s.W], names=3), ValueError, "Params: wanted 1 names got 3"),
    (lambda s: flux.Params([s.W], names="ab"), ValueError, "Params: wanted 1 names"),
    (lambda s: s.ps | 3, TypeError, "Params holds Tensors, got int"),
    (lambda s: s.ps & [X], TypeError, "Params holds Tensors, got ndarray"),
    # what is differentiated
    (lambda s: flux.gradient(s.loss(X, Y), s.ps), TypeError, "f is must be a function: f itself"),
    (lambda s: flux.jacobian(None, X), TypeError, "f is None must be a function"),
    (lambda s: flux.pullback(lambda x: None, 1.0), ValueError, "returned None; an array"),
    (lambda s: flux.gradient(lambda x: [[1], [1, 2]], 1.0), ValueError, "returned a list; one"),
    (lambda s: flux.hessian(np.sum, s.ps), TypeError, "hessian: parameters; one array"),
    (lambda s: flux.pullback(np.sum, X)[1](None), TypeError, "back: got dtype object; real"),
    (lambda s: flux.gradcheck(np.sum, 1.0, rtol=-1), ValueError, "gradcheck: rtol is -1"),
    (lambda s: flux.gradient(lambda x: np.abs(x * 1j), 2.0), TypeError, "complex two arrays"),
    (lambda s: flux.gradient(lambda: write(s), s.ps), TypeError, "t[i] = v np.where(mask, v, t)"),
    (lambda s: flux.gradient(lambda: add_to(s), [s.W]), TypeError, "out= a = a + t"),
    (lambda s: flux.gradient(lambda: np.sum([s.W[0]]), [s.W]), TypeError, "lost np.stack"),
    (lambda s: flux.gradient(lambda: s.W * {}, [s.W]), TypeError, "multiply: got {} numbers"),
    (lambda s: flux.detach(MASKED), TypeError, "detach: masked .filled(value)"),
    (lambda s: f"{s.W:.2f}", TypeError, "'.2f' formats one number, not shape (3,)"),
    # gradients
    (lambda s: s.gradient()[s.W], KeyError, "no gradient was asked for (3,) Add it"),
    (lambda s: put(s.gradient(), 3, X), KeyError, "is gs[W], not gs[3]"),
    (lambda s: s.gradient()["weight"], KeyError, "is gs[W], not gs['weight']; gs.values()"),
    (lambda s: flux.Chain([flux.Dense(4, 2)]), TypeError, "[Dense(4, 2)] Chain(*layers)"),
    (lambda s: flux.Optimiser([s.opt]), TypeError, "got [ADAM(lr=0.01)] Optimiser(*rules)"),
    (lambda s: flux.set_threads_("1"), TypeError, "set_threads_: n is '1'"),
    (
        lambda s: losses.logitcrossentropy(np.array([1, 0]), np.ones((2, 3))), ValueError,
        "(2,) and y has (2, 3) The prediction comes first: logitcrossentropy(yhat, y)",
    ),
    (
        lambda s: losses.logitcrossentropy(np.ones((2, 3)), np.array([[1], [0]])), ValueError,
        "labels of shape (2,): write y[..., 0]",
    ),
    (
        lambda s: losses.logitbinarycrossentropy(np.ones(2), np.array([-1.0, 1.0])), ValueError,
        "logitbinarycrossentropy: y goes from 0 to 1, got -1 (y + 1) / 2",
    ),
    (
        lambda s: losses.binarycrossentropy(np.full(2, 0.5), np.array([0, 2])), ValueError,
        "binarycrossentropy: y goes from 0 to 1, got 2",
    ),
    (
        lambda s: losses.label_smoothing([0, 1, 2], 0.1), ValueError,
        "label_smoothing: y goes from 0 to 1, got 2 onehotbatch(labels",
    ),
    (lambda s: flux.DataLoader([X, Y]), ValueError, "come in a tuple, (x, y) batch(pairs)"),
    (lambda s: flux.DataLoader(X, Y, 32), TypeError, "got 32 (int) as batchsize=32 does"),
    (lambda s: flux.splitobs(X, at=(0.6, 0.2, 0.2)), ValueError, "[3, 1, 1, 0] being the rest"),
    (lambda s: flux.splitobs(X, at=np.array([0.5])), TypeError, "at has array a list"),
    (lambda s: put(s.gradient(), s.ps[1], [1.0]), ValueError, "shape (3,) is wanted, got (1,)"),
    (lambda s: put(s.gradient(), s.ps[1], "abc"), TypeError, "Grads: got dtype"),
    (lambda s: s.gradient() * np.ones(2), TypeError, "the factor of Grads must be a real number"),
    (lambda s: s.gradient() / None, TypeError, "the factor of Grads is None"),
    (lambda s: s.gradient().map(3), TypeError, "Grads.map: f is 3"),
    (lambda s: flux.Grads([s.W], 3), TypeError, "Grads: arrays is 3 a list of arrays"),
    (lambda s: flux.Grads([s.W], ["a"]), TypeError, "Grads: got 'a' arrays of numbers or None"),
    (lambda s: flux.Grads([s.W], []), ValueError, "Grads: got 0 arrays for 1 parameters"),
    (lambda s: flux.update_(0.1, s.ps, s.gradient()), TypeError, "update_: ADAM(0.001), got 0.1"),
    (lambda s: flux.update_(s.opt, s.ps, None), TypeError, "update_: gs gradient(f, ps) got None"),
    (lambda s: flux.update_(s.opt, s.ps, {}), KeyError, "no gradient for layers[0].weight"),
    (lambda s: flux.update_(s.opt, [s.W], {s.W: [1.0]}), TypeError, "a list; wanted arrays"),
    (lambda s: flux.update_(s.opt, [s.W], {s.W: X}), ValueError, "shape (5, 4) parameter has (3,)"),
    # training
    (lambda s: s.train(lambda x, y: s.m(x)), ValueError, "shape (5, 2) .sum() or .mean()"),
    (lambda s: s.train(lambda x, y: None), ValueError, "did you forget `return`?"),
    (lambda s: s.train(lambda x, y: "low"), ValueError, "returned a str; one real number"),
    (lambda s: s.train(lambda x, y: np.nan * s.loss(x, y)), ArithmeticError, "nan at step 1"),
    (lambda s: s.train(lambda x, y: np.inf * s.loss(x, y)), ArithmeticError, "inf at step 1"),
    (lambda s: s.train(lambda x, y: 3.0), ValueError, "datum 1 none of the 4 parameters"),
    (lambda s: flux.train_(None, s.ps, [(X, Y)], s.opt), TypeError, "the loss is None a function"),
    (lambda s: s.train(data=used_up()), ValueError, "generator yields no datum used up before?"),
    (lambda s: s.train(data=(X, Y)), TypeError, "tuple of arrays [(X, Y)] DataLoader((X, Y)"),
    (lambda s: s.train(data=[X, Y]), TypeError, "datum 1 is a ndarray whole: loss(d) [(x, y)]"),
    (lambda s: s.train(data=np.float32(1)), TypeError, "data is a float32; something to iterate"),
    (lambda s: s.train(data=[]), ValueError, "data holds no datum"),
    (lambda s: flux.train_(s.loss, [(X, Y)], s.opt), TypeError, "without parameters ADAM(params"),
    (lambda s: s.train(ps=[]), ValueError, "no parameters params(model) not frozen"),
    (lambda s: s.train(ps=s.m), TypeError, "must be Params, got Chain; write params(model)"),
    (lambda s: s.train(opt=flux.ADAM), TypeError, "optimiser such as got the class ADAM"),
    (lambda s: s.train(cb=3), TypeError, "a callback must be a function, got 3"),
    (lambda s: s.train(epochs=2.5), TypeError, "epochs whole number got 2.5"),
    (lambda s: s.train(progress="no"), TypeError, "train_: progress True or False"),
    (lambda s: flux.stop(), RuntimeError, "stop() none is running in a loop of your own use break"),
    (lambda s: flux.skip(), RuntimeError, "skip() in a loop of your own use continue"),
    # optimisers
    (lambda s: s.opt.load_state_(s.W, [], X), TypeError, "state must be a dict got []"),
    (lambda s: s.opt.load_state_(3, {}, X), TypeError, "A parameter is wanted as the key; got 3"),
    (lambda s: loaded(s, t=2.5), TypeError, "state['t'] is 2.5 an integer"),
    (lambda s: loaded(s, scale=[1.0]), ValueError, "'scale' must be 2 numbers"),
    (lambda s: loaded(s, m=["a"] * 3), TypeError, "state['m']: got dtype"),
    (lambda s: s.opt.step_([s.W], [[1.0]], [X]), TypeError, "Parameter 0 is [1.0] (list); wanted"),
    (lambda s: flux.Scheduler(np, np.sin), TypeError, "has no field 'lr'; wanted a rule"),
    (lambda s: flux.Scheduler(s.opt, 0.1), TypeError, "Scheduler: schedule is 0.1 a function"),
    (lambda s: flux.Scheduler(s.opt, np.sin, 3), TypeError, "has no field 3"),
    (lambda s: schedules.Sequence(3), TypeError, "Sequence: got 3 a pair of a schedule"),
    (lambda s: schedules.Sequence(), TypeError, "Sequence: got no stage"),
    (lambda s: schedules.Loop(0.1, 3), ValueError, "Loop: schedule must be a schedule, or"),
    (lambda s: schedules.OneCycle(9, 1.0, endval="0"), TypeError, "OneCycle: endval finite number"),
    (lambda s: s.opt.load_state_(s.W, {}, 3), TypeError, "load_state_: array is 3 the parameter"),
    (
        lambda s: s.opt.load_state_(s.W, {}, memoryview(b"abc")), TypeError,
        "load_state_: array is <memory the parameter",
    ),
    (lambda s: s.opt.step_(3, [X], [X]), TypeError, "ADAM.step_: keys is 3 a list"),
    (lambda s: s.opt.step_([s.W], [], []), ValueError, "got 1 keys, 0 arrays, 0 gradients"),
    (lambda s: flux.ADAM(beta={0.9, 0.99}), TypeError, "ADAM: beta two numbers got {0.9, 0.99}"),
    (lambda s: flux.SGD(np.timedelta64(1, "D")), TypeError, "SGD: lr must be a finite number"),
    (lambda s: flux.SGD(iter([X])), TypeError, "SGD: the parameters hold write params(model)"),
    (lambda s: flux.Optimiser(s.opt)[3], IndexError, "Optimiser: 3 index of a rule; there are 1"),
    (lambda s: flux.Optimiser().insert("0", s.opt), TypeError, "Optimiser.insert: index is '0'"),
    (lambda s: schedules.Exp(1.0, 0.5)(0), ValueError, "Exp: the step t is 0 at least 1"),
    (lambda s: schedules.Exp(1.0, 0.5)("1"), TypeError, "Exp: the step t is '1'"),
    (lambda s: schedules.Exp(1.0, 9.0)(999), ValueError, "has no finite value at step 999"),
    (lambda s: schedules.Step(1.0, 0.5, "3"), TypeError, "Step: step_sizes must be steps >= 1"),
    (lambda s: schedules.Step(1.0, 0.5, 2.5), TypeError, "Step: step_sizes got 2.5"),
    (lambda s: schedules.Sequence((np.sin, 2.5)), ValueError, "Sequence: steps 2.5 whole number"),
    # data
    (lambda s: flux.DataLoader((X, Y[:3])), ValueError, "data[0] has 5 but data[1] has 3"),
    (lambda s: flux.DataLoader((X[:0], Y[:0])), ValueError, "there is no observation"),
    (lambda s: flux.DataLoader(X, batchsize=0), ValueError, "batchsize is 0 at least 1"),
    (lambda s: flux.DataLoader(X, shuffle="False"), TypeError, "shuffle is 'False' True or False"),
    (lambda s: flux.DataLoader(MASKED), TypeError, "DataLoader: masked .filled(value)"),
    (lambda s: flux.DataLoader(X).restore_({}), TypeError, "what state() returned; got {}"),
    (lambda s: flux.batch(3), TypeError, "batch: got 3 a list of observations"),
    (lambda s: flux.batch(x for x in X), TypeError, "batch: got <generator a list of observations"),
    (lambda s: flux.DataLoader(in_itself()), ValueError, "DataLoader: nested too deeply itself"),
    (lambda s: flux.onehot(1, [1, 2], dtype="U1"), TypeError, "onehot: dtype is 'U1' real numbers"),
    (lambda s: flux.batch([[[1], [1, 2]]]), TypeError, "batch: the lists do not form an array"),
    (lambda s: flux.ncycle(3, 2), TypeError, "ncycle: data is 3 something to go through"),
    (lambda s: flux.onehotbatch([{}], [0]), TypeError, "a label is {} a number, a string"),
    (lambda s: flux.onehot(1, np.array(3)), TypeError, "labels is array(3) list all labels"),
    (lambda s: flux.onecold(Y * 1j), TypeError, "onecold: got dtype complex64"),
    (lambda s: flux.onecold(MASKED), TypeError, "onecold: masked"),
    (lambda s: flux.datasets.digits(flat="no"), TypeError, "digits: flat True or False"),
    # a first course: what came is not what was meant
    (lambda s: flux.gradient(s.loss, s.ps), TypeError, "f(), without missing 'x' lambda: loss"),
    (lambda s: flux.gradient(s.loss, X), TypeError, "gradient(f, x, y) calls f(x, y) missing 'y'"),
    (lambda s: flux.gradient(lambda: 1.0, *s.ps), TypeError, "too many gradient(f, ps) Params"),
    (lambda s: flux.gradient(flux.compiled(s.loss), s.ps), TypeError, "without 'x' Write"),
    (lambda s: flux.gradient(flux.compiled(s.loss), X), TypeError, "calls f(x, y) missing 'y'"),
    (lambda s: flux.train_(s.loss, s.ps, X, Y, s.opt), TypeError, "5 arguments; [(x, y)] epochs="),
    (lambda s: s.train(lambda x, y: np.sum(s.m(x).data)), ValueError, "neither read t.data do"),
    (lambda s: flux.Chain(flux.Dense, s.m), TypeError, "layer 0 is the class Dense Dense(...)"),
    (lambda s: flux.Chain(a=flux.Dropout), TypeError, "layer 'a' is the class Dropout"),
    (lambda s: reweighted(s, 3), TypeError, "weight is 3 (int) must be a Tensor layer.weight ="),
    (lambda s: reweighted(s, [[1.0]]), TypeError, "weight is [[1.0]] (list) must be a Tensor"),
    (lambda s: flux.ADAM(s.m, 0.1), TypeError, "lr must be got Chain come first params(model)"),
    (lambda s: flux.ADAM(flux.params), TypeError, "lr must be got <function params first ADAM(ps"),
    (lambda s: flux.ADAM(0.1, s.ps), TypeError, "beta must be got Params come first ADAM(ps, ...)"),
    (lambda s: flux.ADAM(schedules.Exp(0.1, 0.9)), TypeError, "Exp Scheduler(ADAM(), schedule)"),
    (lambda s: s.m(X.astype(str)), TypeError, "got x with dtype <U wanted x.astype(np.float32)"),
    (lambda s: flux.Chain({"a": s.m}), TypeError, "layer 0 is not callable: write Chain(**layers)"),
    (lambda s: flux.Chain(m for m in s.m), TypeError, "not callable: write Chain(*layers)"),
    (
        lambda s: s.train(lambda x, y: np.mean(flux.onecold(s.m(x)) != y), data=[(X, [0] * 5)]),
        ValueError, "none of the 4 parameters nor count, as argmax and == do?",
    ),
    (lambda s: s.W.detach, AttributeError, "no attribute 'detach'; use flux.detach(t)"),
    (
        lambda s: s.train(s.classes, data=[(X, np.array(list("abaab")))]), ValueError,
        "labels of shape (5,); of names write onehotbatch(y, names)",
    ),
    (
        lambda s: s.train(s.classes, data=[(X, list("abaab"))]), TypeError,
        "y is ['a', (list); an array of numbers is wanted; of names write onehotbatch(y, names)",
    ),
    (lambda s: losses.mse(np.ones(2), np.array(["1", "2"])), TypeError, "y <U1 .astype(float)"),
    (lambda s: s.train(data=[(X, Y.T)]), ValueError, "(2, 5) one is transposed; write y.T"),
    # the rest
    (lambda s: flux.sigmoid(np.array([None])), TypeError, "sigmoid: got dtype object; real"),
    (lambda s: flux.softplus(np.array(["2020-01-01"], "M8[D]")), TypeError, "got dtype datetime64"),
    (lambda s: flux.leakyrelu(X, a="0.1"), TypeError, "leakyrelu: '0.1' be a real number"),
    (lambda s: flux.softmax([]), ValueError, "softmax: (0,) no classes"),
    (lambda s: flux.softmax(Y * 1j), TypeError, "softmax: got dtype complex64; real numbers"),
    (lambda s: flux.glorot_uniform(2, 3, gain="2"), TypeError, "glorot_uniform: gain is '2'"),
    (lambda s: flux.glorot_uniform(2, gain=np.inf), ValueError, "gain=inf is too large"),
    (lambda s: flux.glorot_uniform(2**40, 2**40), ValueError, "glorot_uniform: no array as many"),
    (lambda s: flux.lecun_normal(2, 3, gain=0), ValueError, "lecun_normal: gain=0.0 above 0"),
    (lambda s: flux.truncated_normal(2, std=0), ValueError, "truncated_normal: std above 0"),
    (lambda s: flux.truncated_normal(2, lo=3.0), ValueError, "lo=3.0 below hi=2.0"),
    (lambda s: flux.early_stopping(lambda: None, 2)(), TypeError, "the score is None real number"),
    (lambda s: flux.early_stopping(max, 2, min_dist="a"), TypeError, "min_dist is 'a'"),
    (lambda s: flux.plateau(max, 2, distance=1), TypeError, "plateau: distance is 1 a function"),
    (lambda s: flux.stop_early(max, 2, [1.0]), TypeError, "stop_early: ps holds params(model)"),
    (lambda s: flux.stop_early(lambda: "a", 2, s.ps)(), TypeError, "stop_early: the score is 'a'"),
    (lambda s: flux.epochs(2, log=3), TypeError, "epochs: log is 3 a function"),
    (lambda s: flux.throttle(print, 1, trailing="no"), TypeError, "trailing True or False"),
    (lambda s: flux.History().record(a=None), TypeError, "record: a is None a real number"),
]  # fmt: skip


def test_a_remedy_is_given_only_where_it_is_one():
    """A reshape of what is transposed, or cut otherwise, would compare the wrong elements."""
    for a, b in [((5, 2), (2, 5)), ((6, 2), (3, 4)), ((2, 3, 4), (4, 3, 2)), ((2, 6), (3, 4))]:
        with pytest.raises(ValueError, match="must be equal") as caught:
            losses.mse(np.ones(a), np.ones(b))
        assert "reshape" not in str(caught.value)
    for a, b in [((5, 1), (1, 5)), ((5,), (5, 1)), ((6, 2, 3), (6, 6)), ((), (1, 1))]:
        with pytest.raises(ValueError, match=r"write y\.reshape"):
            losses.mse(np.ones(a), np.ones(b))


def test_slips_in_calls_of_others_keep_their_own_words():
    m = flux.Chain(np.float32, flux.Dense(2, 1))  # a class that converts is a function like others
    assert m(np.ones((3, 2))).shape == (3, 1)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'y'"):
        flux.gradient(lambda t: (lambda x, y: x)(t), 1.0)
    with pytest.raises(TypeError, match="NoneType") as caught:
        flux.gradient(flux.compiled(lambda x: x + len(None)), 1.0)
    assert "was recorded to be compiled" in caught.value.__notes__[0]
    with pytest.raises(TypeError) as caught:
        flux.compiled(lambda x, y: x)(1.0)
    assert not hasattr(caught.value, "__notes__")
    with pytest.raises(TypeError) as caught:
        flux.Dense(2, 3, init=np.ones)
    assert "init=lambda *shape: np.ones(shape" in caught.value.__notes__[0]


def loaded(s, **wrong):
    s.opt.load_state_(s.W, {"m": np.zeros(3), "v": np.zeros(3), "t": 1, **wrong}, s.W.data)


def has_in_order(text, words):
    """Whether the words of a row stand in a sentence in their order, gaps allowed."""
    at = 0
    for word in words.split(" "):
        at = text.find(word, at)
        if at < 0:
            return False
        at += len(word)
    return True


@pytest.mark.parametrize(("act", "error", "words"), NAMED, ids=[words for *_, words in NAMED])
def test_a_mistake_is_explained_and_changes_nothing(act, error, words):
    s = Student()
    before = s.state()
    with pytest.raises(error) as caught:
        act(s)
    assert has_in_order(str(caught.value), words), str(caught.value)
    assert "\n" not in str(caught.value)
    assert s.state() == before
    assert open_tape.get() is None and phase.get() is None


def test_a_recorded_value_is_not_lost_in_a_plain_array():
    def f(t):
        a = np.zeros(2)
        a[0] = t[0]
        return np.sum(a)

    with pytest.raises(flux.RecordingError, match=r"a\[i\] = t: .*np.stack\(values\)"):
        flux.gradient(f, np.ones(2))
    with pytest.raises(ValueError, match="not enough values"):  # of the user's, as it is
        flux.gradient(lambda t: [(a, b) for a, b in [[t]]], np.ones(3))
    assert flux.gradient(lambda t: t * float(t), 3.0)[0] == 3  # read out on purpose
    for option in (
        lambda t: np.sum(np.ones(2), initial=t),
        lambda t: np.max(np.ones(2), initial=t),
        lambda t: np.interp(-1.0, [0.0, 1.0], [1.0, 2.0], left=t),
    ):
        with pytest.raises(flux.RecordingError, match="gradient would be lost"):
            flux.gradient(option, 3.0)


def test_a_thread_cannot_use_what_another_records():
    def f(t):
        t = 2 * t
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: np.sum(t)).result()

    with pytest.raises(flux.RecordingError, match=r"another thread .* detach\(t\)"):
        flux.gradient(f, np.ones(2))


def trained(seed):
    """The losses of a small model that is all its own."""
    init = flux.glorot_uniform(rng=np.random.default_rng(seed))
    m = flux.Chain(flux.Dense(4, 3, flux.tanh, init=init), flux.Dense(3, 2, init=init))
    data = flux.DataLoader((X, Y), batchsize=2, shuffle=True, rng=seed)
    loss = lambda x, y: losses.mse(m(x), y)
    return flux.train_(loss, flux.params(m), data, flux.ADAM(0.01), epochs=5).losses


def test_32_threads_train_as_one_after_the_other():
    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(trained, range(32))) == list(map(trained, range(32)))


# --- everything public, with everything odd ------------------------------------------------------


class Column:
    """What pandas hands out: no array, but it can be made one."""

    def __init__(self, values):
        self.values = np.array(values)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype=dtype)


def read_only():
    a = np.ones((5, 4))
    a.flags.writeable = False
    return a


ODD = {
    "None": None, "True": True, "0": 0, "-1": -1, "3": 3, "huge int": 10**30, "2.5": 2.5,
    "nan": np.nan, "inf": np.inf, "1e308": 1e308, "1e-320": 1e-320, "1j": 1j, "str": "abc",
    "no str": "", "bytes": b"ab", "[]": [], "[1]": [1], "ragged": [[1.0], [1.0, 2.0]], "()": (),
    "rows": [[1.0, 2.0, 3.0, 4.0]] * 5, "dict": {"a": 1}, "{}": {}, "set": {1.0}, "...": ...,
    "generator": lambda: (i for i in range(3)), "function": lambda: lambda *a, **k: 0.0,
    "object": object(), "0-d": np.array(2.0), "empty": np.ones((0, 4)), "narrow": np.ones((5, 0)),
    "ints": np.ones((5, 4), int), "bools": np.ones((5, 4), bool), "complex": np.ones((5, 4)) * 1j,
    "objects": np.array([None] * 4), "strings": np.array(list("abcd")), "masked": MASKED,
    "float16": np.ones((5, 4), np.float16), "big-endian": np.ones((5, 4), ">f8"),
    "read-only": read_only, "strided": np.ones((10, 8))[::2, ::2], "nans": np.full((5, 4), np.nan),
    "longdouble": np.longdouble(1.5), "Fraction": Fraction(1, 3), "Decimal": Decimal("0.5"),
    "column": Column([[1.0] * 4] * 5), "names": Column(["a", "b"]),
    "Tensor": lambda: flux.Tensor(np.ones((5, 4))), "Params": lambda: flux.params(flux.Dense(4, 3)),
    "layer": lambda: flux.Dense(4, 3), "optimiser": flux.ADAM, "[None]": [None], "mixed": [X, None],
}  # fmt: skip

THREE = np.ones(3)
CALLS = {
    "gradient f": lambda s, v: flux.gradient(v, THREE),
    "gradient x": lambda s, v: flux.gradient(lambda x: np.sum(x * x), v),
    "gradient ->": lambda s, v: flux.gradient(lambda x: v, THREE),
    "pullback ->": lambda s, v: flux.pullback(lambda x: v, THREE),
    "back": lambda s, v: flux.pullback(lambda x: 2 * x, np.ones((5, 4)))[1](v),
    "jacobian ->": lambda s, v: flux.jacobian(lambda x: v, THREE),
    "hessian x": lambda s, v: flux.hessian(lambda x: np.sum(x * x), v),
    "gradcheck x": lambda s, v: flux.gradcheck(lambda x: np.sum(x * x), v),
    "Tensor": lambda s, v: flux.Tensor(v),
    "detach": lambda s, v: flux.detach(v),
    "params": lambda s, v: flux.params(v),
    "freeze_": lambda s, v: flux.freeze_(v),
    "Params": lambda s, v: flux.Params(v),
    "Params |": lambda s, v: s.ps | v,
    "Params names": lambda s, v: flux.Params([s.W], v),
    "gs[v]": lambda s, v: s.gradient()[v],
    "gs[p] =": lambda s, v: put(s.gradient(), s.ps[1], v),
    "gs *": lambda s, v: s.gradient() * v,
    "gs.map": lambda s, v: repr(s.gradient().map(lambda g: v)),
    "t * v": lambda s, v: s.W * v,
    "v + t": lambda s, v: flux.gradient(lambda: np.sum(v + s.W), [s.W]),
    "t @ v": lambda s, v: s.W @ v,
    "chain": lambda s, v: s.m(v),
    "chain[v]": lambda s, v: s.m[v],
    "Chain": lambda s, v: flux.Chain(v),
    "Dense": lambda s, v: flux.Dense(4, v if not isinstance(v, int) or v < 99 else -v),
    "Dense activation": lambda s, v: flux.Dense(4, 3, v),
    "Dense bias": lambda s, v: flux.Dense(4, 3, bias=v),
    "Dense init ->": lambda s, v: flux.Dense(5, 4, init=lambda *_: v),
    "Dropout": lambda s, v: flux.Dropout(v),
    "Dropout axis": lambda s, v: flux.trainmode_(flux.Dropout(0.5, axis=v))(X),
    "Dropout x": lambda s, v: flux.trainmode_(flux.Dropout(0.5))(v),
    "testmode_": lambda s, v: flux.testmode_(s.m, v),
    "trainmode_": lambda s, v: flux.trainmode_(s.m, v),
    "sigmoid": lambda s, v: flux.sigmoid(v),
    "gelu": lambda s, v: flux.gelu(v),
    "elu alpha": lambda s, v: flux.elu(X, alpha=v),
    "softmax": lambda s, v: flux.softmax(v),
    "kaiming_normal": lambda s, v: flux.kaiming_normal(2, 3, gain=v),
    "orthogonal": lambda s, v: flux.orthogonal(2, 3, rng=v),
    "mse": lambda s, v: losses.mse(v, np.ones((5, 4))),
    "mae": lambda s, v: losses.mae(v, v),
    "mse agg": lambda s, v: losses.mse(X, X, agg=v),
    "crossentropy": lambda s, v: losses.logitcrossentropy(np.ones((5, 4)), v),
    "msle eps": lambda s, v: losses.msle(X, X, eps=v),
    "SGD": lambda s, v: flux.SGD(v),
    "ADAM beta": lambda s, v: flux.ADAM(beta=v),
    "Optimiser": lambda s, v: flux.Optimiser(flux.ADAM(), v),
    "load_state_": lambda s, v: s.opt.load_state_(s.W, v, s.W.data),
    "load_state_ t": lambda s, v: loaded(s, t=v),
    "load_state_ m": lambda s, v: loaded(s, m=v),
    "load_state_ scale": lambda s, v: loaded(s, scale=v),
    "Scheduler": lambda s, v: flux.Scheduler(flux.SGD(), v),
    "Step sizes": lambda s, v: schedules.Step(1.0, 0.5, v)(1),
    "Sequence": lambda s, v: schedules.Sequence(v),
    "train_ loss": lambda s, v: s.train(v),
    "train_ loss ->": lambda s, v: s.train(lambda x, y: v),
    "train_ ps": lambda s, v: s.train(ps=v),
    "train_ data": lambda s, v: s.train(data=v),
    "train_ x": lambda s, v: s.train(data=[(v, Y)]),
    "train_ y": lambda s, v: s.train(data=[(X, v)]),
    "train_ opt": lambda s, v: s.train(opt=v),
    "update_ opt": lambda s, v: flux.update_(v, s.ps, s.gradient()),
    "update_ gs": lambda s, v: flux.update_(s.opt, s.ps, v),
    "update_ g": lambda s, v: flux.update_(s.opt, [s.W], {s.W: v}),
    "throttle": lambda s, v: flux.throttle(lambda: 1.0, v)(),
    "patience": lambda s, v: flux.patience(lambda: 1.0, v)(),
    "early_stopping ->": lambda s, v: flux.early_stopping(lambda: v, 2)(),
    "stop_early ps": lambda s, v: flux.stop_early(lambda: 1.0, 2, v)(),
    "epochs": lambda s, v: flux.epochs(v),
    "DataLoader": lambda s, v: list(flux.DataLoader(v)),
    "DataLoader batchsize": lambda s, v: flux.DataLoader(X, batchsize=v),
    "DataLoader shuffle": lambda s, v: flux.DataLoader(X, shuffle=v),
    "DataLoader rng": lambda s, v: flux.DataLoader(X, rng=v),
    "restore_": lambda s, v: flux.DataLoader(X).restore_(v),
    "onehot": lambda s, v: flux.onehot(v, [1, 2]),
    "onehotbatch labels": lambda s, v: flux.onehotbatch([1, 2], v),
    "onecold": lambda s, v: flux.onecold(v),
    "splitobs": lambda s, v: flux.splitobs(v),
    "splitobs at": lambda s, v: flux.splitobs(X, at=v),
    "batch": lambda s, v: flux.batch(v),
    "chunk": lambda s, v: flux.chunk(X, v),
    "ncycle": lambda s, v: flux.ncycle(v, 2),
    "moons": lambda s, v: flux.datasets.moons(4, v),
    "seed_": lambda s, v: flux.seed_(v),
    "record": lambda s, v: flux.History().record(a=v),
}  # fmt: skip

# What a sentence never says: these are accidents inside, which nobody has foreseen.
ACCIDENTS = (
    *("object has no attribute", "'NoneType' object", "truth value", "subscriptable"),
    *("object is not callable", "unhashable", "no identity"),
)
EXPECTED = (TypeError, ValueError, LookupError, flux.FluxError, ArithmeticError)


@pytest.mark.parametrize("name", a_third(CALLS))
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
def test_nothing_odd_ends_in_an_accident(name):
    step = either(1, 2)
    for what, value in [*ODD.items()][len(name) % step :: step]:
        s = Student()
        before = s.state()
        value = (
            value() if callable(value) and type(value).__name__ in ("function", "type") else value
        )
        try:
            CALLS[name](s, value)
        except EXPECTED as error:
            text = str(error)
            assert text, (name, what)
            assert not isinstance(error, (AttributeError, RecursionError)), (name, what, text)
            assert not any(words in text for words in ACCIDENTS), (name, what, text)
            assert s.state() == before, (name, what)
        assert open_tape.get() is None and phase.get() is None, (name, what)


def test_sizes_of_few_bits_do_not_overflow():
    """100 + 100 is -56 in int8."""
    few = flux.glorot_uniform(np.int8(100), np.int8(100), rng=0)
    np.testing.assert_array_equal(few, flux.glorot_uniform(100, 100, rng=0))
    layer = flux.Dense(
        np.int8(100), np.int8(100), init=lambda *sizes: np.full(sizes, sum(sizes) + 0.0)
    )
    assert layer.weight.data[0, 0] == 200


def test_no_value_is_too_odd_to_be_named():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for value in (10**5000, deep):
        with pytest.raises(TypeError, match=r"shuffle is <it cannot be printed> \((int|list)\)"):
            flux.DataLoader(X, shuffle=value)


def test_a_value_that_is_refused_is_no_step_of_a_scheduler():
    s = flux.Scheduler(flux.SGD(), lambda t: 0.5 if t == 1 else "low")
    for _ in range(2):
        with pytest.raises(TypeError, match="got 'low'"):
            s()
    assert s.t == 1 and s.opt.lr == 0.5


def test_checks_of_numbers():
    assert as_flag(np.True_, "x") is True and as_flag(0, "x") is False
    assert np.isnan(as_number(np.nan, "x")) and as_real(-2, "x", least=-np.inf) == -2
    for value in (None, "1", b"1", True, 1j, [1.0], np.ones(1), 10**400, MASKED):
        with pytest.raises(TypeError, match=r"x is .* but it must be a"):
            as_number(value, "x")
