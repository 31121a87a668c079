"""Knowledge distillation of image classifiers. `from kdnb.all import *`, or `import kdnb; kdnb.resnet(20)`."""
__version__ = "0.1.0"

def _modules() -> list[str]:
    "The packages and modules of kdnb, without `all` and what nbdev writes."
    from pkgutil import iter_modules
    return [m.name for m in iter_modules(__path__) if m.name != 'all' and not m.name.startswith('_')]

def __getattr__(name: str):
    "Import a public name, or a package, when it is first asked for: `import kdnb` alone costs nothing."
    from importlib import import_module
    if not name.startswith('_'):
        if name in _modules(): return import_module(f'kdnb.{name}')
        everything = import_module('kdnb.all')
        if name in everything.__all__: return getattr(everything, name)
    raise AttributeError(f'module kdnb has no attribute {name!r}: dir(kdnb) lists what there is')

def __dir__() -> list[str]:
    "What `kdnb.<Tab>` offers: the names of `kdnb.all`, the packages and the version."
    from importlib import import_module
    return sorted([*import_module('kdnb.all').__all__, *_modules(), '__version__'])
