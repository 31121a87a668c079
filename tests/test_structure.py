"""The rules of the house that no notebook can check: what is exported, in which order, how long, how named."""
import ast
import builtins
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import house
import pytest
from house import BASICS, BIN, CFG, FOLDERS, HOME, LIBRARY, MODULES, NOTEBOOKS, ROOMS, ROOT, TEXTS, TREES, TUTORIALS

BY_HAND = {'kdnb', 'kdnb.all', *(f'kdnb.{room}' for room in ROOMS)}
ORDER = ['basics', *ROOMS]
STATEMENTS = 15                     # in a function's body; more is asked for here: {'kdnb.train.loop.Learner.fit': 20}
LONGER: dict[str, int] = {}
CELL = 30                           # code lines of an exported cell without a class; the middle one has at most 15

def each(paths): return pytest.mark.parametrize('path', list(paths))

# --- exported code and notebooks are one thing

def sources(root: Path) -> dict[str, bytes]:
    files = [p for d in ('kdnb', 'nbs') for p in (root/d).rglob('*') if p.suffix in ('.py', '.ipynb')]
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in files if '.ipynb_checkpoints' not in p.parts}

def test_exporting_again_changes_nothing(tmp_path):
    there = tmp_path/'kdnb'
    ignored = shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints')
    for d in ('kdnb', 'nbs'): shutil.copytree(ROOT/d, there/d, ignore=ignored)
    shutil.copy(ROOT/'settings.ini', there)
    for p in (there/'kdnb').rglob('*.py'):      # what no notebook exports is not written again
        if house.module_name(ROOT/p.relative_to(there)) not in BY_HAND: p.unlink()
    env = {k: v for k, v in os.environ.items() if k != 'IN_TEST'}
    for tool in ('nbdev_clean', 'nbdev_export'):
        subprocess.run([BIN/tool], cwd=there, env=env, check=True, capture_output=True, timeout=180)
    before, after = sources(ROOT), sources(there)
    assert sorted(before) == sorted(after), 'a module without a notebook, or one never exported: run `make export`'
    assert [p for p in before if before[p] != after[p]] == [], 'run `make export` and look at the difference'

def test_one_notebook_one_module():
    assert [p for p, nb in LIBRARY.items() if not house.module_of(nb)] == [], 'it begins with `#| default_exp`'
    assert len(HOME) == len(LIBRARY), 'two notebooks export to one module'

def test_folders_of_notebooks_mirror_packages():
    place = re.compile(r'nbs/(\d\d_\w+)/\d\d[a-z]?_(\w+)\.ipynb')
    wrong = {}
    for module, path in HOME.items():
        found = place.fullmatch(path)
        room = FOLDERS.get(found[1]) if found else None
        wanted = None if not room else f'kdnb.{found[2]}' if room == 'basics' else f'kdnb.{room}.{found[2]}'
        if module != wanted: wrong[path] = module
    assert wrong == {}, f'nbs/NN_room/MM_name.ipynb exports room.name; the folders are {list(FOLDERS)}'

def test_a_number_stands_once_in_its_folder():
    numbers = [p.rpartition('/')[0] + '/' + Path(p).name.partition('_')[0] for p in LIBRARY]
    assert sorted(set(numbers)) == sorted(numbers)

def test_modules_stand_in_rooms():
    tops = {m.split('.')[1] for m in MODULES if m != 'kdnb'}
    assert tops - {'all'} == {*BASICS, *ROOMS}
    assert [m for m in MODULES if m not in BY_HAND and m not in HOME] == [], 'no notebook exports it'

def test_notebooks_outside_the_library_export_nothing():
    assert [p for p in NOTEBOOKS if p not in LIBRARY and house.exported(NOTEBOOKS[p])] == []

# --- order: what is read later may use what was read before, never the other way round

def from_where(module: str, node: ast.ImportFrom) -> str:
    """The module that `from ... import` reads, as an absolute name."""
    if not node.level: return node.module or ''
    parts = module.split('.')
    package = parts if MODULES[module].name == '__init__.py' else parts[:-1]
    return '.'.join([*package[:len(package) + 1 - node.level], *filter(None, [node.module])])

def kdnb_imports(module: str) -> Iterator[tuple[str, str | None]]:
    """What a module imports of kdnb, wherever in its code: (module, name), the name None for a module."""
    for node in ast.walk(TREES[module]):
        names = node.names if isinstance(node, ast.Import) else []
        yield from ((a.name, None) for a in names if a.name.split('.')[0] == 'kdnb')
        if not isinstance(node, ast.ImportFrom): continue
        base = from_where(module, node)
        for a in node.names if base.split('.')[0] == 'kdnb' else []:
            whole = f'{base}.{a.name}'
            yield (whole, None) if whole in MODULES else (base, a.name)

