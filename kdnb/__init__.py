"""Knowledge distillation of image classifiers. `from kdnb.all import *`, or `import kdnb; kdnb.resnet(20)`."""
__version__ = "0.1.0"

def __getattr__(name):
    "Any public name or module of kdnb, imported when first asked for, so that `import kdnb` itself costs nothing."
    if name.startswith('_'): raise AttributeError(f'module kdnb has no attribute {name!r}')
    from importlib import import_module
    everything = import_module('kdnb.all') # which also puts the modules it imports (kdnb.taps, kdnb.models) into globals()
    if hasattr(everything, name): return getattr(everything, name)
    if name in globals(): return globals()[name]
    raise AttributeError(f'module kdnb has no attribute {name!r}: dir(kdnb) lists what there is')

def __dir__():
    "What `kdnb.<tab>` offers: the public names, the modules and the version."
    from importlib import import_module
    return sorted({n for n in (*dir(import_module('kdnb.all')), *globals()) if not n.startswith('_')} | {'__version__'})
