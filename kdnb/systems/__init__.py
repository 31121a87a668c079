"""Source systems and published protocols: one module each, read into one registry."""
from importlib import import_module
from pkgutil import iter_modules

from . import (
    cheapconv,
    crd,
    deit,
    distillation,
    finetune,
    funmatch,
    imagenet,
    jointrd,
    kdpytorch,
    paper,
    reducenet,
    short,
    takd,
)
from .system import *
from .system import list_first, method_weights, recipes, sweep_presets, systems

# one more notebook, one more system
for found in iter_modules(__path__):
    import_module(f'{__name__}.{found.name}')

# what help texts list first; a further system stands behind
list_first(systems, 'crd paper reducenet kdpytorch distillation jointrd cheapconv imagenet '
                    'deit funmatch short finetune takd ban')
list_first(recipes, 'crd reducenet kdpytorch distillation jointrd cheapconv cinic10 imagenet jointrd_imagenet '
                    'vit funmatch short finetune')
list_first(method_weights, 'crd paper kdpytorch distillation reducenet funmatch')
list_first(sweep_presets, 'crd cifar100-wrn cinic10-shufflenet kd-grid '
                          'jointrd jointrd-imagenet imagenet reducenet reducenet-cifar100 cheapconv takd ban')
