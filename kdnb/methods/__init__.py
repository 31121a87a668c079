from .families import *
from .term import *
