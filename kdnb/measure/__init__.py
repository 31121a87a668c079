"""Scores of one model, the likeness of two, a linear probe, and what a model costs to run."""
from .scores import *
from .likeness import *
from .cost import *
from .probe import *
