"""The networks: ours, torchvision's, timm's and yours, by their names; surgery on them; files of weights."""
import importlib
import pkgutil

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

# a further module in this folder registers its models when it is imported
_further = [importlib.import_module(f'{__name__}.{module.name}') for module in pkgutil.iter_modules(__path__)]
