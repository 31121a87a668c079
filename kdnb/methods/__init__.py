"""Methods: losses with their weights, taps and adapters, known by name."""
from importlib import import_module as _import_module
from pkgutil import iter_modules as _iter_modules

from .schedules import *
from .parse import *
from .term import *
from .logit import *
from .feature import *
from .relation import *
from .controls import *
from .contrast import *
from .targets import *
from .transfer import *
from .channels import *
from .reuse import *
from .across import *

# one more notebook in nbs/08_methods is one more module here: it registers its methods, and its names are handed on
for _found in _iter_modules(__path__):
    _module = _import_module(f'{__name__}.{_found.name}')
    globals().update({name: getattr(_module, name) for name in getattr(_module, '__all__', ())})
