"""The networks: ours, torchvision's, timm's and yours, by their names; surgery on them; files of weights."""
from importlib import import_module as _import_module
from pkgutil import iter_modules as _iter_modules

from .checks import *
from .registry import *
from .resnets import *
from .wide import *
from .plain import *
from .mobile import *
from .vggs import *
from .surgery import *
from .cheap import *
from .weights import *
from .pretrained import *
from .create import *
from .store import *

# one more notebook in nbs/04_models is one more module here: it registers itself, and its names are handed on
for _found in _iter_modules(__path__):
    _module = _import_module(f'{__name__}.{_found.name}')
    globals().update({name: getattr(_module, name) for name in getattr(_module, '__all__', ())})