def allowed(module: str) -> set[str]:
    """What a module may import: of its own room what was read before, of the rooms above it the package."""
    room = house.room_of(module)
    before = {m for m, p in HOME.items() if house.room_of(m) == room and p < HOME[module]}
    above = {f'kdnb.{name}' for name in ORDER[1:ORDER.index(room)]}
    return before | above | ({f'kdnb.{name}' for name in BASICS} if room != 'basics' else set()) | {'kdnb'}

@pytest.mark.parametrize('module', list(HOME))
def test_imports_point_upwards(module):
    wrong = {m for m, _ in kdnb_imports(module)} - allowed(module)
    assert wrong == set(), 'inside a room import lower-numbered modules; from rooms above, import the package'

def test_no_private_name_crosses_a_module():
    crossing = [(m, f'{base}.{n}') for m in MODULES for base, n in kdnb_imports(m) if n and n[0] == '_' and n[1] != '_']
    for m in MODULES:
        modules = {a.asname or a.name for n in ast.walk(TREES[m]) if isinstance(n, ast.ImportFrom) for a in n.names
                   if f'{from_where(m, n)}.{a.name}' in MODULES}
        reads = [n for n in ast.walk(TREES[m]) if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)]
        crossing += [(m, f'{n.value.id}.{n.attr}') for n in reads if n.value.id in modules and n.attr[0] == '_']
    assert crossing == []

def test_star_imports_stand_in_packages_only():
    stars = {m for m in MODULES for n in ast.walk(TREES[m]) if isinstance(n, ast.ImportFrom) and n.names[0].name == '*'}
    assert [m for m in stars if MODULES[m].name not in ('__init__.py', 'all.py')] == []

@pytest.mark.parametrize('room', ROOMS)
def test_a_package_hands_on_its_modules(room):
    imports = [n for n in TREES[f'kdnb.{room}'].body if isinstance(n, ast.ImportFrom) and n.level == 1]
    named = [name for n in imports for name in ([n.module] if n.module else [a.name for a in n.names])]
    assert sorted({f'kdnb.{room}.{name}' for name in named}) == sorted(m for m in HOME if house.room_of(m) == room)

def test_all_names_what_it_imports_in_reading_order():
    imports = [n for n in TREES['kdnb.all'].body if isinstance(n, ast.ImportFrom)]
    rooms = [house.room_of(n.module) for n in imports]
    assert [a.name for n in imports for a in n.names if a.name == '*'] == [], 'kdnb/all.py is an explicit list'
    assert [n.module for n in imports if n.module.count('.') > 1] == [], 'from a package, not from its modules'
    assert rooms == sorted(rooms, key=ORDER.index)

# --- names

def test_no_public_name_twice_in_a_room():
    where: dict[tuple[str, str], list[str]] = {}
    for m in HOME:
        for n in house.public(m): where.setdefault((house.room_of(m), n), []).append(m)
    assert {n: ms for n, ms in where.items() if len(ms) > 1} == {}

def private_names(module: str) -> set[str]:
    """The private names that a module defines at its top."""
    names = set()
    for node in TREES[module].body:
        if isinstance(node, (house.Function, ast.ClassDef)): names.add(node.name)
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    return {n for n in names if n[0] == '_' and not n.startswith('__') and n != '_'}

def test_a_private_name_has_one_meaning():
    where: dict[str, list[str]] = {}
    for m in MODULES:
        for n in private_names(m): where.setdefault(n, []).append(m)
    assert {n: ms for n, ms in where.items() if len(ms) > 1} == {}

def test_nothing_shadows_a_module():
    folders = [ROOT/'kdnb'/room for room in ROOMS]
    assert [p.name for p in folders if p.with_suffix('.py').exists()] == [], 'x.py beside x/'
    assert [p.name for p in folders if not (p/'__init__.py').exists()] == [], 'a folder of modules needs an __init__.py'
    children = {m.rpartition('.')[2] for m in MODULES if m.count('.') == 1}
    assert [n for n in ALL if n in children] == [], 'kdnb.NAME would be the module or the name, by chance'
    beside = {room: {m.rpartition('.')[2] for m in HOME if house.room_of(m) == room} for room in ORDER}
    hidden = [(m, n) for m in HOME for n in house.public(m) if n in beside[house.room_of(m)]]
    assert hidden == [], 'the same inside a package'

