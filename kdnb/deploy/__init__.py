"""Using a student where it is needed."""
from .photos import *
