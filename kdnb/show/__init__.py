from .canvas import *
from .cka import *
from .dark import *
from .logits import *
