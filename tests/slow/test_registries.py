"""One new notebook adds a method, a model, a data set, a callback, a column or a system; no other file changes."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

NEW = {
    'nbs/01_systems/90_lab.ipynb': ('systems.lab', '''
from kdnb.systems.system import Loading, Preset, Recipe, System, add_system

add_system(System(
    name='lab', title='Our own lab', recipes={'lab': Recipe(epochs=3, lr=.02, wd=1e-4)},
    loading={'lab': Loading(bs=15)}, weights={'kd': 'ce(.5)+kd(.5)'},
    presets=(Preset(name='lab', title='two small nets', data='digits', recipe='lab', methods={'kd': 'kd'},
                    pairs=(('resnet14', 'resnet8'),), weights='lab'),)))
'''),
    'nbs/03_data/90_stripes.ipynb': ('data.stripes', '''
import torch

from kdnb.data.sources import source

@source('stripes')
def load_stripes(root):
    "Stripes across, and stripes down."
    x = torch.zeros(40, 3, 8, 8, dtype=torch.uint8)
    x[::2, :, ::2], x[1::2, :, :, ::2] = 255, 255
    y = torch.arange(40) % 2
    return (x[:30], y[:30]), None, (x[30:], y[30:]), ['across', 'down']
'''),
    'nbs/04_models/90_tiny.ipynb': ('models.tiny', '''
from torch import nn

from kdnb.models.registry import model

@model
def tinynet(num_classes: int = 10) -> nn.Module:
    "One convolution and a classifier."
    head = nn.Linear(4, num_classes)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
'''),
    'nbs/08_methods/90_gap.ipynb': ('methods.gap', '''
from kdnb.methods.term import Term, method

def gap_loss(s, t): return (s - t).abs().mean()

@method('gap')
class Gap(Term):
    "Mean absolute difference of the logits."
    def __init__(self, weight: float = 1.):
        super().__init__(gap_loss, weight, taps=None, name='gap')
'''),
    'nbs/12_callbacks/90_count.ipynb': ('callbacks.count', '''
from kdnb.callbacks.registry import callback
from kdnb.train import Callback

@callback('count')
class Count(Callback):
    "Count the epochs."
    seen = 0
    def after_epoch(self, learn): Count.seen += 1
'''),
    'nbs/13_experiments/90_speedy.ipynb': ('experiments.speedy', '''
from kdnb.experiments.table import column

@column('runs in all')
def count_runs(line, block): return len(line['rows'])
'''),
}
TRY = '''
import json
from kdnb.all import *
import kdnb
from kdnb.callbacks import Count, create_callback
from kdnb.systems import find_preset, find_recipe, method_weights

data = load_data('stripes', valid=0, device='cpu', recipe='lab')
teacher = Learner(create_model('tinynet', 2), data, recipe='lab', run='teacher', cbs=None).fit(1)
taught = Learner(Distill(create_model('tinynet', 2), teacher, 'gap', size=8), data, recipe='lab', run='taught',
                 cbs=[create_callback('count')]).fit(2)
table = load_results(['taught']).table()
forms = table.text, table.html, table.markdown, table.latex, table.csv
print()
print(json.dumps(dict(
    bs=data.bs, model='tinynet' in list_models('*'), losses=sorted(set(taught.history[0]) & {'ce', 'gap'}),
    epochs=Count.seen, column=['runs in all' in made() for made in forms],
    recipe=find_recipe('lab').epochs, preset=find_preset('lab').title, weights=method_weights['lab'],
    package=[kdnb.methods.Gap.__name__, kdnb.models.tinynet.__name__])))
'''

def notebook(module: str, code: str) -> dict:
    sources = {'title': f'# {module}\n\n> A notebook of the test.', 'default-exp': f'#| default_exp {module}',
               'code': f'#| export\n{code.strip()}'}
    cells = [dict(cell_type='markdown' if i == 'title' else 'code', id=i, metadata={}, source=s.splitlines(True))
             for i, s in sources.items()]
    for c in cells[1:]: c |= dict(execution_count=None, outputs=[])
    return dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)

@pytest.fixture(scope='module')
def extended(tmp_path_factory) -> Path:
    "A copy of the package with six more notebooks, exported."
    root = tmp_path_factory.mktemp('kdnb')
    for folder in ('kdnb', 'nbs'):
        shutil.copytree(ROOT/folder, root/folder, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'))
    shutil.copy(ROOT/'settings.ini', root)
    for path, (module, code) in NEW.items(): (root/path).write_text(json.dumps(notebook(module, code)))
    env = {k: v for k, v in os.environ.items() if k != 'IN_TEST'}
    subprocess.run([BIN/'nbdev_export'], cwd=root, env=env, check=True, capture_output=True, timeout=300)
    return root

def test_no_other_file_changes(extended):
    new = {f"kdnb/{module.replace('.', '/')}.py" for module, _ in NEW.values()}
    there = {p.relative_to(extended).as_posix(): p.read_bytes() for p in (extended/'kdnb').rglob('*.py')}
    here = {p.relative_to(ROOT).as_posix(): p.read_bytes() for p in (ROOT/'kdnb').rglob('*.py')}
    assert set(there) - set(here) == new
    assert [p for p in here if p != 'kdnb/_modidx.py' and there[p] != here[p]] == []

def run(program: str, extended: Path, folder: Path) -> subprocess.CompletedProcess:
    "Run a program with the extended package, in a folder of its own."
    own = dict(PYTHONPATH=str(extended), KDNB_RUNS=str(folder), OMP_NUM_THREADS='1', MPLBACKEND='Agg', COLUMNS='1000')
    return subprocess.run([sys.executable, '-c', program], cwd=folder, env=os.environ | own, capture_output=True,
                          text=True, timeout=300)

def test_each_is_found_by_its_name(extended, tmp_path):
    done = run(TRY, extended, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == dict(
        bs=15, model=True, losses=['ce', 'gap'], epochs=2, column=[True]*5, recipe=3, preset='two small nets',
        weights={'kd': 'ce(.5)+kd(.5)'}, package=['Gap', 'tinynet'])

@pytest.mark.parametrize('command, words', [
    ('kdnb_train', ['stripes', 'gap', 'lab', 'count']), ('kdnb_sweep', ['stripes', 'lab'])])
def test_the_commands_help_lists_them(extended, tmp_path, command, words):
    done = run(f'import kdnb.cli as c; c.{command}(["-h"])', extended, tmp_path)
    assert [w for w in words if w not in done.stdout] == [], done.stderr[-2000:]
