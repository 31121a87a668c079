"Everything public, for notebooks: `from kdnb.all import *`."
from kdnb.places import *
from kdnb.data import *
from kdnb.models.resnet import *
from kdnb.models.zoo import *
from kdnb.taps import *
from kdnb.measure import *
from kdnb.losses.logit import *
from kdnb.losses.modern import *
from kdnb.losses.feature import *
from kdnb.losses.review import *
from kdnb.losses.relation import *
from kdnb.terms import *
from kdnb.schemes import *
from kdnb.runs import *
from kdnb.learner import *
from kdnb.callbacks import *
from kdnb.show import *
