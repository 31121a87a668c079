"""Several processes that train together."""
from .gathering import *
from .ranks import *
from .launch import *
from .spreading import *