ALL = [a.asname or a.name for n in TREES['kdnb.all'].body if isinstance(n, ast.ImportFrom) for a in n.names]

CONTRACT = '''
load_data Data resnet wrn plainnet shufflenetv2 mobilenetv2 vgg grow shrink reducenet cheapen cheapnet fuse create_model
list_models save_model load_model find_taps Tapped tail kd_loss hint_loss attention_map at_loss ofd_margin ofd_loss
nst_loss sp_loss similarity_matrix rkd_distance_loss rkd_angle_loss dkd_loss dist_loss standardize_logits wttm_loss
pkt_loss Term CE KD FitNet AT NST RKD SP OFD DKD DIST parse_method Alone Distill JointRD Online weigh Learner compare
show_batch show_attention show_similarity show_history show_logits show_cka show_tradeoff show_grid show_film profile
sweep load_results seeded'''.split()

COMMON = '''
about accuracies add after apply base before block call cat check choose clear close compute config copy count
cut data debug default diff difference differences end epoch error eval fail fields file fill find first fit
flatten format gather get group groups head helper images index info init items iter join joined key keys label
last layer leave length level line lines list load log loss make mean measure merge method model name names net
node note open option options output pad params parse part path pick pixels plot pool print queue rank read
record rise row run save score seed select send shape show size sort sort_by source split spread stage start
state step steps stop store student sum swap table take tap teacher test text time title train unknown unpack
until update use value values view wait weight when width words write
'''.split()

def test_all_has_what_a_person_types_and_nothing_that_shadows():
    assert len(ALL) == len(set(ALL)) <= 130
    assert [n for n in CONTRACT if n not in ALL] == [], 'names of the contract'
    others = set(ALL) - set(CONTRACT)
    libraries = 'torch torchvision numpy matplotlib plt np nn F'.split()
    shadowed = {*COMMON, *dir(builtins), *sys.stdlib_module_names, *libraries}
    assert sorted(others & shadowed) == []

def test_tab_offers_the_names_the_packages_and_nothing_else():
    wanted = sorted({*ALL, *ROOMS, *BASICS, '__version__'})
    assert house.fresh('import json, kdnb; print(json.dumps(sorted(dir(kdnb))))') == wanted

def test_names_are_found_when_asked_for():
    assert house.fresh('''if 1:
        import json, kdnb
        module = kdnb.taps.__name__
        try: kdnb.no_such_name
        except AttributeError as e: missing = str(e)
        count = sum(p.numel() for p in kdnb.resnet(20).parameters())
        print(json.dumps([module, count, 'resnet' in dir(kdnb), 'no_such_name' in missing]))''') == \
        ['kdnb.taps', 272474, True, True]

def test_every_name_that_code_reads_is_there():
    "A name that only a notebook's hidden cell imports is found by the notebook and missed by the module."
    paths = json.dumps({m: str(MODULES[m]) for m in HOME})
    assert house.fresh(f'paths = {paths}\n' + '''if 1:
        import builtins, dis, importlib, json, types
        def read(code):
            for i in dis.get_instructions(code):
                if i.opname == 'LOAD_GLOBAL': yield i.argval
            for c in code.co_consts:
                if isinstance(c, types.CodeType): yield from read(c)
        bad = []
        for name, path in paths.items():
            module = importlib.import_module(name)
            with open(path, encoding='utf-8') as f: code = compile(f.read(), path, 'exec')
            missing = {n for n in read(code) if not hasattr(module, n) and not hasattr(builtins, n)}
            bad += [f'{name}: {n}' for n in sorted(missing)]
        print(json.dumps(bad))''') == []

def test_no_dustbins():
    dull = re.compile(r'^(\d+[a-z]?_)?(utils?|helpers?|core|base|misc|common|old)(\.|$)|\.(utils?|core|base)\.')
    found = [p for d in ('nbs', *house.SOURCES) for p in (ROOT/d).rglob('*') if house.ours(p)]
    assert [house.rel(p) for p in found if '__pycache__' not in p.parts and dull.search(p.name)] == []

def test_the_version_is_told_once():
    assert house.fresh('import json, kdnb; print(json.dumps(kdnb.__version__))') == CFG['version']

# --- imports

EXTRAS = [k for k in CFG if k.endswith('requirements') and not k.startswith(('dev_', 'docs_'))]
IMPORTED_AS = {'scikit-learn': 'sklearn', 'pillow': 'PIL'}

