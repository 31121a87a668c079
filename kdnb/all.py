"Everything public, for notebooks: `from kdnb.all import *`."
from kdnb.places import *
