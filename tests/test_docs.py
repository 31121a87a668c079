"""What `?` shows: every name of kdnb.all and every public method has a numpydoc docstring whose Examples run."""
import doctest
import inspect
import os
import time
from collections.abc import Callable, Iterator

import pytest
from numpydoc import validate as numpydoc

import kdnb.all
import kdnb.methods

SECONDS = 120       # for all Examples together

CHECKED = '''
GL05 GL06 GL07 GL08
SS01 SS02 SS03 SS04 SS05 SS06
PR01 PR02 PR03 PR04 PR05 PR07 PR10
RT01 RT03 YD01'''.split()
# Left out: the house puts text on the line of the opening quotes or below (GL01, GL02), needs no extended summary,
# See Also or Examples for each name (ES01, SA01, EX01), and leaves capitals and full stops of entries free (PR08, PR09,
# RT04, RT05), as `images : Tensor` reads as well with 'of shape (B, 3, H, W)'.

FIRST_WORDS_THAT_DESCRIBE = {'a', 'an', 'the', 'this', 'that', 'what', 'how', 'all', 'each', 'every', 'which', 'where'}

def all_names() -> list[str]: return [n for n in getattr(kdnb.all, '__all__', dir(kdnb.all)) if n[0] != '_']

def members(cls: type) -> Iterator[str]:
    """The public methods and properties that a class of ours defines or inherits from a class of ours."""
    for name in dir(cls):
        value = inspect.getattr_static(cls, name)
        unwrapped = value.fget if isinstance(value, property) else getattr(value, '__func__', value)
        if name[0] == '_' or not inspect.isfunction(unwrapped): continue
        if (unwrapped.__module__ or '').startswith('kdnb'): yield name

def documented() -> dict[str, object]:
    """What must have a docstring: {dotted name: object}, each object once, methods beyond kdnb.all included."""
    found: dict[str, object] = {}
    for name in all_names():
        thing = getattr(kdnb.all, name)
        if inspect.isroutine(thing) or inspect.isclass(thing): found[f'{thing.__module__}.{thing.__qualname__}'] = thing
    for make in kdnb.methods.known_methods.values():
        found.setdefault(f'{make.__module__}.{make.__qualname__}', make)
    for thing in list(found.values()):
        for m in members(thing) if inspect.isclass(thing) else []:
            owner = next(c for c in thing.__mro__ if m in vars(c))
            found.setdefault(f'{owner.__module__}.{owner.__qualname__}.{m}', getattr(owner, m))
    return {n: o for n, o in found.items() if n.startswith('kdnb.')}

DOCUMENTED = documented()

class Documented(numpydoc.Validator):
    """An object by its name here; no line is looked for, as what a decorator makes has none of its own."""
    source_file_def_line = None

    def __init__(self, obj_name: str):
        super().__init__(numpydoc.get_doc_object(DOCUMENTED[obj_name]))

def takes_arguments(thing: object) -> bool:
    """Tell whether a class or function has parameters to document."""
    try: names = list(inspect.signature(thing).parameters) if isinstance(thing, Callable) else []
    except (TypeError, ValueError): return False
    return bool(set(names) - {'self', 'args', 'kwargs'})

def returns_something(thing: object) -> bool:
    """Tell whether a function says that it returns something other than None."""
    if not inspect.isfunction(thing): return False
    return thing.__annotations__.get('return', None) not in (None, 'None', type(None))

def faults(name: str, thing: object) -> list[str]:
    """What is wrong with a docstring: numpydoc's codes and sentences."""
    errors = [(c, e) for c, e in numpydoc.validate(name, Documented)['errors'] if c in CHECKED]
    doc = (inspect.getdoc(thing) or '').strip()
    if inspect.isclass(thing) and doc.startswith(f'{thing.__name__}('): errors.append(('GL08', 'a dataclass wrote it'))
    if isinstance(thing, property): errors = [(c, e) for c, e in errors if c not in ('RT01', 'PR01', 'SS05')]
    if inspect.isclass(thing): errors = [(c, e) for c, e in errors if c != 'SS05']
    first = doc.split(maxsplit=1)[0].lower() if doc else ''
    if inspect.isfunction(thing) and first in FIRST_WORDS_THAT_DESCRIBE:
        errors.append(('SS05', f'a function\'s first line is an order, "Return ...", not "{first} ..."'))
    if takes_arguments(thing) and 'Parameters\n---' not in doc and not any(c in ('GL08', 'PR01') for c, _ in errors):
        errors.append(('PR01', 'no Parameters section'))
    codes = {c for c, _ in errors}
    told = 'Returns\n---' in doc or 'Yields\n---' in doc
    if returns_something(thing) and not told and not codes & {'GL08', 'RT01', 'YD01'}:
        errors.append(('RT01', 'no Returns section'))
    return [f'{code} {sentence}' for code, sentence in errors]

@pytest.mark.parametrize('name', list(DOCUMENTED))
def test_docstring(name):
    assert faults(name, DOCUMENTED[name]) == []

@pytest.fixture
def quiet_place(monkeypatch, tmp_path):
    """A folder of its own for runs and files, and no progress bars."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('KDNB_RUNS', str(tmp_path/'runs'))
    monkeypatch.setattr(kdnb.all.Learner, 'callbacks', [], raising=False)

def examples() -> dict[str, str]:
    """The docstrings that hold Examples."""
    docs = {n: inspect.getdoc(o) or '' for n, o in DOCUMENTED.items()}
    return {n: d for n, d in docs.items() if '>>>' in d}

def test_examples_run(quiet_place):
    """In one namespace of `from kdnb.all import *` each; what a docstring prints is what it says it prints."""
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    began, failed, times = time.monotonic(), [], {}
    names = {n: getattr(kdnb.all, n) for n in all_names()}
    for name, doc in examples().items():
        assert '+SKIP' not in doc, f'{name}: an example that does not run is none'
        test = doctest.DocTestParser().get_doctest(doc, dict(names), name, None, None)
        runner, said, start = doctest.DocTestRunner(optionflags=flags), [], time.monotonic()
        runner.run(test, out=said.append)
        times[name] = time.monotonic() - start
        if runner.failures: failed.append(f'{name}\n' + ''.join(said))
    slowest = sorted(times.items(), key=lambda t: -t[1])[:5]
    assert not failed, f'{len(failed)} of {len(times)} fail\n' + '\n'.join(failed)
    assert time.monotonic() - began <= SECONDS, f'slowest: {slowest}'

def main() -> None:
    """Print what is wrong, by room: `python tests/test_docs.py`."""
    os.environ.setdefault('MPLBACKEND', 'Agg')
    wrong = {n: f for n, o in DOCUMENTED.items() if (f := faults(n, o))}
    rooms: dict[str, list[str]] = {}
    for name in wrong: rooms.setdefault(name.split('.')[1], []).append(name)
    for room, names in sorted(rooms.items()):
        print(f'\n{room}: {len(names)} names')
        for name in names: print(f"  {name}: {'; '.join(wrong[name])}")
    print(f'\n{len(wrong)} of {len(DOCUMENTED)} docstrings are to be mended; {len(examples())} have Examples')

if __name__ == '__main__': main()
