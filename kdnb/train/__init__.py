from .loop import *
from .memory import *
from .remembered import *
from .runs import *
from .together import *
