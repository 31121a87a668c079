"""Losses between student and teacher: pure functions of tensors, computed in float32."""
from .checks import *
from .logit import *
from .modern import *
from .feature import *
from .review import *
from .relation import *
from .contrast import *
from .targets import *
from .transfer import *
from .channels import *
from .across import *
