"""Images as a network gets them: downloads, splits on the device or streamed, data sets by name."""
from importlib import import_module as _import_module
from pkgutil import iter_modules as _iter_modules

from .downloads import *
from .zoo import *
from .images import *
from .reading import *
from .stream import *
from .sources import *
from .digits_cifar import *
from .shapes import *
from .classes import *
from .mixing import *
from .folders import *
from .tables import *
from .loading import *

# one more notebook in nbs/03_data is one more module here: it registers itself, and its names are handed on
for _found in _iter_modules(__path__):
    _module = _import_module(f'{__name__}.{_found.name}')
    globals().update({name: getattr(_module, name) for name in getattr(_module, '__all__', ())})
