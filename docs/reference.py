"""Pages of the reference: what `kdnb.all` holds, room by room, from its docstrings."""
import ast
import inspect
import re
from collections.abc import Iterable
from pathlib import Path

import kdnb.all

from .links import ROOT

def _rooms() -> dict[str, list[str]]:
    """{package: names that kdnb.all takes of it}, in reading order."""
    tree = ast.parse((ROOT/'kdnb/all.py').read_text(encoding='utf-8'))
    imports = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module]
    return {str(n.module): [a.name for a in n.names] for n in imports}

def _public(package: str) -> Iterable[str]:
    """Names that a package hands on beyond those of kdnb.all."""
    module = __import__(package, fromlist=['x'])
    for name, thing in vars(module).items():
        ours = (inspect.isfunction(thing) or inspect.isclass(thing)) and thing.__module__.startswith(package)
        if ours and name[0] != '_' and name not in kdnb.all.__all__:
            yield name

def notebook_of(thing: object) -> str | None:
    """The notebook that an object is exported from."""
    unwrapped = inspect.unwrap(thing) if callable(thing) else thing
    file = getattr(inspect.getmodule(unwrapped), '__file__', None)
    text = Path(file).read_text(encoding='utf-8') if file else ''
    found = re.search(r'File to edit: (?:\.\./)+(nbs/\S+?)\.ipynb', text)
    return found[1] if found else None

def _first_line(thing: object) -> str:
    """The first line of a docstring; stars and underscores stand for themselves."""
    doc = inspect.getdoc(thing) or ''
    return re.sub(r'([*_`|\\])', r'\\\1', doc.strip().split('\n')[0])

def _entry(package: str, name: str) -> str:
    """The directive of one name, and where it is explained."""
    thing = getattr(kdnb.all, name)
    kind = 'class' if inspect.isclass(thing) else 'function' if callable(thing) else 'data'
    members = '\n   :members:' if kind == 'class' else ''
    notebook = notebook_of(thing) if kind != 'data' else None
    told = f'\n   Explained in :doc:`/{notebook}`.\n' if notebook else ''
    return f'.. auto{kind}:: {package}.{name}{members}\n{told}'

def _further(package: str) -> str:
    """A list of the names beyond kdnb.all, each with its first line and its notebook."""
    module = __import__(package, fromlist=['x'])
    lines = []
    for name in _public(package):
        thing = getattr(module, name)
        lines.append(f'* ``{name}`` (:doc:`/{notebook_of(thing)}`): {_first_line(thing)}')
    if not lines: return ''
    head = f'Further names of {package}'
    return '\n'.join(['', head, '-'*len(head), '', f'Import them from ``{package}``.', '', *lines, ''])

def reference_pages() -> dict[str, str]:
    """{name: reStructuredText}, a page for each room."""
    pages = {}
    for package, names in _rooms().items():
        entries = '\n'.join(_entry(package, name) for name in names)
        pages[package] = f'{package}\n{"="*len(package)}\n\n{entries}\n{_further(package)}'
    return pages

def reference_index() -> str:
    """The list of these pages."""
    rows = [f"| [{package}]({package}.rst) | {', '.join(f'`{n}`' for n in names)} |"
            for package, names in _rooms().items()]
    tree = '\n'.join(['```{toctree}', ':hidden:', '', *_rooms(), '```'])
    text = ('`from kdnb.all import *` brings these names. Each entry says what a function takes, gives and refuses, '
            'shows an example, and links to its source and to the notebook that explains it.')
    return '\n\n'.join(['# Reference', text, '\n'.join(['| package | names |\n|---|---|', *rows]), tree]) + '\n'
