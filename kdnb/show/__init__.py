"""Pictures: functions of models and images that return a figure with its numbers."""
from .canvas import *
from .places import *
from .attention import *
from .similarity import *
from .history import *
from .comparison import *
from .logits import *
from .dark import *
from .cka import *
from .looking import *
from .maps import *
from .points import *
from .curves import *
from .images import *
