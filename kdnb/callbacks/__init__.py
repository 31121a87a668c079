from .film import *
from .progress import *
from .tensorboard import *
