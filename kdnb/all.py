"Every public name."
from kdnb.callbacks import *
from kdnb.data import *
from kdnb.errors import *
from kdnb.experiments import *
from kdnb.files import *
from kdnb.losses import *
from kdnb.measure import *
from kdnb.methods import *
from kdnb.models import *
from kdnb.parallel import *
from kdnb.schemes import *
from kdnb.seeds import *
from kdnb.show import *
from kdnb.taps import *
from kdnb.train import *
