"The rules of the house that no notebook can check of itself: what is exported, in which order, how long, how named, how documented."
import ast, json, os, re, shutil, subprocess, sys
from configparser import ConfigParser
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
CFG = ConfigParser(delimiters=['='], interpolation=None)
CFG.read(ROOT/'settings.ini', encoding='utf-8')
CFG = CFG['DEFAULT']

LONGEST = 15                         # lines of an exported cell; a loop that has to be read in one piece may ask for more here, with its number
LONGER = {'51_learner.ipynb#learner-class': 25}
ENTRIES = {'kdnb.cli', 'kdnb.cli_sweep', 'kdnb.demo', 'kdnb.report', 'kdnb.bench', 'kdnb.baseline', 'kdnb.levers', 'kdnb.parts', 'kdnb.benchmark'}  # started from a shell, so not part of `from kdnb.all import *`
BY_HAND = {'kdnb', 'kdnb.all', 'kdnb._modidx'}

def rel(path): return path.relative_to(ROOT).as_posix()
def ours(path): return not any(part[0] in '._' for part in path.relative_to(ROOT).parts[:-1]) and path.name[0] not in '._'
def name(path): return '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')
def text(x): return ''.join(x)

NOTEBOOKS = {rel(p): json.loads(p.read_text(encoding='utf-8')) for p in sorted((ROOT/'nbs').rglob('*.ipynb')) if ours(p)}
LIBRARY   = {p: nb for p, nb in NOTEBOOKS.items() if p.count('/') == 1 and p != 'nbs/index.ipynb'}
TUTORIALS = {p: nb for p, nb in NOTEBOOKS.items() if p.startswith('nbs/tutorials/')}
MODULES   = {name(p): p for p in sorted((ROOT/'kdnb').rglob('*.py'))}

def code(nb): return [c for c in nb['cells'] if c['cell_type'] == 'code']
def directives(cell): return re.findall(r'^#\|\s*(.+?)\s*$', text(cell['source']), re.M)
def exported(nb): return [c for c in code(nb) if any(d.split()[0] in ('export', 'exporti', 'exports') for d in directives(c))]
def module_of(nb): return next((f"kdnb.{d.split()[1]}" for c in code(nb) for d in directives(c) if d.startswith('default_exp')), None)
HOME = {module_of(nb): p for p, nb in LIBRARY.items() if module_of(nb)}  # module -> its notebook

def each(nbs): return pytest.mark.parametrize('path', list(nbs))
def parsed(module): return ast.parse(MODULES[module].read_text(encoding='utf-8'))
def fresh(program):
    "What a new Python prints that knows this checkout and no other."
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'MPLBACKEND': 'Agg'}
    res = subprocess.run([sys.executable, '-c', program], cwd=ROOT/'tests', env=env, capture_output=True, text=True, timeout=120)
    assert res.returncode == 0, res.stderr
    return json.loads(res.stdout.splitlines()[-1])

# --- exported code and notebooks are one thing

def sources(root): return {p.relative_to(root).as_posix(): p.read_bytes() for d in ('kdnb', 'nbs') for p in (root/d).rglob('*')
                           if p.suffix in ('.py', '.ipynb') and '.ipynb_checkpoints' not in p.parts}

