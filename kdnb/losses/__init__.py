from .feature import *
from .logit import *
from .modern import *
from .relation import *
from .review import *
