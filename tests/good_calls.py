"""One good call of everything public: `test_bad_calls` replaces its arguments one by one.

A row of `CALLS` is a function of a `World` and of the arguments that can go wrong; their defaults
make the good call. `own("x")` stands for an attribute of the world, which is made anew when a call
has changed it.
"""
# ruff: noqa: B008  (defaults are what this table is made of)

import warnings
from operator import attrgetter as own

import numpy as np

import tinyflux as flux
from tinyflux import generators, losses, schedules
from tinyflux.callbacks import phase
from tinyflux.tape import open_tape

square = lambda x: np.sum(x * x)
ignore = lambda *args, **kwargs: None
score = lambda *args, **kwargs: 1.0


class World:
    """A model with all that belongs to it, and what must not change when a call fails."""

    def __init__(self):
        init = flux.glorot_uniform(rng=0)
        self.dense = flux.Dense(4, 3, flux.tanh, init=init)
        self.m = flux.Chain(self.dense, flux.Dropout(0.0), flux.Dense(3, 2, init=init))
        self.moody = [self.m[1]]
        self.x, self.y = np.linspace(0.1, 0.9, 20).reshape(5, 4), np.full((5, 2), 0.25)
        self.square = np.linspace(0.1, 0.9, 20).reshape(5, 4)
        self.v, self.labels = np.array([0.5, -1.5, 2.5]), np.array([0, 1, 1, 0, 1])
        self.stat = flux.buffer(np.zeros(3))
        self.rows = np.linspace(0.1, 0.9, 10).reshape(5, 2)
        self.ps, self.W = flux.params(self.m), flux.Tensor(np.ones(3))
        self.opt = flux.ADAM(0.01)
        self.gs = self.gradient()
        flux.update_(self.opt, self.ps, self.gs)
        self.kept = self.opt.state(self.ps[0])
        self.owner = flux.SGD(self.ps, 0.1)
        self.chain = flux.Optimiser(flux.ClipNorm(1.0), flux.Momentum(0.1))
        self.loader = flux.DataLoader((self.x, self.y), batchsize=2, shuffle=True, rng=0)
        self.place = self.loader.state()
        self.data = [(self.x, self.y), (self.x, self.y)]
        self.history, self.hot = flux.History(), flux.compiled(self.loss)
        self.arrays = [np.ones(3)]
        self.back = flux.pullback(lambda x: 2 * x, np.ones((5, 4)))[1]
        self.params_ = flux.Params([self.W], ["W"])

    def loss(self, x, y):
        return losses.mse(self.m(x), y)

    def gradient(self):
        return flux.gradient(lambda: self.loss(self.x, self.y), self.ps)

    def train(self, loss=None, **given):
        """`train_` with what is given, and the rest as it should be."""
        known = {"ps": self.ps, "data": self.data, "opt": flux.SGD(0.1)}
        args = [given.pop(name, known[name]) for name in known]
        return flux.train_(self.loss if loss is None else loss, *args, **given)

    def loaded(self, key=None, array=None, state=None, **changed):
        key, array = self.ps[0] if key is None else key, self.ps[0].data if array is None else array
        self.opt.load_state_(key, {**self.kept, **changed} if state is None else state, array)

    def state(self):
        """Everything that a call could have changed, as plain values that can be compared."""
        tensors = [*self.ps, self.W]
        moments = [v for p in self.ps[:2] for v in self.opt.state(p).values()]
        place = self.loader.state()
        given = [self.x, self.y, self.square, self.v, self.labels, self.rows, *self.gs.values()]
        return (
            [t.data.tobytes() for t in tensors],
            [(t.trainable, t.mark, t.dtype) for t in tensors],
            [a.tobytes() if isinstance(a, np.ndarray) else a for a in (*moments, *given)],
            [layer.mode for layer in self.moody],
            (self.params_.names(), len(self.ps), self.history.recorded.copy()),
            (repr(self.opt), repr(self.chain), place["next"], str(place["order"]), place["rng"]),
        )


def surroundings():
    """The state of the process, which belongs to the user: randomness, errors, tape, warnings."""
    default = generators.generator().bit_generator.state
    numpys = np.random.get_state()  # noqa: NPY002  (which nobody may touch)
    return (
        (default["state"], numpys[1].tobytes(), numpys[2:]),
        (np.geterr(), open_tape.get(), phase.get(), list(warnings.filters)),
    )