def test_exporting_again_changes_nothing(tmp_path):
    here, there = ROOT, tmp_path/'kdnb'
    for d in ('kdnb', 'nbs'): shutil.copytree(here/d, there/d, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'))
    shutil.copy(here/'settings.ini', there)
    for p in (there/'kdnb').rglob('*.py'): # what no notebook exports is not written again
        if name(here/p.relative_to(there)) not in BY_HAND - {'kdnb._modidx'}: p.unlink()
    env = {k: v for k, v in os.environ.items() if k != 'IN_TEST'}
    for tool in ('nbdev_clean', 'nbdev_export'): subprocess.run([BIN/tool], cwd=there, env=env, check=True, capture_output=True, timeout=120)
    before, after = sources(here), sources(there)
    assert sorted(before) == sorted(after), 'a module without a notebook, or a notebook never exported: run `make export`'
    assert [p for p in before if before[p] != after[p]] == [], 'run `make export` and look at the difference'

def test_one_notebook_one_module():
    assert [p for p in LIBRARY if not module_of(LIBRARY[p])] == [], 'a library notebook begins with `#| default_exp`'
    assert len(HOME) == len(LIBRARY), 'two notebooks export to one module'
    assert {p: m for m, p in HOME.items() if re.sub(r'^nbs/\d+[a-z]?_(.*)\.ipynb$', r'kdnb.\1', p) != m} == {}, 'the file name is number_module'

def test_notebooks_outside_the_library_export_nothing():
    assert [p for p in NOTEBOOKS if p not in LIBRARY and exported(NOTEBOOKS[p])] == []

# --- order: what is read later may use what was read before, never the other way round

def kdnb_imports(module):
    "The modules of kdnb that a module imports, wherever in its code."
    package = module if MODULES[module].name == '__init__.py' else module.rpartition('.')[0]
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.Import): yield from (a.name for a in node.names if a.name.split('.')[0] == 'kdnb')
        if isinstance(node, ast.ImportFrom):
            base = '.'.join([*package.split('.')[:len(package.split('.')) + 1 - node.level], *filter(None, [node.module])]) if node.level else node.module
            if base.split('.')[0] == 'kdnb': yield from (f'{base}.{a.name}' if f'{base}.{a.name}' in MODULES else base for a in node.names)

@pytest.mark.parametrize('module', list(HOME))
def test_imports_point_to_lower_numbers(module):
    allowed = {m for m, p in HOME.items() if p < HOME[module]} | {'kdnb'} | ({'kdnb.all'} if module in ENTRIES else set())
    assert set(kdnb_imports(module)) - allowed == set()

def test_all_is_complete_and_in_reading_order():
    stars = [n.module for n in parsed('kdnb.all').body if isinstance(n, ast.ImportFrom) and [a.name for a in n.names] == ['*']]
    assert stars == [m for m, _ in sorted(HOME.items(), key=lambda mp: mp[1]) if m not in ENTRIES]

def public(module): return next((ast.literal_eval(n.value) for n in parsed(module).body if isinstance(n, ast.Assign) and n.targets[0].id == '__all__'), [])

def test_no_public_name_twice():
    where = {}
    for m in HOME:
        if m not in ENTRIES:
            for n in public(m): where.setdefault(n, []).append(m)
    assert {n: ms for n, ms in where.items() if len(ms) > 1} == {}

def test_nothing_shadows_a_module():
    packages = {m.rpartition('.')[0] for m in MODULES if m != 'kdnb'} - {'kdnb'}
    folders = {p: ROOT.joinpath(*p.split('.')) for p in packages}
    assert [p for p, d in folders.items() if d.with_suffix('.py').exists()] == [], 'x.py beside x/'
    assert [p for p, d in folders.items() if not (d/'__init__.py').exists()] == [], 'a folder of modules needs an __init__.py'
    assert [p for p in packages if parsed(p).body] == [], 'an __init__ with names in it could hide a module: leave it empty'
    children = {m.split('.')[1] for m in MODULES if m != 'kdnb'}
    assert [(m, n) for m in HOME for n in public(m) if m not in ENTRIES and n in children] == [], 'kdnb.NAME would be the module or the function, by chance'
    assert [m for m in HOME if m.count('.') == 1 and m.rpartition('.')[2] in public(m)] == []

