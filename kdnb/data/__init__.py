"""Images as a network gets them: downloads, splits on the device or streamed, data sets by name."""
from importlib import import_module as _import_module
from pkgutil import iter_modules as _iter_modules

from .downloads import *
from .images import *
from .reading import *
from .stream import *
from .sources import *
from .digits_cifar import *
from .shapes import *
from .classes import *
from .folders import *
from .loading import *

# one more notebook with `@source`, one more data set
_found_modules = [_import_module(f'{__name__}.{found.name}') for found in _iter_modules(__path__)]