@pytest.mark.parametrize('module', list(MODULES))
def test_imports_are_declared(module):
    words = {re.match(r'[\w-]+', r)[0] for k in EXTRAS for r in CFG[k].split()}
    declared = {IMPORTED_AS.get(w, w) for w in words}
    tops = {a.name.split('.')[0] for n in ast.walk(TREES[module]) if isinstance(n, ast.Import) for a in n.names}
    froms = [n for n in ast.walk(TREES[module]) if isinstance(n, ast.ImportFrom) and not n.level]
    tops |= {n.module.split('.')[0] for n in froms}
    found_where_it_is = {'kdnb', 'IPython', 'pandas'}        # IPython: where a notebook is; pandas: where a user has it
    assert tops - sys.stdlib_module_names - declared - found_where_it_is == set()

def test_importing_kdnb_alone_is_light():
    heavy = '{"torch", "torchvision", "matplotlib", "numpy", "nbdev", "fastcore"}'
    assert house.fresh(f'import sys, json, kdnb; print(json.dumps(sorted({heavy} & set(sys.modules))))') == []

LATER = 'matplotlib sklearn scipy PIL fastprogress pandas IPython tensorboard timm'.split()
LIGHT = '''
import json, sys, time
import torch, torchvision
before, began = set(sys.modules), time.process_time()
import kdnb.all
print(json.dumps([time.process_time() - began, sorted(set(sys.modules) - before)]))'''

def test_importing_everything_is_light():
    """The processor's time inside a process that has torch; the first try leaves bytecode, as an install does."""
    for _ in range(5):
        seconds, modules = house.fresh(LIGHT, PYTHONDONTWRITEBYTECODE='')
        if seconds <= .5: break
    assert sorted({m for m in modules if m in LATER}) == [], 'import it where it is used'
    assert seconds <= .5, f'{seconds:.2f} s of processor time beyond torch and torchvision'

TRAINING = '''
import json, sys
from kdnb.all import *
data = load_data('digits', size=8, n_train=60, bs=20, device='cpu')
Learner(Distill(resnet(8), resnet(14), 'kd+at', size=8), data, cbs=None).fit(1)
print(json.dumps(sorted(sys.modules)))'''

def test_who_compiles_nothing_loads_no_compiler():
    """The compiler's import takes seconds."""
    assert 'torch._inductor.compile_fx' not in house.fresh(TRAINING)

def test_importing_a_module_has_no_effect():
    "No assignment to an attribute where a module is imported: classes are whole, and other modules stay as they are."
    wrong = []
    for m in [m for m, p in MODULES.items() if p.name != '__init__.py' and m != 'kdnb.errors']:    # its own logger
        for s in house.statements(TREES[m]):
            targets = s.targets if isinstance(s, (ast.Assign, ast.Delete)) else [getattr(s, 'target', None)]
            flat = [t for target in targets if target for t in ast.walk(target)]
            stored = [t for t in flat if isinstance(getattr(t, 'ctx', None), (ast.Store, ast.Del))]
            if any(isinstance(t, ast.Attribute) for t in stored): wrong.append((m, s.lineno))
    assert wrong == [], '`Class.name = ...`: methods stand in the class body, registries are filled by decorators'

# --- lines and statements: what ruff has no rule for

def held() -> dict[str, str]:
    """The sources that the rules of lines hold for."""
    return {house.rel(p): p.read_text(encoding='utf-8') for p in house.scripts(*house.SOURCES)}

HELD = held()
LIBRARY_AND_TOOLS = {p: s for p, s in HELD.items() if not p.startswith('tests/')}     # the stricter ones

def found(sources: dict[str, str], wrong) -> list[str]:
    """Where a rule is broken: `wrong` says so of a node, its parent, and the lines of the source."""
    places = []
    for path, source in sources.items():
        lines = source.split('\n')
        for parent in ast.walk(ast.parse(source)):
            for node in ast.iter_child_nodes(parent):
                if wrong(node, parent, lines): places.append(f'{path}:{node.lineno}')
    return places

def test_no_line_is_over_120():
    long = [f'{p}:{n}' for p, s in HELD.items() for n, line in enumerate(s.split('\n'), 1) if len(line) > 120]
    cells = [(p, c['id'], house.text(c['source'])) for p, nb in LIBRARY.items() for c in house.exported(nb)]
    long += [f'{p}#{i}' for p, i, s in cells if max(map(len, s.split('\n'))) > 120]
    assert long == []