def put(gs, key, value):
    gs[key] = value


def changed(thing, **fields):
    for name, value in fields.items():
        setattr(thing, name, value)
    return thing


def called(trigger, times=2):
    return [trigger() for _ in range(times)]


INIT = flux.glorot_uniform(rng=0)

# fmt: off
CALLS = {
    # derivatives
    "gradient": lambda s, f=square, x=own("v"): flux.gradient(f, x),
    "gradient of parameters": lambda s, f=score, ps=own("ps"): flux.gradient(f, ps),
    "gradient: the function returned": lambda s, f=1.0: flux.gradient(lambda x: f, s.v),
    "withgradient": lambda s, f=square, x=own("v"): flux.withgradient(f, x),
    "pullback": lambda s, f=np.square, x=own("v"): flux.pullback(f, x)[0],
    "pullback: the function returned": lambda s, f=own("v"): flux.pullback(lambda x: f, s.v)[0],
    "back": lambda s, seed=own("square"): s.back(seed),
    "jacobian": lambda s, f=np.square, x=own("v"): flux.jacobian(f, x),
    "hessian": lambda s, f=square, x=own("v"): flux.hessian(f, x),
    "gradcheck": lambda s, f=square, x=own("v"), rtol=1e-5, atol=1e-7, step=1e-5:
        flux.gradcheck(f, x, rtol=rtol, atol=atol, step=step),
    # parameters
    "Tensor": lambda s, data=own("v"): flux.Tensor(data),
    "detach": lambda s, t=own("v"): flux.detach(t),
    "Params": lambda s, tensors=own("params_"), names=("W",): flux.Params(tensors, names),
    "Params.add": lambda s, t=own("W"), name="n": s.params_.add(t, name),
    "Params.discard": lambda s, t=own("W"): s.ps.discard(t),
    "Params.name": lambda s, t=own("W"): s.params_.name(t),
    "Params[i]": lambda s, i=0: s.ps[i],
    "Params |": lambda s, other=own("params_"): s.ps | other,
    "Params &": lambda s, other=own("params_"): s.ps & other,
    "Params ==": lambda s, other=own("params_"): s.ps == other,
    "Params in": lambda s, t=own("W"): t in s.ps,
    "params": lambda s, model=own("m"): flux.params(model),
    "freeze_": lambda s, model=own("dense"): flux.freeze_(model),
    "thaw_": lambda s, model=own("dense"): flux.thaw_(model),
    "Grads": lambda s, params=own("params_"), arrays=(np.ones(3),): flux.Grads(params, arrays),
    "Grads array": lambda s, array=own("v"): flux.Grads([s.W], [array]),
    "Grads[p]": lambda s, p=own("dense.bias"): s.gs[p],
    "Grads[p] =": lambda s, p=own("dense.bias"), g=own("v"): put(s.gs, p, g),
    "Grads in": lambda s, t=own("W"): t in s.gs,
    "Grads.map": lambda s, f=np.abs: s.gs.map(f),
    "Grads.map: f returned": lambda s, g=own("v"): repr(flux.Grads([s.W], [s.v]).map(lambda _: g)),
    "Grads *": lambda s, factor=2.0: s.gs * factor,
    "* Grads": lambda s, factor=2.0: factor * s.gs,
    "Grads /": lambda s, factor=2.0: s.gs / factor,
    "Grads +": lambda s, other=own("gs"): s.gs + other,
    "Grads -": lambda s, other=own("gs"): s.gs - other,
    # layers
    "Chain": lambda s, layer=own("dense"): flux.Chain(layer),
    "Chain named": lambda s, layer=own("dense"): flux.Chain(first=layer),
    "Chain call": lambda s, x=own("x"): s.m(x),
    "Chain activations": lambda s, x=own("x"): s.m.activations(x)[-1],
    "Chain[i]": lambda s, i=0: s.m[i],
    "Dense": lambda s, n_in=4, n_out=3, activation=flux.tanh, bias=True, init=INIT:
        flux.Dense(n_in, n_out, activation, bias=bias, init=init),
    "Dense: init returned": lambda s, init=np.ones((4, 3)):
        flux.Dense(4, 3, init=lambda n_in, n_out: init),
    "Dense call": lambda s, x=own("x"): s.dense(x),
    "Dropout": lambda s, p=0.5, axis=0, rng=3: flux.Dropout(p, axis, rng=rng),
    "Dropout call": lambda s, x=own("x"), rng=3, p=0.25, axis=1:
        flux.trainmode_(flux.Dropout(p, axis, rng=rng))(x),
    "BatchNorm": lambda s, n=4, activation=flux.tanh, affine=True, eps=1e-5, momentum=0.1:
        flux.BatchNorm(n, activation, affine=affine, eps=eps, momentum=momentum),
    "BatchNorm call": lambda s, x=own("x"): flux.trainmode_(flux.BatchNorm(4))(x),
    "buffer": lambda s, data=own("v"): flux.buffer(data),
    "moving_average_": lambda s, running=own("stat"), value=np.ones(3), momentum=0.1:
        flux.moving_average_(running, value, momentum),
    "testmode_": lambda s, model=own("m"), mode=True: flux.testmode_(model, mode),
    "trainmode_": lambda s, model=own("m"), mode=True: flux.trainmode_(model, mode),
    "summary": lambda s, model=own("m"): flux.summary(model),
    # activations
    **{name: lambda s, x=own("x"), _f=getattr(flux, name): _f(x) for name in (
        "identity sigmoid tanh relu gelu selu swish softplus mish hardsigmoid hardtanh relu6 "
        "logsigmoid hardswish lisht logcosh softsign tanhshrink").split()},
    "leakyrelu": lambda s, x=own("x"), a=0.1: flux.leakyrelu(x, a=a),
    "elu": lambda s, x=own("x"), alpha=0.1: flux.elu(x, alpha=alpha),
    "celu": lambda s, x=own("x"), alpha=0.1: flux.celu(x, alpha=alpha),
    "softshrink": lambda s, x=own("x"), lam=0.1: flux.softshrink(x, lam=lam),
    "trelu": lambda s, x=own("x"), theta=0.1: flux.trelu(x, theta=theta),
    "softmax": lambda s, x=own("x"), axis=-1: flux.softmax(x, axis=axis),
    "logsoftmax": lambda s, x=own("x"), axis=-1: flux.logsoftmax(x, axis=axis),
    "logsumexp": lambda s, x=own("x"), axis=-1, keepdims=False:
        flux.logsumexp(x, axis=axis, keepdims=keepdims),
    # initialisers
    **{name: lambda s, n=4, k=3, gain=1.0, rng=0, _f=getattr(flux, name):
       _f(n, k, gain=gain, rng=rng)
       for name in ("glorot_uniform glorot_normal kaiming_uniform kaiming_normal lecun_normal "
                    "orthogonal identity_init").split()},
    "glorot_uniform shape": lambda s, shape=(4, 3), n=3: flux.glorot_uniform(shape, rng=0),
    "truncated_normal": lambda s, n=4, mean=0.0, std=1.0, lo=-1.0, hi=1.0, rng=0:
        flux.truncated_normal(n, mean=mean, std=std, lo=lo, hi=hi, rng=rng),
    "sparse_init": lambda s, n=4, k=3, sparsity=0.5, std=0.1, rng=0:
        flux.sparse_init(n, k, sparsity=sparsity, std=std, rng=rng),
    "zeros_init": lambda s, n=4, rng=0: flux.zeros_init(n, rng=rng),
    "ones_init": lambda s, n=4, rng=0: flux.ones_init(n, rng=rng),
    # losses
    **{name: lambda s, yhat=own("rows"), y=own("y"), agg=np.mean, _f=getattr(losses, name):
       _f(yhat, y, agg=agg) for name in ("mae", "mse",
           "logitcrossentropy", "logitbinarycrossentropy", "poisson_loss", "hinge_loss",
           "squared_hinge_loss")},
    **{name: lambda s, yhat=own("rows"), y=own("y"), agg=np.mean, eps=1e-6, _f=getattr(losses,
        name):
       _f(yhat, y, agg=agg, eps=eps)
       for name in ("msle", "crossentropy", "kldivergence", "binarycrossentropy")},
    "huber_loss": lambda s, yhat=own("rows"), y=own("y"), agg=np.mean, delta=0.5:
        losses.huber_loss(yhat, y, agg=agg, delta=delta),
    **{name: lambda s, yhat=own("rows"), y=own("y"), gamma=1.5, agg=np.mean, eps=1e-6,
       _f=getattr(losses, name): _f(yhat, y, gamma=gamma, agg=agg, eps=eps)
       for name in ("focal_loss", "binary_focal_loss")},
    "siamese_contrastive_loss": lambda s, yhat=own("rows"), y=own("y"), margin=0.5, agg=np.mean:
        losses.siamese_contrastive_loss(yhat, y, margin=margin, agg=agg),
    "dice_coeff_loss": lambda s, yhat=own("rows"), y=own("y"), smooth=0.5:
        losses.dice_coeff_loss(yhat, y, smooth=smooth),
    "tversky_loss": lambda s, yhat=own("rows"), y=own("y"), beta=0.5:
        losses.tversky_loss(yhat, y, beta=beta),
    "crossentropy labels": lambda s, yhat=own("rows"), y=own("labels"):
        losses.crossentropy(yhat, y),
    "label_smoothing": lambda s, y=own("rows"), alpha=0.1, axis=-1:
        losses.label_smoothing(y, alpha, axis=axis),
    # optimisers
    **{name: lambda s, lr=0.1, _f=getattr(flux, name): _f(lr) for name in ("SGD", "Descent")},
    **{name: lambda s, lr=0.1, rho=0.9, _f=getattr(flux, name): _f(lr, rho)
       for name in ("Momentum", "Nesterov")},
    "RMSProp": lambda s, lr=0.1, rho=0.9, eps=1e-8: flux.RMSProp(lr, rho, eps=eps),
    "ADAGrad": lambda s, lr=0.1, eps=1e-8: flux.ADAGrad(lr, eps),
    "ADADelta": lambda s, rho=0.1, eps=1e-8: flux.ADADelta(rho, eps),
    **{name: lambda s, lr=0.1, beta=(0.9, 0.99), eps=1e-8, _f=getattr(flux, name):
       _f(lr, beta, eps=eps)
       for name in "ADAM RADAM AdaMax OADAM AMSGrad NADAM AdaBelief".split()},
    "ADAMW": lambda s, lr=0.1, beta=(0.9, 0.99), decay=0.1, eps=1e-8:
        flux.ADAMW(lr, beta, decay, eps=eps),
    "ADAM beta": lambda s, beta1=0.9, beta2=0.9: flux.ADAM(beta=(beta1, beta2)),
    "SGD with parameters": lambda s, ps=own("ps"), lr=0.1: flux.SGD(ps, lr),
    "Optimiser": lambda s, rule=own("opt"): flux.Optimiser(rule),
    "Optimiser.insert": lambda s, index=0, rule=own("opt"): s.chain.insert(index, rule),
    "Optimiser.append": lambda s, rule=own("opt"): s.chain.append(rule),
    "Optimiser[i]": lambda s, i=0: s.chain[i],
    "WeightDecay": lambda s, decay=0.1: flux.WeightDecay(decay),
    "ClipValue": lambda s, threshold=0.1: flux.ClipValue(threshold),
    "ClipNorm": lambda s, threshold=0.1, whole=True: flux.ClipNorm(threshold, whole),
    "ExpDecay": lambda s, decay=0.1, decay_step=10, clip=0.1, start=5:
        flux.ExpDecay(decay, decay_step, clip, start),
    "InvDecay": lambda s, gamma=0.1: flux.InvDecay(gamma),
    "ADAM lr =": lambda s, lr=0.1: changed(s.opt, lr=lr),
    "ADAM step_": lambda s, keys=own("params_"), arrays=own("arrays"), gradients=own("arrays"):
        flux.ADAM().step_(keys, arrays, gradients),
    "ADAM step_ one": lambda s, key=own("W"), array=own("W.data"), gradient=own("v"):
        s.opt.step_([key], [array], [gradient]),
    "ADAM state": lambda s, key=own("W"): s.opt.state(key),
    "load_state_": lambda s, key=own("dense.weight"), state=own("kept"),
        array=own("dense.weight.data"):
        s.opt.load_state_(key, state, array),
    "load_state_ state": lambda s, m=np.ones((4, 3)), v=np.ones((4, 3)), t=1, step=1, scale=(1.0,
        1.0):
        s.loaded(m=m, v=v, t=t, step=step, scale=scale),
    # schedules
    "Constant": lambda s, value=0.1, t=2: schedules.Constant(value)(t),
    "Step": lambda s, start=1.0, decay=0.5, step_sizes=2, t=3:
        schedules.Step(start, decay, step_sizes)(t),
    "Exp": lambda s, start=1.0, decay=0.5, t=3: schedules.Exp(start, decay)(t),
    "Poly": lambda s, start=1.0, degree=2, max_iter=10, t=3:
        schedules.Poly(start, degree, max_iter)(t),
    "Inv": lambda s, start=1.0, decay=0.5, degree=2, t=3: schedules.Inv(start, decay, degree)(t),
    **{name: lambda s, l0=0.1, l1=0.5, period=4, t=3, _f=getattr(schedules, name):
       _f(l0, l1, period)(t)
       for name in ("Triangle", "Sin", "CosAnneal")},
    "CosAnneal restart": lambda s, restart=True: schedules.CosAnneal(0.1, 0.2, 3, restart)(2),
    "OneCycle": lambda s, nsteps=9, maxval=1.0, startval=0.1, endval=0.01, percent_start=0.3, t=3:
        schedules.OneCycle(nsteps, maxval, startval, endval, percent_start)(t),
    "Loop": lambda s, schedule=schedules.Exp(1.0, 0.5), period=2, t=3:
        schedules.Loop(schedule, period)(t),
    "Sequence": lambda s, stage=(schedules.Exp(1.0, 0.5), 2), t=3:
        schedules.Sequence(stage, stage)(t),
    "Sequence stage": lambda s, schedule=schedules.Exp(1.0, 0.5), steps=2:
        schedules.Sequence((schedule, steps), (schedule, 2))(3),
    "Scheduler": lambda s, opt=own("opt"), schedule=schedules.Exp(1.0, 0.5), field="lr":
        flux.Scheduler(opt, schedule, field)(),
    # training
    "train_": lambda s, loss=own("loss"), ps=own("ps"), data=own("data"), opt=own("opt"),
        cb=flux.stop,
        epochs=1, progress=False:
        flux.train_(loss, ps, data, opt, cb=cb, epochs=epochs, progress=progress),
    "train_ short": lambda s, data=own("data"), opt=own("owner"): flux.train_(s.loss, data, opt),
    "train_ datum": lambda s, x=own("x"), y=own("y"):
        s.train(data=[(x, y)]),
    "train_ whole datum": lambda s, datum=own("x"): s.train(lambda x: s.loss(x, s.y), data=[datum]),
    "train_: the loss returned": lambda s, loss=1.0:
        s.train(lambda x, y: loss if type(loss) is not float else loss * s.loss(x, y)),
    "train_: the callbacks": lambda s, cb=ignore: s.train(cb=[cb]),
    "update_": lambda s, opt=own("opt"), ps=own("ps"), gs=own("gs"): flux.update_(opt, ps, gs),
    "update_ gradient": lambda s, g=own("v"): flux.update_(s.opt, [s.W], {s.W: g}),
    "compiled": lambda s, f=square, x=own("v"): flux.compiled(f)(x),
    "compiled keyword": lambda s, x=own("v"): flux.compiled(lambda v, k: np.sum(v))(s.v, k=x),
    "compiled withgradient": lambda s, x=own("v"): flux.withgradient(flux.compiled(square), x),
    "compiled in train_": lambda s, x=own("x"), y=own("y"): s.train(s.hot, data=[(x, y)]),
    "History.record": lambda s, accuracy=0.5: s.history.record(accuracy=accuracy),
    # callbacks
    "throttle": lambda s, f=score, timeout=1, leading=True, trailing=False:
        called(flux.throttle(f, timeout, leading=leading, trailing=trailing)),
    "epochs": lambda s, n=3, log=ignore: next(flux.epochs(n, log=log), 0),
    "patience": lambda s, predicate=score, wait=2: called(flux.patience(predicate, wait)),
    "early_stopping": lambda s, f=score, delay=2, distance=lambda a, b: a - b, min_dist=0:
        called(flux.early_stopping(f, delay, distance=distance, min_dist=min_dist)),
    "early_stopping score": lambda s, score=1.0: called(flux.early_stopping(lambda: score, 3)),
    "early_stopping distance": lambda s, gain=1.0:
        called(flux.early_stopping(lambda: 1.0, 3, distance=lambda a, b: gain)),
    "early_stopping init_score": lambda s, init_score=9.0:
        called(flux.early_stopping(score, 2, init_score=init_score)),
    "plateau": lambda s, f=score, width=2, distance=lambda a, b: a - b, min_dist=0.1:
        called(flux.plateau(f, width, distance=distance, min_dist=min_dist)),
    "plateau init_score": lambda s, init_score=9.0:
        called(flux.plateau(score, 2, init_score=init_score)),
    "plateau score": lambda s, score=1.0: called(flux.plateau(lambda: score, 3)),
    "plateau distance": lambda s, gain=1.0:
        called(flux.plateau(lambda: 1.0, 3, distance=lambda a, b: gain)),
    "stop_early": lambda s, f=score, delay=4, ps=own("ps"), restore=True:
        called(flux.stop_early(f, delay, ps, restore)),
    # data
    "DataLoader": lambda s, data=own("x"), batchsize=2, shuffle=True, partial=True, rng=0,
        collate=len:
        next(iter(flux.DataLoader(data, batchsize=batchsize, shuffle=shuffle, partial=partial,
                                  rng=rng, collate=collate))),
    "DataLoader pair": lambda s, x=own("x"), y=own("y"):
        next(iter(flux.DataLoader(x, y, batchsize=3))),
    "DataLoader dict": lambda s, x=own("x"): next(iter(flux.DataLoader({"x": x}, batchsize=3))),
    "restore_": lambda s, state=own("place"): s.loader.restore_(state),
    "restore_ state": lambda s, order=np.arange(5), next=1, rng=own("place"):
        s.loader.restore_({"order": order, "next": next,
                           "rng": rng["rng"] if rng is s.place else rng}),
    "onehot": lambda s, label="b", labels=("a", "b"), default="a", dtype=np.float32:
        flux.onehot(label, labels, default, dtype=dtype),
    "onehot without default": lambda s, label="b": flux.onehot(label, ["a", "b"]),
    "onehotbatch": lambda s, ys=("b", "a"), labels=("a", "b"), default="a", dtype=np.float32:
        flux.onehotbatch(ys, labels, default, dtype=dtype),
    "onehotbatch numbers": lambda s, ys=own("labels"), label=2: flux.onehotbatch(ys, [0, 1, label]),
    "onecold": lambda s, y=own("rows"), labels=("a", "b"): flux.onecold(y, labels),
    "splitobs": lambda s, data=own("x"), at=0.5, shuffle=True, rng=0:
        flux.splitobs(data, at=at, shuffle=shuffle, rng=rng),
    "splitobs sizes": lambda s, a=2, b=0.4: flux.splitobs(s.x, at=(a, b)),
    "shuffleobs": lambda s, data=own("x"), rng=0: flux.shuffleobs(data, rng=rng),
    "batch": lambda s, observations=own("data"): flux.batch(observations),
    "batch observation": lambda s, observation=own("x"): flux.batch([observation, s.x]),
    "unbatch": lambda s, data=own("x"): flux.unbatch(data),
    "chunk": lambda s, data=own("x"), n=2: flux.chunk(data, n),
    "chunk size": lambda s, size=2: flux.chunk(s.x, size=size),
    "ncycle": lambda s, data=own("data"), n=2: next(iter(flux.ncycle(data, n)), 0),
    "digits": lambda s, flat=True: flux.datasets.digits(flat)[1],
    "moons": lambda s, n=6, noise=0.1, rng=0: flux.datasets.moons(n, noise, rng),
    "spirals": lambda s, n=6, classes=2, noise=0.1, turns=1.0, rng=0:
        flux.datasets.spirals(n, classes, noise, turns, rng),
    # randomness
    "seed_": lambda s, n=0: flux.seed_(n),
    "generator": lambda s, rng=0: generators.generator(rng).random(),
}
# fmt: on
