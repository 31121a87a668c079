"""The commands: kdnb_train, kdnb_distill, kdnb_test, kdnb_sweep, kdnb_report and others, and what `make run` runs."""
from .options import *
from .train import *
from .test import *
from .sweep import *
from .report import *
from .demo import *
from .leaving import *
from .tuning import *