def shares_a_line(node: ast.AST, parent: ast.AST, lines: list[str]) -> bool:
    """Tell whether a statement shares its line without being a guard, or the one expression of a definition."""
    if not isinstance(node, ast.stmt) or not lines[node.lineno - 1].encode()[:node.col_offset].strip(): return False
    if isinstance(node, (ast.Raise, ast.Return, ast.Continue, ast.Break)):
        return not isinstance(parent, (ast.If, ast.ExceptHandler, house.Function))
    if isinstance(parent, house.Function): return not isinstance(node, (ast.Expr, ast.Pass)) or len(parent.body) > 1
    told = isinstance(node, ast.Pass) or isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return not (isinstance(parent, ast.ClassDef) and told)

def test_one_statement_a_line():
    assert found(LIBRARY_AND_TOOLS, shares_a_line) == []

def names_a_lambda(node: ast.AST, *_) -> bool:
    if not isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr)) or not node.value: return False
    values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
    return any(isinstance(v, ast.Lambda) for v in values)

def test_no_lambda_has_a_name():
    assert found(LIBRARY_AND_TOOLS, names_a_lambda) == []

def is_for_its_effect(node: ast.AST, *_) -> bool:
    return isinstance(node, ast.Expr) and not isinstance(
        node.value, (ast.Call, ast.Await, ast.Yield, ast.YieldFrom, ast.Constant))

def test_no_expression_for_its_effect():
    assert found(LIBRARY_AND_TOOLS, is_for_its_effect) == []

def is_condition(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in ('bool', 'isinstance', 'issubclass', 'any', 'all', 'hasattr', 'callable')
    return isinstance(node, (ast.Compare, ast.BoolOp)) or isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)

def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or isinstance(node, ast.Constant) and isinstance(node.value, str)

def multiplies_text(node: ast.AST, *_) -> bool:
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Mult): return False
    pairs = (node.left, node.right), (node.right, node.left)
    return any(is_text(a) and is_condition(b) for a, b in pairs)

def test_no_text_times_a_condition():
    assert found(LIBRARY_AND_TOOLS, multiplies_text) == []

IGNORE = re.compile(r'#\s*(type:\s*ignore|pyright:|noqa|ruff:|mypy:|numpydoc ignore)')
REASON = re.compile(r'# (type: ignore\[[\w, -]+\]|pyright: ignore\[[\w, -]+\]|noqa: [A-Z]+\d+)[,;:. -]+\w.{9,}')

def test_the_tools_are_not_silenced():
    ignores = {f'{p}:{n}': c for p, s in HELD.items() for n, c in house.comments(s) if IGNORE.search(c)}
    assert {p: c for p, c in ignores.items() if not REASON.search(c)} == {}, '# noqa: RULE, and the reason'
    assert len(ignores) <= 20

# --- sizes

def named_functions(module: str) -> Iterator[tuple[str, house.Function]]:
    """The functions of a module with their dotted names, those inside functions and classes too."""
    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, house.Function]]:
        for child in ast.iter_child_nodes(node):
            name = f'{prefix}.{child.name}' if isinstance(child, (house.Function, ast.ClassDef)) else prefix
            if isinstance(child, house.Function): yield name, child
            yield from walk(child, name)
    return walk(TREES[module], module)

def test_functions_have_few_statements():
    counts = {name: len([*house.statements(f)]) for m in MODULES for name, f in named_functions(m)}
    assert {name: n for name, n in counts.items() if n > LONGER.get(name, STATEMENTS)} == {}
    assert [name for name in LONGER if counts.get(name, 0) <= STATEMENTS] == [], 'no longer needed'

CODE = {m: house.code_lines(s) for m, s in TEXTS.items()}

def test_the_wheel_is_small():
    assert {m: len(lines) for m, lines in CODE.items() if len(lines) > 400} == {}
    assert sum(map(len, CODE.values())) <= 16_640      # why: see CONTRIBUTING

def test_functions_are_short():
    sizes = sorted(len(CODE[m] & {*range(f.lineno, f.end_lineno + 1)}) for m in MODULES for _, f in named_functions(m))
    assert (statistics.median(sizes) <= 6, sizes[int(.9*len(sizes))] <= 14) == (True, True)

def cell_sizes() -> dict[str, int]:
    """The code lines of exported cells that are neither imports nor hold a class."""
    sizes = {}
    for path, nb in LIBRARY.items():
        for c in house.exported(nb):
            tree = ast.parse(house.text(c['source']))
            if any(isinstance(n, ast.ClassDef) for n in tree.body): continue
            if all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in tree.body): continue
            sizes[f"{path}#{c['id']}"] = len(house.code_lines(house.text(c['source'])))
    return sizes

