"""A model and its data, and all that a checkpoint has to restore."""

import numpy as np

import tinyflux as flux
from tinyflux.generators import generator


def chain(seed=0, rng=1):
    flux.seed_(seed)
    return flux.Chain(
        flux.Dense(3, 8, flux.relu), flux.Dropout(0.3), flux.Dropout(0.2, rng=rng), flux.Dense(8, 2)
    )


def data(n=50):
    rng = np.random.default_rng(5)
    return rng.standard_normal((n, 3)).astype("f4"), rng.standard_normal((n, 2)).astype("f4")


def bits(array):
    """Dtype, shape and bytes: what has to be equal."""
    array = np.asarray(array)
    array = array.astype(array.dtype.newbyteorder("="))
    return array.dtype, array.shape, array.tobytes()


def everything(model, opt=None, loader=None):
    """All that a checkpoint holds, as something that can be compared."""
    found = [bits(t.data) for t in flux.params(model)]
    found += [repr(generator().bit_generator.state)]
    found += [repr(m.rng.bit_generator.state) for m in model if getattr(m, "rng", None)]
    if opt is not None:
        for t in flux.params(model):
            found += [(k, bits(v)) for k, v in opt.state(t).items()]
        found += [repr(opt)]
    if loader is not None:
        found += [repr(loader.state())]
    return found
