from .cost import *
from .scores import *