def test_exported_cells_are_short():
    sizes = cell_sizes()
    assert {i: n for i, n in sizes.items() if n > CELL} == {}
    assert statistics.median(sizes.values()) <= 15

# --- how a notebook looks

@each(NOTEBOOKS)
def test_title_and_one_sentence(path):
    first = NOTEBOOKS[path]['cells'][0]
    assert first['cell_type'] == 'markdown'
    title, blank, *rest = house.text(first['source']).split('\n')
    end = next((i for i, line in enumerate(rest) if not line.startswith('> ')), None)
    quote = ' '.join(line[2:] for line in rest[:end])
    starts = re.match(r'# \S', title) and blank == '' and quote
    assert starts, 'a notebook starts with `# Title`, an empty line, `> one sentence.`'
    assert re.search(r'[.?!]$', quote) and not re.search(r'[.?!]\s+[A-Z]', quote), f'one sentence: {quote}'

@each(LIBRARY)
def test_the_last_section_says_what_is_left_out(path):
    prose = '\n'.join(house.text(c['source']) for c in LIBRARY[path]['cells'] if c['cell_type'] == 'markdown')
    assert re.findall(r'^## .*$', prose, re.M)[-1:] == ['## What we left out']

@each(LIBRARY)
def test_words_that_are_not_used(path):
    prose = [(c['id'], house.text(c['source'])) for c in NOTEBOOKS[path]['cells'] if c['cell_type'] == 'markdown']
    wrong = re.compile(r'\b([Ff]loors?|[Nn]obody|[Ww]hoever)\b(?!\()')
    assert [(i, wrong.search(s)[0]) for i, s in prose if wrong.search(s)] == []

@each(NOTEBOOKS)
def test_cell_ids_are_words(path):
    ids = [c['id'] for c in NOTEBOOKS[path]['cells']]
    assert len(ids) == len(set(ids))
    random = re.compile(r'(?=.*\d)[0-9a-f]{8}|[0-9a-f]{8}-[0-9a-f]{4}-.*')
    assert [i for i in ids if not re.fullmatch('[a-z0-9]+(-[a-z0-9]+)*', i) or random.fullmatch(i)] == []

def outputs(nb: dict) -> list[tuple[str, dict]]: return [(c['id'], o) for c in house.code(nb) for o in c['outputs']]

def words(out: dict) -> Iterator[str]:
    """All that is text in an output."""
    yield house.text(out.get('text', ''))
    yield '\n'.join(out.get('traceback', []))
    yield from (house.text(v) for k, v in out.get('data', {}).items() if k.startswith('text/') or k == 'image/svg+xml')

@each(NOTEBOOKS)
def test_outputs_hold_no_error_and_no_path(path):
    all_outputs = outputs(NOTEBOOKS[path])
    raised = 'Traceback (most recent call last)'
    errors = [i for i, o in all_outputs if o['output_type'] == 'error' or any(raised in w for w in words(o))]
    folders = r'(?<![\w.])/(home|root|work|tmp|Users|content|var|opt|mnt|usr)/'
    private = re.compile(folders + r'|\b[A-Z]:\\|site-packages|\.venv/')
    paths = [(i, private.search(w)[0]) for i, o in all_outputs for w in words(o) if private.search(w)]
    assert (errors, paths) == ([], [])

PICTURES = 'nbs/11_show/'           # the folder of pictures

@each(NOTEBOOKS)
def test_size(path):
    limit = 320 if path.startswith(PICTURES) else 96 if path in LIBRARY else 300
    assert (ROOT/path).stat().st_size <= limit * 1024, f'{path} is over {limit} KB: fewer or smaller figures'

@each(TUTORIALS)
def test_a_tutorial_opens_in_colab(path):
    cells = TUTORIALS[path]['cells']
    user_repo = CFG['git_url'].removeprefix('https://github.com/')
    link = f"https://colab.research.google.com/github/{user_repo}/blob/{CFG['branch']}/{path}"
    badge = f'[![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)]({link})'
    assert any(badge in house.text(c['source']) for c in cells[:3]), f'missing in the first cells: {badge}'
    hidden = [c for c in house.code({'cells': cells}) if {'hide', 'eval: false'} <= set(house.directives(c))]
    assert any('pip install' in house.text(c['source']) for c in hidden)
