"""Callbacks: what watches a learner while it trains."""
from importlib import import_module as _import_module
from pkgutil import iter_modules as _iter_modules

from .registry import *
from .progress import *
from .tensorboard import *
from .film import *

# one more notebook in this room, one more callback
_callback_modules = [_import_module(f'{__name__}.{found.name}') for found in _iter_modules(__path__)]