@pytest.mark.parametrize('module', [m for m in MODULES if m != 'kdnb._modidx'])
def test_imports_are_declared(module):
    declared = {re.match(r'[\w-]+', r)[0].replace('scikit-learn', 'sklearn').replace('pillow', 'PIL') for k in ('', 'timm_', 'tensorboard_')
                for r in CFG[f'{k}requirements'].split()}
    tops = {a.name.split('.')[0] for n in ast.walk(parsed(module)) if isinstance(n, ast.Import) for a in n.names}
    tops |= {n.module.split('.')[0] for n in ast.walk(parsed(module)) if isinstance(n, ast.ImportFrom) and not n.level}
    assert tops - sys.stdlib_module_names - declared - {'kdnb', 'IPython'} == set()  # IPython: there where a notebook is

def test_every_name_that_code_reads_is_there():
    "A name that only a notebook's hidden test cell imports is found by the notebook and missed by the module, often in an error's own sentence."
    assert fresh("""if 1:
        import builtins, dis, importlib, json, types
        def read(code):
            for i in dis.get_instructions(code):
                if i.opname == 'LOAD_GLOBAL': yield i.argval
            for c in code.co_consts:
                if isinstance(c, types.CodeType): yield from read(c)
        bad = []
        for name, path in json.loads(%r).items():
            module = importlib.import_module(name)
            with open(path, encoding='utf-8') as f: code = compile(f.read(), path, 'exec')
            bad += [f'{name}: {n}' for n in sorted({*read(code)}) if not hasattr(module, n) and not hasattr(builtins, n)]
        print(json.dumps(bad))""" % json.dumps({m: str(MODULES[m]) for m in HOME})) == []

# --- names and their docstrings

def test_every_public_name_has_a_docstring():
    assert fresh('''if 1:
        import inspect, json, kdnb.all
        def told(f): return bool((inspect.getdoc(f) or '').strip())
        bad = []
        for n, o in vars(kdnb.all).items():
            if n.startswith('_') or not (inspect.isclass(o) or inspect.isroutine(o)): continue
            doc = o.__dict__.get('__doc__') if inspect.isclass(o) else o.__doc__
            if not doc or doc.startswith(f'{n}('): bad.append(n)       # `Name(a, b)` is what dataclass and namedtuple write themselves
            if not inspect.isclass(o): continue
            for k, m in vars(o).items():
                m = m.fget if isinstance(m, property) else getattr(m, '__func__', m)
                if not k.startswith('_') and inspect.isfunction(m) and not told(getattr(o, k)): bad.append(f'{n}.{k}')
        print(json.dumps(bad))''') == []

def test_every_argument_of_a_method_is_explained():
    assert fresh('''if 1:
        import json
        from fastcore.docments import docments
        from kdnb.all import known_methods
        print(json.dumps(sorted({f'{make.__name__}.{k}' for make in known_methods.values() for k, v in docments(make.__init__).items() if v is None and k not in ('self', 'return')})))''') == []

def test_importing_kdnb_alone_is_light():
    assert fresh('import sys, json, kdnb; print(json.dumps(sorted({"torch", "torchvision", "matplotlib", "numpy", "nbdev", "fastcore"} & set(sys.modules))))') == []

def test_names_are_found_when_asked_for():
    assert fresh('''if 1:
        import json, kdnb
        module = kdnb.places.__name__
        try: kdnb.no_such_name
        except AttributeError as e: missing = str(e)
        print(json.dumps([module, sum(p.numel() for p in kdnb.resnet(20).parameters()), 'resnet' in dir(kdnb), 'no_such_name' in missing]))''') == ['kdnb.places', 272474, True, True]

def test_the_version_is_told_once():
    assert fresh('import json, kdnb; print(json.dumps(kdnb.__version__))') == CFG['version']

def test_no_dustbins():
    dull = re.compile(r'^(\d+[a-z]?_)?(utils?|helpers?|core|base|misc|common|old)(\.|$)|\.(utils?|core|base)\.')
    assert [rel(p) for d in ('nbs', 'kdnb', 'tests') for p in (ROOT/d).rglob('*') if ours(p) and '__pycache__' not in p.parts and dull.search(p.name)] == []

