from tinyflux.optimise.rules import *
