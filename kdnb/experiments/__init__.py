"""From run folders to tables, pictures and pages; and whole tables of runs."""
from importlib import import_module
from pkgutil import iter_modules

from .statistics import *
from .rows import *
from .blocks import *
from .published import *
from .table import *
from .results import *
from .sweeps import *
from .jobs import *
from .clusters import *
from .repeat import *
from .grid import *
from .tradeoff import *
from .report import *
from .tuning import *
from .budget import *

# a further notebook of this folder may add columns
for found in iter_modules(__path__):
    import_module(f'{__name__}.{found.name}')
del found, import_module, iter_modules