# --- how a notebook looks

@each(NOTEBOOKS)
def test_title_and_one_sentence(path):
    first = NOTEBOOKS[path]['cells'][0]
    assert first['cell_type'] == 'markdown'
    title, blank, *rest = text(first['source']).split('\n')
    quote = ' '.join(l[2:] for l in rest[:next((i for i, l in enumerate(rest) if not l.startswith('> ')), None)])
    assert re.match(r'# \S', title) and blank == '' and quote, 'a notebook starts with `# Title`, an empty line, `> one sentence.`'
    assert re.search(r'[.?!]$', quote) and not re.search(r'[.?!]\s+[A-Z]', quote), f'one sentence: {quote}'

@each(NOTEBOOKS)
def test_cell_ids_are_words(path):
    ids = [c['id'] for c in NOTEBOOKS[path]['cells']]
    assert len(ids) == len(set(ids))
    random = re.compile(r'(?=.*\d)[0-9a-f]{8}|[0-9a-f]{8}-[0-9a-f]{4}-.*')
    assert [i for i in ids if not re.fullmatch('[a-z0-9]+(-[a-z0-9]+)*', i) or random.fullmatch(i)] == []

def outputs(nb): return [(c['id'], o) for c in code(nb) for o in c['outputs']]
def words(out):
    "All that is text in an output."
    yield text(out.get('text', ''))
    yield '\n'.join(out.get('traceback', []))
    yield from (text(v) for k, v in out.get('data', {}).items() if k.startswith('text/') or k == 'image/svg+xml')

@each(NOTEBOOKS)
def test_outputs_hold_no_error_and_no_path(path):
    private = re.compile(r'(?<![\w.])/(home|root|work|tmp|Users|content|var|opt|mnt|usr)/|\b[A-Z]:\\|site-packages|\.venv/')
    assert [i for i, o in outputs(NOTEBOOKS[path]) if o['output_type'] == 'error' or any('Traceback (most recent call last)' in w for w in words(o))] == []
    assert [(i, private.search(w)[0]) for i, o in outputs(NOTEBOOKS[path]) for w in words(o) if private.search(w)] == []

@each(NOTEBOOKS)
def test_size(path):
    limit = 320 if path == 'nbs/60_show.ipynb' else 64 if path in LIBRARY else 300     # 60_show is the notebook of pictures
    assert (ROOT/path).stat().st_size <= limit * 1024, f'{path} is over {limit} KB: fewer or smaller figures'

def lines_of(source):
    "Lines of code: without blanks, comments and directives; a signature is one line, however many arguments it explains."
    lines = dict(enumerate(source.split('\n'), 1))
    for f in ast.walk(ast.parse(source)):
        if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for i in range(f.lineno+1, f.body[0].lineno): lines[i] = ''
    return sum(1 for l in lines.values() if l.strip() and not l.strip().startswith('#'))

@each(LIBRARY)
def test_exported_cells_are_short(path):
    only_imports = lambda c: all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.parse(text(c['source'])).body)
    sizes = {f"{Path(path).name}#{c['id']}": lines_of(text(c['source'])) for c in exported(LIBRARY[path]) if not only_imports(c)}
    assert {i: n for i, n in sizes.items() if n > LONGER.get(i, LONGEST)} == {}

@each(TUTORIALS)
def test_a_tutorial_opens_in_colab(path):
    cells = TUTORIALS[path]['cells']
    user_repo = CFG['git_url'].removeprefix('https://github.com/')
    link = f"https://colab.research.google.com/github/{user_repo}/blob/{CFG['branch']}/{path}"
    badge = f'[![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)]({link})'
    assert any(badge in text(c['source']) for c in cells[:3]), f'missing in the first cells: {badge}'
    assert any({'hide', 'eval: false'} <= set(directives(c)) and 'pip install' in text(c['source']) for c in cells if c['cell_type'] == 'code')
