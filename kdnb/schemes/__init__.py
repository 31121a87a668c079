"""Schemes: who learns from whom."""
from .frozen import *
from .seen import *
from .scheme import *
from .teachers import *
from .places import *
from .distill import *
from .weighing import *
from .joint import *
from .online import *
from .branches import *
