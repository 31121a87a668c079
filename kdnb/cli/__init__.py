from .demo import *
from .options import *
from .report import *
from .sweep import *
