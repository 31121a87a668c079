"""Named places of any model: its graph, the ends of its stages, reading them, and the rest of a model from there."""
from .graph import *
from .find import *
from .tapped import *
from .tails import *
from .folding import *
