"""What a stranger's files name is never imported nor called; a name that you type is looked at before it is called."""

import json
import shutil

import pytest
import torch

from kdnb.cli import kdnb_train
from kdnb.data import load_data
from kdnb.models import create_model, load_model, resnet
from kdnb.schemes import Distill
from kdnb.train import Learner, Run

pytestmark = pytest.mark.usefixtures('quiet')
DATA = ['--data', 'digits', '--size', '8', '--n-train', '60', '--bs', '20', '--device', 'cpu', '--epochs', '1']


@pytest.fixture
def code(monkeypatch, tmp_path):
    "A module `theirs` whose import, and whose function, leave a trace."
    trace = tmp_path / 'trace'
    (tmp_path / 'theirs.py').write_text(f'''
from pathlib import Path
Path({str(trace)!r}).write_text('imported')
from kdnb.models import resnet
def small(num_classes): return resnet(8, num_classes)
''')
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__('sys').modules, 'theirs', raising=False)
    return trace


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    "A run alone and a taught one, to be changed as a stranger would."
    root = tmp_path_factory.mktemp('made')
    data = load_data('digits', size=8, n_train=60, bs=20, device='cpu')
    teacher = Learner(create_model('resnet8', 10), data, run=root / 'teacher', cbs=None).fit(1)
    Learner(Distill(resnet(8), teacher, 'kd'), data, run=root / 'taught', cbs=None).fit(1)
    return root


@pytest.fixture
def theirs(made, tmp_path):
    shutil.copytree(made, tmp_path / 'got')
    return tmp_path / 'got'


def change(path, **new):
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | new))


IMPORTED = dict(builder='import', name='theirs:small', num_classes=10)


def refused(words, code, capsys, option='--allow-code theirs:small'):
    assert kdnb_train(words) == 1
    err = capsys.readouterr().err
    assert option in err and err.count('\n') == 1 and not code.exists(), err


def test_a_student_of_a_configuration_is_imported_only_if_its_name_is_typed(theirs, code, capsys):
    config = theirs / 'teacher/config.json'
    change(config, student=IMPORTED)
    again = ['--config', str(config), '--run', 'again']
    refused(again, code, capsys)
    refused([*again, '--allow-code', 'theirs:other'], code, capsys)
    refused([*again, '--seed', '1', '--device', 'cpu'], code, capsys)
    assert kdnb_train([*again, '--allow-code', 'theirs:small', '--seed', '1', '--device', 'cpu']) == 0 and code.exists()


def test_a_student_that_is_typed_is_allowed(theirs, code):
    config = theirs / 'teacher/config.json'
    change(config, student=IMPORTED)
    words = ['--config', str(config), '--run', 'typed', '--student', 'theirs:small', '--device', 'cpu']
    assert kdnb_train(words) == 0 and code.exists()


def test_a_teacher_of_a_configuration_that_learns_too(theirs, code, capsys):
    method = dict(scheme='JointRD', teacher=IMPORTED, gate=dict(fade_to=.5, ramp=60), weight=1e-3,
                  method='jointrd(train_teacher=True)', student=dict(builder='resnet', depth=8, num_classes=10))
    change(theirs / 'taught/config.json', **method)
    words = ['--config', str(theirs / 'taught/config.json'), '--student', 'resnet8', '--run', 'again']
    refused(words, code, capsys)


def test_a_folder_called_like_code_is_no_code(theirs, code, capsys, monkeypatch):
    (theirs / 'teacher').rename(theirs / 'theirs:small')
    change(theirs / 'taught/config.json', scheme='JointRD', gate=dict(fade_to=.5, ramp=60), weight=1e-3,
           method='jointrd(train_teacher=True)')
    monkeypatch.setenv('KDNB_RUNS', str(theirs))
    refused(['--config', str(theirs / 'taught/config.json'), '--student', 'resnet8', '--run', 'again'], code, capsys)


def test_the_weights_of_a_teacher_name_code(theirs, code, capsys):
    for name in 'last.pt', 'best.pt':
        saved = torch.load(theirs / 'teacher' / name, weights_only=True)
        torch.save(saved | dict(call=IMPORTED), theirs / 'teacher' / name)
    words = ['--config', str(theirs / 'taught/config.json'), '--student', 'resnet8', '--run', 'again']
    refused(words, code, capsys)
    typed = [*words, '--teacher', str(theirs / 'teacher'), '--teacher-model', 'theirs:small', '--device', 'cpu']
    assert kdnb_train(typed) == 0 and code.exists()
    with pytest.raises(ValueError, match='a file must not run code'):
        load_model(theirs / 'teacher')


def test_allow_code_needs_a_configuration(capsys):
    assert kdnb_train([*DATA, '--allow-code', 'theirs:small']) == 1
    assert '--allow-code goes with --config' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['os:system', 'builtins:print', 'subprocess:Popen', 'builtins:dict', 'sys:path',
                                  'functools:partial', 'os:environ', 'torch:nn', 'torch:zeros'])
def test_what_is_no_function_and_no_module_class_is_not_called(name, monkeypatch):
    import subprocess
    monkeypatch.setattr(subprocess.Popen, '__init__', lambda *a, **k: pytest.fail('called'))
    with pytest.raises(TypeError, match='is neither a function nor a class of torch.nn.Module'):
        create_model(name, 3)


def test_a_typed_function_returns_a_module(monkeypatch, tmp_path):
    (tmp_path / 'nets_of_mine.py').write_text('''
from torch import nn
from functools import partial
def wrong(num_classes): return 3
def leaves(num_classes): raise SystemExit(7)
class Net(nn.Linear):
    def __init__(self, num_classes): super().__init__(4, num_classes)
''')
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(TypeError, match='returned a int'):
        create_model('nets_of_mine:wrong', 3)
    assert create_model('nets_of_mine:Net', 3).out_features == 3


def test_nothing_is_imported_by_a_report(theirs, code):
    from kdnb.experiments import load_results, report_page
    change(theirs / 'teacher/config.json', student=IMPORTED)
    load_results([theirs / 'teacher', theirs / 'taught']).table()
    assert 'kdnb' in report_page([theirs / 'teacher', theirs / 'taught'], pictures=1)
    assert Run(theirs / 'teacher').json('config.json') and not code.exists()
