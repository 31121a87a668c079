"""Callbacks: what watches a learner while it trains."""
from importlib import import_module as _import_module
from pkgutil import iter_modules as _iter_modules

from .registry import *
from .progress import *
from .tensorboard import *
from .film import *
from .averaging import *
from .stopping import *
from .rates import *
from .weights_biases import *

# one more notebook in nbs/12_callbacks is one more module here: it registers itself, and its names are handed on
for _found in _iter_modules(__path__):
    _module = _import_module(f'{__name__}.{_found.name}')
    globals().update({name: getattr(_module, name) for name in getattr(_module, '__all__', ())})
