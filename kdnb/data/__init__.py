from .downloads import *
from .images import *
from .sources import *
from .stream import *
