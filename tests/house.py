"""What several files of tests know of the house: where its rooms, notebooks and modules are, and how to read them."""
import ast
import io
import json
import os
import re
import subprocess
import sys
import time
import tokenize
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
_config = ConfigParser(delimiters=['='], interpolation=None)
_config.read(ROOT/'settings.ini', encoding='utf-8')
CFG = _config['DEFAULT']

BASICS = ['board', 'errors', 'files', 'seeds', 'text']       # modules of kdnb, in nbs/00_basics
ROOMS = ['systems', 'parallel', 'data', 'models', 'taps', 'measure', 'losses', 'methods', 'schemes', 'train', 'show',
         'callbacks', 'experiments', 'deploy', 'cli']
FOLDERS = {f'{i:02}_{room}': room for i, room in enumerate(['basics', *ROOMS])}
SOURCES = 'kdnb', 'tests', 'bench', 'docs'

def rel(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()

def ours(path: Path) -> bool:
    """Tell whether no part of a path begins with `.` or `_`."""
    return not any(part[0] in '._' for part in path.relative_to(ROOT).parts)

def module_name(path: Path) -> str:
    return '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')

def text(source: str | list[str]) -> str: return ''.join(source)
def code(nb: dict) -> list[dict]: return [c for c in nb['cells'] if c['cell_type'] == 'code']
def directives(cell: dict) -> list[str]: return re.findall(r'^#\|\s*(.+?)\s*$', text(cell['source']), re.M)

def exported(nb: dict) -> list[dict]:
    return [c for c in code(nb) if any(d.split()[0] in ('export', 'exporti', 'exports') for d in directives(c))]

def module_of(nb: dict) -> str | None:
    """The module that a notebook exports to, `kdnb.room.name`, or None."""
    names = [d.split()[1] for c in code(nb) for d in directives(c) if d.startswith('default_exp')]
    return f'kdnb.{names[0]}' if names else None

def read_notebook(path: Path) -> dict: return json.loads(path.read_text(encoding='utf-8'))

NOTEBOOKS = {rel(p): read_notebook(p) for p in sorted((ROOT/'nbs').rglob('*.ipynb')) if ours(p)}
TUTORIALS = {p: nb for p, nb in NOTEBOOKS.items() if p.startswith('nbs/tutorials/')}
LIBRARY = {p: nb for p, nb in NOTEBOOKS.items() if p not in TUTORIALS and p != 'nbs/index.ipynb'}
MODULES = {module_name(p): p for p in sorted((ROOT/'kdnb').rglob('*.py')) if p.name != '_modidx.py'}
HOME = {module_of(nb): p for p, nb in LIBRARY.items() if module_of(nb)}     # module: its notebook, in reading order
TEXTS = {m: p.read_text(encoding='utf-8') for m, p in MODULES.items()}
TREES = {m: ast.parse(source) for m, source in TEXTS.items()}

def room_of(module: str) -> str:
    """The room of a module or package; that of kdnb.errors and its neighbours is 'basics'."""
    parts = module.split('.')
    return 'basics' if len(parts) == 1 or parts[1] in BASICS else parts[1]

def public(module: str) -> list[str]:
    """What nbdev wrote into a module's `__all__`."""
    for node in TREES[module].body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == '__all__':
            return ast.literal_eval(node.value)
    return []

def scripts(*folders: str) -> list[Path]:
    """List the Python files of folders of the checkout, without what nbdev writes."""
    found = [p for d in folders for p in sorted((ROOT/d).rglob('*.py'))]
    return [p for p in found if p.name != '_modidx.py' and '.ipynb_checkpoints' not in p.parts]

def fresh(program: str, folder: Path = ROOT/'tests', **env: str):
    """Run a program in a new Python that knows this checkout and no other; returns what its last line says, as JSON."""
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'MPLBACKEND': 'Agg', 'OMP_NUM_THREADS': '1', **env}
    command = [sys.executable, '-c', program]
    res = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=180)
    assert res.returncode == 0, res.stdout[-2000:] + res.stderr[-4000:]
    return json.loads(res.stdout.splitlines()[-1])

def run_ranks(file: str, folder: Path, count: int, limit: float = 240) -> None:
    """Run a file of tests as `count` processes, each told the folder and its number; all must end within `limit` s."""
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'MPLBACKEND': 'Agg'}
    commands = [[sys.executable, file, str(folder), str(r)] for r in range(count)]
    both = [subprocess.Popen(c, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for c in commands]
    try:
        said, end = [], time.monotonic() + limit
        for p in both: said.append(p.communicate(timeout=max(1, end - time.monotonic()))[0])
    finally:
        for p in both: p.kill()
    assert [p.returncode for p in both] == [0]*count, '\n'.join(said)

Function = ast.FunctionDef | ast.AsyncFunctionDef

def docstring_of(node: ast.AST) -> ast.Expr | None:
    """The statement that is a docstring, of a module, a class or a function."""
    if not isinstance(node, (ast.Module, ast.ClassDef, Function)) or not node.body: return None
    first = node.body[0]
    value = first.value if isinstance(first, ast.Expr) else None
    return first if isinstance(value, ast.Constant) and isinstance(value.value, str) else None

def code_lines(source: str) -> set[int]:
    """The numbers of the lines that hold code: no docstring, comment or blank line."""
    nothing = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in nothing: lines |= set(range(token.start[0], token.end[0] + 1))
    return lines - docstring_lines(source)

def docstring_lines(source: str) -> set[int]:
    """The numbers of the lines that hold nothing but a docstring."""
    lines = source.split('\n')
    docs = [d for node in ast.walk(ast.parse(source)) if (d := docstring_of(node))]
    alone = [d for d in docs if not lines[d.lineno - 1].encode()[:d.col_offset].strip()]
    return {n for d in alone for n in range(d.lineno, d.end_lineno + 1)}

def functions(tree: ast.AST) -> list[Function]: return [n for n in ast.walk(tree) if isinstance(n, Function)]

def statements(node: ast.AST) -> Iterator[ast.stmt]:
    """The statements inside a function, class or module; those of functions and classes inside it are their own."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt) and child is not docstring_of(node): yield child
        if not isinstance(child, (Function, ast.ClassDef, ast.expr)): yield from statements(child)

def comments(source: str) -> Iterator[tuple[int, str]]:
    """The comments of a source, with the numbers of their lines."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT: yield token.start[0], token.string
