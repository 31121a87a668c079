from .gathering import *
from .launch import *
from .ranks import *
