"""Using a student where it is needed."""
from .photos import *
from .formats import *
from .exporting import *
