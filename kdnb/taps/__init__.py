from .folding import *
from .graph import *
from .tails import *
from .tapped import *
