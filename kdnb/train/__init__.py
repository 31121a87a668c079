"""Training: runs, checkpoints, recipes, the loop, several learners together, remembered teachers."""
from .runs import *
from .state import *
from .memory import *
from .recipe import *
from .dot import *
from .faster import *
from .checks import *
from .scoring import *
from .words import *
from .average import *
from .hooks import *
from .keeping import *
from .loop import *
from .together import *
from .remembered import *
