"""Several processes that train together."""
from .cores import *
from .gathering import *
from .ranks import *
from .launch import *
from .spreading import *
