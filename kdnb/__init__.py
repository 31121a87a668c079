"""Knowledge distillation of image classifiers. `from kdnb.all import *`, or `import kdnb; kdnb.resnet(20)`."""
__version__ = "0.1.0"

def __getattr__(name):
    "Any public name of `kdnb.all`, imported when first asked for, so that `import kdnb` itself costs nothing."
    if name.startswith('_'): raise AttributeError(f'module kdnb has no attribute {name!r}')
    from importlib import import_module
    try: return getattr(import_module('kdnb.all'), name)
    except AttributeError: raise AttributeError(f'module kdnb has no attribute {name!r}: `from kdnb.all import *; help(kdnb.all)` lists what there is') from None

def __dir__():
    from importlib import import_module
    return sorted(n for n in dir(import_module('kdnb.all')) if not n.startswith('_'))
