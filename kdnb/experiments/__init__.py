from .grid import *
from .jobs import *
from .repeat import *
from .results import *
from .sweeps import *
from .table import *
from .tradeoff import *
