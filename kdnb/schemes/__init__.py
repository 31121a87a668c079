from .frozen import *
from .joint import *
from .online import *
from .scheme import *
