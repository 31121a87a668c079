"""The commands, as a shell or a script meets them: exit codes, one sentence on stderr, nothing half-written, and the
same numbers as in Python."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision import datasets

from kdnb.cli import (
    kdnb_distill,
    kdnb_export,
    kdnb_predict,
    kdnb_sweep,
    kdnb_test,
    kdnb_train,
    kdnb_tune,
    make_parser,
    train_parser,
)
from kdnb.cli.sweep import asked_commands, sweep_groups
from kdnb.data import load_data
from kdnb.experiments import sweep_commands
from kdnb.measure import accuracy, predict
from kdnb.methods import parse_method
from kdnb.models import load_model, resnet, weights_hash
from kdnb.schemes import Distill, parse_scheme
from kdnb.seeds import seeded
from kdnb.systems import Preset, Published, loadings, recipes, sweep_presets
from kdnb.train import Learner, Run, read_history

pytestmark = pytest.mark.slow

SMALL = '--size 8 --n-train 100 --bs 20 --student resnet8 --device cpu --epochs 1'.split()
DIGITS = ['--data', 'digits', *SMALL]
MINE = ['--data', 'mine.npz', '--root', '.', *SMALL]
COMMANDS = dict(kdnb_train=kdnb_train, kdnb_distill=kdnb_distill, kdnb_test=kdnb_test, kdnb_sweep=kdnb_sweep)
INSTALLED = COMMANDS | dict(kdnb_export=kdnb_export, kdnb_predict=kdnb_predict, kdnb_tune=kdnb_tune)


@pytest.fixture(autouse=True, scope='module')
def one_thread():  # many threads on a busy machine wait for each other
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A folder with data, and runs/: a teacher of ten digits, one of five, and what is no run or no longer one."
    place = tmp_path_factory.mktemp('commands')
    d = load_digits()
    x, y = d.images[:600, :, :, None].astype(np.float64) * 255 / 16, d.target[:600]
    x = x.round().astype(np.uint8)
    for name, labels in (('mine.npz', y), ('five.npz', y % 5)):
        parts = dict(x_train=x[:-150], y_train=labels[:-150], x_test=x[-150:], y_test=labels[-150:])
        np.savez(place / name, **parts)
    (place / 'cut.npz').write_bytes((place / 'mine.npz').read_bytes()[:5000])
    (place / 'empty').mkdir()
    (place / 'wrong' / 'cifar-100-python').mkdir(parents=True)
    for f in ('train', 'test', 'meta'):
        (place / 'wrong' / 'cifar-100-python' / f).write_bytes(b'not what was published')
    with pytest.MonkeyPatch.context() as m:
        m.setenv('KDNB_RUNS', str(place / 'runs'))
        assert kdnb_train([*DIGITS, '--run', 'teacher']) == 0
        assert kdnb_train(['--data', str(place / 'five.npz'), *SMALL, '--run', 'five']) == 0
    runs = place / 'runs'

    def like(name, **files):
        (runs / name).mkdir()
        for f in ('config.json', 'history.jsonl', 'result.json', 'best.pt', 'last.pt'):
            (runs / name / f).write_bytes((runs / 'teacher' / f).read_bytes())
        for f, change in files.items():
            f = runs / name / f.replace('_', '.')
            f.write_bytes(change(f.read_bytes()))

    like('half')
    (runs / 'half' / 'result.json').unlink()
    like('cut', last_pt=lambda b: b[: len(b) // 2], best_pt=lambda b: b[:-1])
    like('torn', config_json=lambda b: b[:40])
    like('short', config_json=lambda b: b.replace(b'"size"', b'"sice"'))
    like('bert', config_json=lambda b: b'{"model_type": "bert"}')
    (runs / 'thesis').mkdir()
    (runs / 'thesis' / 'chapter.tex').write_text('x')
    return place


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.setenv('KDNB_RUNS', str(place / 'runs'))
    monkeypatch.setenv('KDNB_DATA', str(place))
    monkeypatch.chdir(place)
    monkeypatch.setattr(
        datasets.CIFAR100, 'url', 'file:///nowhere/cifar-100-python.tar.gz'
    )  # no network, whatever happens
    return place


def content(folder):  # in a folder that a download would have gone to, its lock may stay
    return {
        p.relative_to(folder).as_posix(): (p.stat().st_mtime_ns, p.stat().st_size)
        for p in folder.rglob('*')
        if p.name not in ('nowhere', 'empty') and p.suffix != '.lock'}


# --- installed


@pytest.mark.parametrize('name', INSTALLED)
def test_the_command_is_installed(name):
    found = entry_points(group='console_scripts', name=name)
    assert found and all(e.load() is INSTALLED[name] for e in found)
    assert (Path(sys.executable).parent / name).exists()


@pytest.mark.parametrize('name', COMMANDS)
def test_help_has_a_sentence_for_each_option(name, capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '1000')
    with pytest.raises(SystemExit) as e:
        COMMANDS[name](['-h'])
    out = capsys.readouterr().out
    assert (
        e.value.code == 0
        and out.startswith(f'usage: {name} ')
        and f'example: {name} ' in out
        and 'exit code: 0 done' in out)
    said = {
        m[1]: m[2]
        for m in re.finditer(r'^  (?:-h, )?(-*[\w-]+)(?: [A-Z_]+| {[\w,]+})?(?:\s{2,}(?!-)(.*))?$', out, re.M)
        if m[1] != name}
    assert {k: v for k, v in said.items() if not v or len(v.split()) < 3} == {}
    heads = re.findall(r'^([a-z].*):$', out, re.M)
    assert {'options', 'for scripts'} <= set(heads) and len(heads) >= 4 and {'--quiet', '--json'} <= set(said)
    wanted = {
        '--config',
        '--tensorboard',
        '--compile',
        '--seed',
        '--run',
        '--device',
        '--amp',
        '--epochs',
        '--bs',
        '--lr',
        '--recipe',
        '--n-train',
        '--valid',
        '--data',
        '--root',
        '--student'}
    wanted = {
        'kdnb_test': {'--root', '--device', 'run'},
        'kdnb_sweep': {
            'preset',
            '--epochs',
            '--seeds',
            '--n-train',
            '--data',
            '--root',
            '--device',
            '--dry-run',
            '--tensorboard'},
    }.get(name, wanted)
    assert wanted <= set(said)


# --- mistakes: one sentence with the remedy


def says(capsys, name, words, where):
    "The sentence of a call that must fail, and must leave everything as it was."
    before = content(where)
    capsys.readouterr()
    code = COMMANDS[name](words)
    out, err = capsys.readouterr()
    assert code == 1 and err.startswith(f'{name}: ') and err.count('\n') == 1 and err.endswith('\n'), err
    assert (
        not re.search(r'Traceback|\b(n_train|bs|root|run|fresh|epochs|valid|size)=', err) and content(where) == before)
    return err


TAUGHT = [*DIGITS, '--teacher', 'teacher']


@pytest.mark.parametrize(
    'name,words,remedy',
    [
        # names nobody knows
        ('kdnb_train', ['--data', 'digit'], "unknown data set 'digit': did you mean digits?"),
        ('kdnb_train', [*DIGITS, '--student', 'resnet2O'], "unknown model 'resnet2O': did you mean .*resnet20"),
        ('kdnb_train', [*DIGITS, '--student', 'torchvision/resnet81'], 'did you mean resnet18'),
        ('kdnb_train', [*DIGITS, '--student', 'resnet21'], '6n\\+2'),
        ('kdnb_train', [*DIGITS, '--recipe', 'crb'], "unknown recipe 'crb': did you mean crd"),
        ('kdnb_train', [*DIGITS, '--amp', 'fp8'], "unknown amp 'fp8': did you mean fp16"),
        ('kdnb_train', [*DIGITS, '--amp', 'fp16'], "needs a GPU: use 'bf16' or 'off'"),
        ('kdnb_train', [*DIGITS, '--device', 'cdua'], "device 'cdua' cannot be used here .*give 'cpu'"),
        ('kdnb_distill', [*TAUGHT, '--method', 'dk'], r"unknown method 'dk': did you mean .*\bkd\b"),
        ('kdnb_distill', [*TAUGHT, '--method', 'at(taps=9)'], 'there is no stage 9: this model has 1, 2, 3'),
        ('kdnb_distill', [*TAUGHT, '--method', "at(taps='stages.9')"], "unknown tap 'stages.9': did you mean stages.2"),
        ('kdnb_distill', [*TAUGHT, '--method', 'kd(t=4)'], "kd has no option 't': it has weight, T"),
        ('kdnb_distill', [*TAUGHT, '--method', 'kd(T=4'], "is not a method, such as 'kd'"),
        ('kdnb_distill', [*TAUGHT, '--method', 'kd(T=four)'], "'four' is not a number"),
        ('kdnb_distill', [*TAUGHT, '--method', 'kd(T=0)'], 'the temperature T must be a number above 0, not 0'),
        ('kdnb_distill', [*TAUGHT, '--method', 'kd(T=-4)'], 'the temperature T must be a number above 0, not -4'),
        ('kdnb_distill', [*TAUGHT, '--method', 'kd(1/0)'], 'kd\\(1 / 0\\): division by zero; it takes weight, T'),
        (
            'kdnb_distill',
            [*TAUGHT, '--method', "ls(smoothing='x')"],
            "the smoothing must be a number between 0 and 1, not 'x'"),
        ('kdnb_train', [*DIGITS, '--init', 'timm'], "--init 'timm' go with a name 'timm/...', not with 'resnet8'"),
        (
            'kdnb_distill',
            [*TAUGHT, '--method', 'kd(weight=-.5)'],
            'the weight of kd must be a number from 0 up.*not -0.5'),
        ('kdnb_train', [*DIGITS, '--method', 'kd'], 'add --teacher RUN'),
        ('kdnb_train', [*DIGITS, '--augment', 'corp'], "unknown augmentation 'corp': did you mean crop"),
        (
            'kdnb_distill',
            [*DIGITS, '--teacher', 'torchvision/resnet18'],
            'comes with 1,000 classes and digits has 10: train one on digits first, with --student '
            'torchvision/resnet18 --run NAME'),
        (
            'kdnb_distill',
            [*DIGITS, '--teacher', 'torchvision/resnet81'],
            "unknown torchvision model 'resnet81': did you mean resnet18"),
        (
            'kdnb_distill',
            [*DIGITS, '--teacher', 'timm/resnet2O'],
            "unknown timm model 'resnet2O': did you mean|needs timm: pip install"),
        ('kdnb_sweep', ['cinic10'], "unknown preset 'cinic10': did you mean cinic10-shufflenet"),
        ('kdnb_sweep', ['crd', '--epochs', '0', '--dry-run'], 'epochs must be a whole number from 1 up, not 0'),
        ('kdnb_sweep', ['crd', '--seeds', '0'], 'seeds must be a whole number from 1 up, not 0'),
        ('kdnb_sweep', ['crd', '--augment', 'corp', '--dry-run'], "unknown augmentation 'corp': did you mean crop"),
        ('kdnb_sweep', ['crd', '--size', '0', '--dry-run'], '--size 0: give the pixels of a side'),
        ('kdnb_sweep', ['crd', '--size', '100000000', '--dry-run'], 'from 1 to 10,000'),
        ('kdnb_train', [*DIGITS, '--device', 'meta'], "device 'meta' cannot be used here"),
        ('kdnb_train', [*DIGITS, '--student', 'resnet' + '1' * 4400], 'not 4,406 letters'),
        ('kdnb_sweep', ['crd', '--workers', '-1', '--dry-run'], '--workers -1: give the number of processes'),
        (
            'kdnb_train',
            [*DIGITS, '--student', 'resnet20000000'],
            "'resnet20000000' has depth 20,000,000: it takes one from 0 to 1,202"),
        (
            'kdnb_train',
            [*DIGITS, '--method', 'online(students=1000000)'],
            'online needs two students or more, and 64 at most, not 1000000'),
        ('kdnb_train', [*DIGITS, '--seed', '-1'], 'the seed is a whole number from 0 up, of 63 bits, not -1'),
        ('kdnb_train', [*DIGITS, '--seed', '99999999999999999999'], 'the seed is a whole number from 0 up'),
        ('kdnb_distill', [*TAUGHT, '--remember', '0'], '--remember is a number of views from 1 up, not 0'),
        ('kdnb_train', ['--data', 'CIFAR100'], "unknown data set 'CIFAR100': did you mean cifar100 or"),
        ('kdnb_sweep', ['--epochs', '5'], '--epochs is for the runs of a table: name one'),
        ('kdnb_sweep', ['crd', '--n-train', '0', '--dry-run'], '--n-train 0: give a number of images from 1 up'),
        ('kdnb_sweep', ['crd', '--valid', '1.5', '--dry-run'], '--valid 1.5: give a fraction below 1'),
        ('kdnb_sweep', ['crd', '--seeds', '10000000', '--dry-run'], '10,000,000 seeds are more than a table takes'),
        (
            'kdnb_sweep',
            ['crd', '--root', 'nowhere', '--device', 'cpu'],
            r'cifar100 is not in nowhere .*--root or \$KDNB_DATA'),
        (
            'kdnb_sweep',
            ['crd', '--method', 'kd(T=0)', '--dry-run'],
            'the temperature T must be a number above 0, not 0'),
        # data
        (
            'kdnb_train',
            ['--data', 'cifar100', '--root', 'nowhere'],
            r'cifar100 is not in nowhere .*--root or \$KDNB_DATA'),
        ('kdnb_train', ['--data', 'cifar100', '--root', 'empty'], r'cifar100 is not in empty .*--root or \$KDNB_DATA'),
        ('kdnb_train', ['--data', 'cifar100', '--root', 'wrong'], r'cifar-100-python/\w+ is damaged .*delete it'),
        ('kdnb_train', ['--data', './empty'], 'empty holds no class folders: put'),
        ('kdnb_train', ['--data', './nobody'], 'nobody does not exist.*check the path'),
        ('kdnb_train', ['--data', 'nobody.npz'], 'nobody.npz does not exist.*--root'),
        ('kdnb_train', ['--data', 'cut.npz'], 'cut.npz is damaged.*save it again'),
        # numbers
        ('kdnb_train', [*DIGITS, '--epochs', '0'], 'epochs must be a whole number from 1 up, not 0'),
        ('kdnb_train', [*DIGITS, '--epochs', '-3'], 'epochs must be a whole number from 1 up, not -3'),
        ('kdnb_train', [*DIGITS, '--bs', '101'], '--bs 101: give a batch size from 1 to the 100 training images'),
        ('kdnb_train', [*DIGITS, '--bs', '0'], '--bs 0: give a batch size from 1'),
        ('kdnb_train', [*DIGITS, '--n-train', '5000'], '--n-train 5000: give .*at most the 970 that valid leaves'),
        ('kdnb_train', [*DIGITS, '--n-train', '9'], '--n-train 9: give at least one image for each of the 10 classes'),
        ('kdnb_train', [*DIGITS, '--n-train', '-1'], 'give at least one image for each of the 10 classes'),
        ('kdnb_train', [*DIGITS, '--valid', '1.5'], '--valid 1.5: give a fraction below 1, a count below the 1078'),
        ('kdnb_train', [*DIGITS, '--valid', 'nan'], '--valid nan: give a fraction below 1, a count below the 1078'),
        ('kdnb_train', [*DIGITS, '--size', '0'], '--size 0: give the pixels of a side'),
        ('kdnb_train', [*DIGITS, '--lr', '-1'], 'lr must be a number from 0 up, not -1'),
        ('kdnb_train', [*DIGITS, '--lr', 'nan'], 'lr must be a number from 0 up, not nan'),
        ('kdnb_train', [*DIGITS, '--wd', 'inf'], 'wd must be a number from 0 up, at most 1e19, not inf'),
        # runs and teachers
        ('kdnb_distill', [*MINE, '--teacher', 'five'], 'the student has 10 classes and the teacher 5: take a teacher'),
        (
            'kdnb_distill',
            [*DIGITS, '--teacher', 'nobody'],
            'no run folder .*nobody: train one, or look for a misspelt name'),
        ('kdnb_distill', [*DIGITS, '--teacher', 'thesis'], 'thesis is not a run folder'),
        ('kdnb_distill', [*DIGITS, '--teacher', 'half'], "run 'half' is not finished: run it again to the end"),
        ('kdnb_distill', [*DIGITS, '--teacher', 'cut'], 'last.pt is cut short.*train again'),
        ('kdnb_distill', [*DIGITS, '--teacher', 'torn'], 'torn.config.json is damaged'),
        ('kdnb_distill', [*DIGITS, '--teacher', 'bert'], 'bert.*not of a kdnb run'),
        ('kdnb_train', [*DIGITS, '--run', 'thesis'], "'thesis' exists and is not a run.*choose another name"),
        (
            'kdnb_train',
            [*DIGITS, '--run', 'thesis', '--fresh'],
            "'thesis' exists and is not a run.*choose another name"),
        ('kdnb_train', [*DIGITS, '--run', 'bert', '--fresh'], "'bert' exists and is not a run.*choose another name"),
        (
            "kdnb_train",
            [*DIGITS, "--run", "cut"],
            "last.pt of run 'cut' is damaged or cut short: restore it, or take --fresh"),
        ('kdnb_train', [*DIGITS, '--run', 'torn'], "config.json of run 'torn' is damaged.*with --fresh"),
        (
            'kdnb_train',
            [*DIGITS, '--run', 'teacher', '--lr', '.2', '--seed', '3'],
            'the learning rate is 0.05, you ask for 0.2; the seed is 0, you ask for 3. Choose another --run, '
            'or .*--fresh'),
        ('kdnb_test', ['nobody'], 'nobody is not a run.*give the name or the folder'),
        ('kdnb_test', ['thesis'], 'thesis is not a run'),
        ('kdnb_test', ['bert'], 'bert is not a run'),
        ('kdnb_test', ['cut', '--device', 'cpu'], 'last.pt is cut short.*train again'),
        ('kdnb_test', ['torn'], "config.json of run 'torn' is damaged"),
        (
            'kdnb_test',
            ['short', '--device', 'cpu'],
            "config.json of short is damaged: it does not say 'size' of the data"),
        (
            'kdnb_test',
            ['teacher', '--device', 'cdua'],
            "device 'cdua' cannot be used here [^:]*: give 'cpu', or None to choose$"),
        (
            'kdnb_test',
            ['five', '--data', 'mine.npz', '--device', 'cpu'],
            "this is not the data of the run: the data's name is five, you ask for mine")])
def test_a_mistake_is_one_sentence_with_the_remedy(here, capsys, name, words, remedy):
    assert re.search(remedy, says(capsys, name, words, here))


@pytest.mark.parametrize(
    'name,words,word',
    [
        ('kdnb_train', ['--epochs', 'ten'], '--epochs'),
        ('kdnb_train', ['--valid', 'some'], '--valid'),
        ('kdnb_train', ['--epoch', '1'], '--epoch'),
        ('kdnb_distill', DIGITS, '--teacher'),
        ('kdnb_distill', [*DIGITS, '--teacher', ''], '--teacher is empty'),
        ('kdnb_train', [*DIGITS, '--run', ''], '--run is empty'),
        ('kdnb_test', [], 'run'),
        ('kdnb_test', ['teacher', '--split', 'tset'], "'test'")])
def test_wrong_words_are_told_by_the_parser(here, capsys, name, words, word):
    before = content(here)
    with pytest.raises(SystemExit) as e:
        COMMANDS[name](words)
    last = capsys.readouterr().err.splitlines()[-1]
    assert e.value.code == 2 and last.startswith(f'{name}: error: ') and word in last and content(here) == before


def test_a_loss_that_is_no_number_stops_the_command(here, capsys):
    assert kdnb_distill([*TAUGHT, '--lr', '1e18', '--run', 'wild']) == 1
    err = capsys.readouterr().err
    assert re.fullmatch(
        r"kdnb_distill: the loss '(ce|kd)' became (nan|inf) in step [1-5] of epoch 1: lower --lr \(it is 1e\+18\) or a "
        r"weight\n",
        err)
    assert os.listdir(here / 'runs' / 'wild') == ['config.json']  # what was asked for; no weights, no result
    assert kdnb_test(['wild']) == 1 and "run 'wild' has no weights yet: train it" in capsys.readouterr().err


def test_a_disk_that_is_full_is_one_sentence(here, capsys, monkeypatch):
    def full(a, b):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'replace', full)
    assert kdnb_train([*DIGITS, '--run', 'full']) == 1
    err = capsys.readouterr().err
    assert re.fullmatch(
        r'kdnb_train: could not write .*config.json: No space left on device; what was there before is intact\n', err)
    assert not list((here / 'runs' / 'full').iterdir())
    monkeypatch.undo()
    monkeypatch.setenv('KDNB_RUNS', str(here / 'runs'))
    assert kdnb_train([*DIGITS, '--run', 'full']) == 0


# --- the way through


def printed(out):
    return {m[1].strip(): float(m[2]) for m in re.finditer(r'^(last|best(?: on test)?) .*test ([\d.]+) %', out, re.M)}


def test_train_distil_and_test_agree(here, capsys):
    assert kdnb_train([*MINE, '--run', 'a-teacher']) == 0
    assert (
        kdnb_distill([*MINE, '--epochs', '2', '--teacher', 'a-teacher', '--method', 'kd(T=2)', '--run', 'taught']) == 0)
    out = capsys.readouterr().out
    run, rows = Run('taught'), read_history(Run('taught'))
    config, result = run.json('config.json'), run.json('result.json')
    assert (config['method'], config['scheme'], config['data']['name'], config['epochs']) == (
        'CE(0.1) + KD(0.9, T=2)',
        'Distill',
        'mine',
        2)
    assert config['teacher'] == weights_hash(load_model('a-teacher', 'last')) and set(rows[0]) >= {
        'epoch',
        'lr',
        'loss',
        'ce',
        'kd',
        'train_acc',
        'valid_acc',
        'seconds'}
    told = printed(out.split('taught by a-teacher')[1])
    assert (
        told == {k: pytest.approx(result[k]['test_acc'], abs=0.005) for k in ('last', 'best')}
        and 'images/s' in out
        and 'REDUCED: 2 of 240 epochs' in out)
    assert kdnb_test(['taught', '--data', 'mine.npz', '--root', '.', '--device', 'cpu']) == 0
    again = capsys.readouterr().out
    assert printed(again) == told and all(f'recorded {v:.2f} %' in again for v in told.values())
    data = load_data('mine.npz', root='.', size=8, bs=20, n_train=100, device='cpu')  # and a third way
    assert accuracy(*predict(load_model('taught', 'best'), data.test)) == pytest.approx(
        result['best']['test_acc'], abs=0.001)
    assert len(data.test) == 150


def test_last_and_best_are_each_scored_by_their_own_weights(here, capsys):
    for seed in '0', '1':
        assert kdnb_train([*DIGITS, '--seed', seed, '--run', f'own-{seed}']) == 0
    (here / 'runs' / 'own-0' / 'best.pt').write_bytes((here / 'runs' / 'own-1' / 'best.pt').read_bytes())
    data = load_data('digits', size=8, bs=20, n_train=100, device='cpu')
    capsys.readouterr()
    assert kdnb_test(['own-0', '--device', 'cpu', '--json']) == 0
    told = json.loads(capsys.readouterr().out)
    want = {
        which: accuracy(*predict(load_model(run, which), data.test))
        for which, run in (('last', 'own-0'), ('best', 'own-1'))}
    assert {which: told[which]['accuracy'] for which in want} == want and want['last'] != want['best']


def test_without_held_out_images_the_best_is_called_best_on_test(here, capsys):
    words = [*DIGITS, '--epochs', '2', '--valid', '0', '--run', 'papers']
    assert kdnb_train(words) == 0
    told = printed(capsys.readouterr().out)
    assert set(told) == {'last', 'best on test'} and set(Run('papers').json('result.json')) == {'last', 'best_on_test'}
    assert told['best on test'] == pytest.approx(max(r['test_acc'] for r in read_history(Run('papers'))), abs=0.005)
    assert kdnb_test(['papers', '--device', 'cpu']) == 0
    out = capsys.readouterr().out
    assert (
        printed(out) == {'last': told['last']}
        and out.count('recorded') == 1
        and 'best.pt' not in os.listdir('runs/papers')
    )  # weights that test picked are nobody's result
    assert (
        kdnb_test(['papers', '--device', 'cpu', '--split', 'valid']) == 1
        and 'no valid split' in capsys.readouterr().err)


def test_the_same_command_loads_and_fresh_trains_again(here, capsys):
    words = [*DIGITS, '--run', 'twice']
    folder = here / 'runs' / 'twice'
    assert kdnb_train(words) == 0
    first, before, told = weights_hash(load_model('twice', 'last')), content(folder), printed(capsys.readouterr().out)
    assert kdnb_train(words) == 0
    out = capsys.readouterr().out
    assert "run 'twice': finished, loaded (1 epoch)" in out and printed(out) == told and content(folder) == before
    assert kdnb_train([*words, '--fresh']) == 0
    assert (
        'loaded' not in capsys.readouterr().out
        and content(folder) != before
        and weights_hash(load_model('twice', 'last')) == first)


def test_a_run_is_named_after_what_was_asked_for(here, capsys):
    assert kdnb_train(DIGITS) == 0 and kdnb_distill([*TAUGHT, '--method', 'kd(T=2)', '--seed', '1']) == 0
    assert {'digits-resnet8-alone-0', 'digits-resnet8-kd-T-2-1'} <= set(os.listdir(here / 'runs'))


def test_a_seed_names_a_student_in_the_shell_and_in_python(here):
    """Alone and taught: the same seed the same weights, another seed others, and a notebook's three lines the same as
    the command."""
    data = load_data('digits', size=8, n_train=100, bs=20, device='cpu')

    def notebook(seed, taught):
        with seeded(seed):
            model = Distill(resnet(8), 'teacher', 'kd(T=2)', size=8) if taught else resnet(8)
        return weights_hash(Learner(model, data, seed=seed, cbs=None).fit(1).student)

    for taught in (False, True):

        def shell(run, seed, taught=taught):
            assert (
                kdnb_train(
                    [
                        *DIGITS,
                        '--run',
                        run,
                        '--seed',
                        str(seed),
                        *(['--teacher', 'teacher', '--method', 'kd(T=2)'] if taught else [])])
                == 0)
            return weights_hash(load_model(run, 'last'))

        a, b, c = (shell(f'seed-{taught}-{n}', s) for n, s in (('a', 1), ('b', 1), ('c', 2)))
        assert a == b != c and (notebook(1, taught), notebook(2, taught)) == (a, c)
        inits = [Run(f'seed-{t}-a').json('config.json')['about']['init'] for t in (False, taught)]
        assert inits[0] == inits[1]  # alone and taught start from the same weights


@pytest.mark.parametrize(
    'method', ['fn', 'at+sp', 'od', 'rkd', 'nst', 'dkd', 'dist', 'wttm', 'review', 'pkt', 'kd_shuffled', 'ls'])
def test_every_method_is_a_word_in_the_shell(here, method):
    assert kdnb_distill([*TAUGHT, '--method', method, '--run', f'word-{method}']) == 0
    assert Run(f'word-{method}').json('config.json')['method'] == repr(parse_method(method))


def test_smoothed_labels_need_no_teacher_and_another_seed_is_one(here, capsys):
    assert kdnb_train([*DIGITS, '--method', 'ls', '--run', 'smoothed']) == 0
    assert (
        Run('smoothed').json('config.json')['scheme'] == 'Alone'
        and 'alone: LS(1, smoothing=0.1)' in capsys.readouterr().out)
    assert kdnb_train([*DIGITS, '--seed', '5', '--run', 'twin']) == 0
    assert kdnb_distill([*DIGITS, '--teacher', 'twin', '--method', 'self', '--run', 'selftaught']) == 0


def test_a_system_is_a_word_too(here, capsys):
    assert kdnb_distill([*TAUGHT, '--method', 'at', '--weights', 'distillation']) == 0
    assert (
        Run('digits-resnet8-at-distillation-0').json('config.json')['method']
        == "CE(1) + AT(30, p=None, taps=[0, 1, 2, 3], reading='sum')")
    for words, says in (
        (['--method', 'nst', '--weights', 'distillation'], "'distillation' has no nst: it has kd, at, sp, ofd"),
        (['--weights', 'rep'], "unknown system 'rep'")):
        assert kdnb_distill([*TAUGHT, *words, '--run', 'never']) == 1
        out, err = capsys.readouterr()
        assert says in err and len(err.splitlines()) == 1 and not (here / 'runs' / 'never').exists()


def test_augmentation_is_a_word_too(here):
    for word, kept in (('none', None), ('crop_flip+cutout', 'crop_flip+cutout')):
        assert kdnb_train([*DIGITS, '--augment', word, '--run', f'augment-{word}']) == 0
        assert Run(f'augment-{word}').json('config.json')['data']['augment'] == kept


def test_a_pretrained_teacher_of_other_classes_teaches_what_reads_features(here, monkeypatch, capsys):
    from kdnb.models import create_model

    def create(name, num_classes=10, weights=None): return create_model('resnet8' if '/' in name else name, num_classes)

    monkeypatch.setattr('kdnb.cli.train._pretrained_classes', lambda name: 1000)
    monkeypatch.setattr('kdnb.cli.train.create_model', create)
    asked = [*DIGITS, '--teacher', 'torchvision/resnet18']
    assert kdnb_distill([*asked, '--method', 'fitnet', '--run', 'by-features']) == 0
    assert 'taught by torchvision/resnet18' in capsys.readouterr().out
    assert kdnb_distill([*asked, '--method', 'kd'])
    assert 'or take a method that reads features only, such as fitnet' in capsys.readouterr().err


def test_other_data_than_the_preset_s_are_told(here, capsys):
    assert kdnb_sweep(['reducenet', '--data', 'cifar100', '--dry-run']) == 0
    assert 'weights are those for cifar10; the preset reducenet-cifar100 is for' in capsys.readouterr().out
    assert kdnb_sweep(['reducenet', '--dry-run']) == 0
    assert 'weights are those' not in capsys.readouterr().out


def test_a_pretrained_teacher_is_named_like_its_library(here, monkeypatch, capsys):
    "The weights need a network, so here they are others; a folder of that name is a run, whatever it is called."
    asked = []

    def create(name, num_classes=10, weights=None):
        asked.append((name, num_classes, weights))
        return resnet(8, num_classes)

    with monkeypatch.context() as m:
        m.setattr('kdnb.cli.train._pretrained_classes', lambda name: 10)
        m.setattr('kdnb.cli.train.create_model', create)
        assert kdnb_distill([*DIGITS, '--teacher', 'timm/resnet26', '--run', 'by-timm']) == 0
    assert (
        asked == [('resnet8', 10, None), ('timm/resnet26', 10, 'timm')]
        and 'taught by timm/resnet26' in capsys.readouterr().out)
    assert (
        kdnb_train([*DIGITS, '--run', 'torchvision/mine']) == 0
        and kdnb_distill([*DIGITS, '--teacher', 'torchvision/mine', '--run', 'by-folder']) == 0)


# --- sweeps


def test_a_recipe_has_its_two_halves():  # the schedule, and what the data are given
    assert set(recipes) == set(loadings)


@pytest.mark.parametrize('preset', sweep_presets)
def test_a_dry_run_is_commands_that_can_be_typed(here, capsys, preset):
    "Each line is one that kdnb_train takes; nothing is read or written, and no model is built."
    before = content(here)
    words = [
        preset,
        *'--epochs 2 --seeds 2 --n-train 500 --valid 0 --root /some/where --device cuda:1 --dry-run'.split()]
    assert kdnb_sweep(words) == 0 and content(here) == before
    lines = capsys.readouterr().out.splitlines()
    typed = [shlex.split(each_line, comments=True) for each_line in lines if not each_line.startswith('#')]
    twice = sum('-epochs4-' in w[-1] for w in typed)  # a control
    assert twice == (2 * len(sweep_presets[preset].pairs) if sweep_presets[preset].cut else 0)
    assert (
        lines[1].startswith(f'# {len(typed)} runs, {2 * (len(typed) + twice):,} epochs in all, about ')
        and all(re.search(r'  # [\d.e-]+ PFLOP$', each_line) for each_line in lines if each_line[0] != '#')
        and len({w[-1] for w in typed}) == len(typed))
    assert sorted(typed) == sorted(asked_commands(make_parser('kdnb_sweep', '', '', *sweep_groups).parse_args(words)))
    p, runs = sweep_presets[preset], set()
    for command, *rest in typed:
        a = train_parser().parse_args(rest)
        assert command == ('kdnb_distill' if a.teacher else 'kdnb_train') and (
            parse_scheme(a.method) or parse_method(a.method or 'ce', a.weights))
        assert (a.data, a.recipe, a.epochs, a.n_train, a.valid, a.root, a.device) == (
            p.data,
            p.recipe,
            4 if '-epochs4-' in a.run else 2,
            500,
            0,
            '/some/where',
            'cuda:1')
        assert all(not r or '/' in r or r in runs for r in (a.teacher, a.shrink))  # who teaches was trained above
        assert bool(a.student) != bool(a.shrink)
        runs.add(a.run)
    seeds = {w[w.index('--seed') + 1] for w in typed}
    chain = preset in ('takd', 'ban')                                           # each link has a seed of its own
    assert p.recipe in recipes and (seeds > {'0', '1'} if chain else seeds == {'0', '1'})


def test_without_a_name_the_presets_are_listed(here, capsys):
    assert kdnb_sweep([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ['preset', 'runs', 'table']
    assert [each_line.split()[0] for each_line in lines[1:]] == list(sweep_presets)


TINY = Preset(
    'tiny', 'two small nets', 'digits', 'crd', {'kd': 'kd'}, (('resnet14', 'resnet8'),), weights='crd',
    published=(Published('Nobody', 'last epoch', scores=dict(kd=(99.0,))),))
NUMBERS = '--epochs 1 --n-train 100 --size 8 --device cpu'.split()


def test_a_sweep_run_again_loads_and_goes_on(here, capsys, monkeypatch):
    monkeypatch.setitem(sweep_presets, 'tiny', TINY)
    assert kdnb_sweep(['tiny', *NUMBERS]) == 0
    out, err = capsys.readouterr()
    runs = [w[-1] for w in sweep_commands('tiny', epochs=1, n_train=100, size=8)]
    assert (
        runs
        == [f'digits-crd-epochs1-n-train100-size8-{w}-0' for w in ('resnet14', 'resnet8', 'resnet8-by-resnet14-kd')]
        and err == '')
    assert (
        re.search(r'^resnet8 on digits.*teacher', out, re.M)
        and 'minus alone' in out
        and 'REDUCED' in out
        and out.index('minus alone') < out.index('published by Nobody'))
    before = {run: content(here / 'runs' / run) for run in runs}
    assert kdnb_sweep(['tiny', *NUMBERS, '--seeds', '2']) == 0  # one seed more: what is there is loaded
    out = capsys.readouterr().out
    assert (
        out.count('loaded') == 1
        and '3 of 5 runs: finished, loaded' in out
        and f'{runs[1]}:' not in out
        and {run: content(here / 'runs' / run) for run in runs} == before)
    assert (
        Run(runs[1][:-1] + '1').json('config.json')['seed'] == 1
        and Run(runs[2][:-1] + '1').json('config.json')['teacher'] == Run(runs[2]).json('config.json')['teacher'])
    assert re.search(r'^kd .* 2 +1 +\d+ s( |$)', out, re.M)


def test_reducenet_and_its_controls(here, capsys, monkeypatch):
    monkeypatch.setitem(
        sweep_presets,
        'cut',
        replace(TINY, name='cut', pairs=(('reducenet8', 'resnet8'),), weights='reducenet', cut=True, published=()))
    assert kdnb_sweep(['cut', *NUMBERS]) == 0
    out = capsys.readouterr().out
    runs = [w[-1] for w in sweep_commands('cut', epochs=1, n_train=100, size=8)]
    assert [r.removeprefix('digits-crd-').replace('-n-train100-size8', '') for r in runs] == [
        f'epochs{e}-{w}-0'
        for e, w in (
            (1, 'reducenet8'),
            (1, 'resnet8'),
            (1, 'resnet8-by-reducenet8-kd'),
            (2, 'resnet8'),
            (1, 'resnet8-from-reducenet8'),
            (1, 'resnet8-from-reducenet8-by-reducenet8-kd'))]
    kd = 'CE(0.3) + KD(0.07, T=5)'
    for line in ('alone', kd, 'shrunk, alone', f'shrunk, {kd}'):
        assert re.search(rf'^{re.escape(line)} .* 1¹ +1 +\d+ s( |$)', out, re.M), line
    configs = [Run(r).json('config.json') for r in runs]
    assert [c.get('made') for c in configs] == [None] * 4 + ['shrunk'] * 2 and len(
        {c['about']['params'] for c in configs}
    ) == 2
    assert (
        configs[4]['about']['init']
        == configs[5]['about']['init']
        != configs[1]['about']['init']
        == configs[2]['about']['init'])
    assert kdnb_sweep(['cut', *NUMBERS, '--method', 'at', '--method', 'kd(T=2)+sp', '--dry-run']) == 0
    out = capsys.readouterr().out
    assert (
        out.count('--shrink') == 3
        and out.count('--method at') == 2
        and '--weights' not in out
        and 'from-reducenet8-by-reducenet8-kd-T-2-sp-0' in out)
    assert kdnb_sweep(['cut', *NUMBERS, '--method', 'att']) == 1 and 'did you mean at' in capsys.readouterr().err
    assert kdnb_sweep(['cut', *NUMBERS, '--seeds', '2']) == 0  # the teacher is part of the seed
    out = capsys.readouterr().out
    for line in ('alone', kd, 'shrunk, alone', f'shrunk, {kd}'):
        assert len(re.findall(rf'^{re.escape(line)} .* 2 +1 +\d+ s( |$)', out, re.M)) == 1 + (line == 'alone'), (
            line
        )  # and reducenet8 alone
    assert 'a teacher for each seed, so what varies is teacher and student together' in out
    assert (
        len(
            {
                Run(f'digits-crd-epochs1-n-train100-size8-resnet8-from-reducenet8-{s}').json('config.json')['about'][
                    'init']
                for s in (0, 1)})
        == 2)


def test_what_was_cut_has_not_seen_the_images_held_out(here, capsys):
    assert (
        kdnb_train(
            [
                *SMALL[:-4],
                '--data',
                'digits',
                '--epochs',
                '1',
                '--device',
                'cpu',
                '--student',
                'reducenet8',
                '--valid',
                '50',
                '--run',
                'grown'])
        == 0)
    rest = [w for w in SMALL if w not in ('--student', 'resnet8')]
    assert kdnb_train([*rest, '--data', 'digits', '--shrink', 'grown', '--run', 'trimmed']) == 1
    assert (
        'the teacher was trained with n_valid=50' in capsys.readouterr().err
        and not (here / 'runs' / 'trimmed').exists())
    assert (
        kdnb_train([*rest, '--data', 'digits', '--valid', '50', '--shrink', 'grown', '--refit', '--run', 'trimmed'])
        == 0)
    assert (
        Run('trimmed').json('config.json')['made'] == 'refitted'
        and 'grown, refitted: 78,042 parameters' in capsys.readouterr().out)
    assert (
        kdnb_train([*rest, '--data', 'digits', '--valid', '50', '--shrink', 'grown', '--run', 'trimmed']) == 1
        and "the student's kind is refitted, you ask for shrunk" in capsys.readouterr().err)
    assert kdnb_test(['trimmed', '--device', 'cpu']) == 0


def test_a_run_that_fails_is_told_and_holds_nobody_up_but_its_students(here, capsys, monkeypatch):
    monkeypatch.setitem(
        sweep_presets,
        'torn',
        replace(
            TINY,
            name='torn',
            pairs=(('resnet13', 'resnet8'), ('resnet20', 'resnet8')),
            methods={'kd': 'kd', 'fitnet9': 'fitnet(taps=9)'}))
    assert kdnb_sweep(['torn', *NUMBERS, '--data', 'mine.npz', '--root', '.']) == 1
    out, err = capsys.readouterr()
    name = 'mine-crd-epochs1-n-train100-size8'
    assert err.splitlines()[0] == 'kdnb_sweep: 4 of 7 runs are missing' and [
        each_line.split(': ')[0].strip() for each_line in err.splitlines()[1:]
    ] == [
        f'{name}-resnet13-0',
        *(f'{name}-resnet8-by-{w}-0' for w in ('resnet13-kd', 'resnet13-fitnet9', 'resnet20-fitnet9'))]
    assert (
        'no ResNet has depth 13' in err
        and err.count(f'skipped, as there is no teacher {name}-resnet13-0') == 2
        and 'there is no stage 9' in err)
    assert (
        all(Run(f'{name}-{w}-0').read('result.json') for w in ('resnet20', 'resnet8', 'resnet8-by-resnet20-kd'))
        and 'minus alone' in out)
    assert 'published' not in out  # for other images than these


def test_students_that_teach_each_other_get_no_teacher_in_a_table_of_pairs(here, capsys):
    assert kdnb_sweep(['cifar100-wrn', '--method', 'online(students=2)', '--method', 'kd', '--dry-run']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        sum('online' in each_line for each_line in lines) == 3
        and not any('online' in each_line and '--teacher' in each_line for each_line in lines)
        and sum('--teacher' in each_line for each_line in lines) == 3)


def test_a_name_that_no_folder_could_have_is_cut(here, capsys):
    method = '+'.join(['kd(T=4)'] * 60)
    for seed in '0', '1':
        assert kdnb_distill([*TAUGHT, '--method', method, '--seed', seed]) == 0
    assert len([n for n in os.listdir(here / 'runs') if len(n) == 200]) == 2


def test_a_sweep_without_a_teacher(here, capsys, monkeypatch):
    monkeypatch.setitem(
        sweep_presets,
        'apart',
        replace(TINY, name='apart', pairs=((None, 'resnet8'),), weights=None, published=(),
                methods={'online': 'online(students=2)'}))
    assert kdnb_sweep(['apart', *NUMBERS]) == 0
    out = capsys.readouterr().out
    assert re.search(r'^online ', out, re.M | re.I) and 'minus alone' in out and 'no real pairs' not in out
    assert Run('digits-crd-epochs1-n-train100-size8-resnet8-online-0').json('config.json')['scheme'] == 'Online'


def test_ctrl_c_stops_a_sweep(here, capsys, monkeypatch):
    def stop(self, *a):
        raise KeyboardInterrupt

    monkeypatch.setitem(sweep_presets, 'tiny', TINY)
    monkeypatch.setattr(Learner, 'fit', stop)
    assert kdnb_sweep(['tiny', *NUMBERS]) == 130 and '[2 of 3]' not in capsys.readouterr().out


# --- Ctrl-C


def test_ctrl_c_in_the_shell_stops_and_the_same_command_goes_on(here, capsys):
    words = [
        '--data',
        'digits',
        '--size',
        '8',
        '--bs',
        '20',
        '--student',
        'resnet8',
        '--device',
        'cpu',
        '--epochs',
        '5',
        '--run']
    program = 'import sys; from kdnb.cli import kdnb_train; sys.exit(kdnb_train())'
    child = subprocess.Popen(
        [sys.executable, '-c', program, *words, 'stopped'],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # a shell started in the background would have it ignored
    try:
        end = time.time() + 120
        while not (here / 'runs' / 'stopped' / 'last.pt').exists():
            assert child.poll() is None and time.time() < end
            time.sleep(0.01)
        time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 130 and err == '' and 'Traceback' not in out
    done = int(
        re.search(
            r"run 'stopped' was interrupted; the last whole epoch is (\d) of 5. Run the same cell or command again", out
        )[1])
    assert 1 <= done < 5 and len(read_history(Run('stopped'))) == done and not Run('stopped').read('result.json')
    assert kdnb_train([*words, 'stopped']) == 0 and f'goes on after epoch {done} of 5' in capsys.readouterr().out
    assert kdnb_train([*words, 'never']) == 0
    assert weights_hash(load_model('stopped', 'last')) == weights_hash(load_model('never', 'last'))
    assert Run('stopped').json('result.json') == Run('never').json('result.json')


@pytest.mark.filterwarnings('always')  # whatever PYTHONWARNINGS says
def test_a_run_on_files_is_scored_again(tmp_path, monkeypatch, capsys):
    "Files of different sizes, one broken; own valid images; held and streamed: kdnb_test finds the very same data."
    rng = np.random.RandomState(0)
    for split in ('train', 'valid', 'test'):
        for i in range(16):
            f = tmp_path / 'photos' / split / 'ab'[i % 2] / f'{i}.png'
            f.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.randint(0, 256, (*rng.randint(20, 30, 2), 3)).astype(np.uint8)).save(f)
    (tmp_path / 'photos' / 'train' / 'a' / '0.png').write_bytes(b'')
    monkeypatch.setenv('KDNB_RUNS', str(tmp_path / 'runs'))
    asked = [
        '--data',
        str(tmp_path / 'photos'),
        '--size',
        '16',
        '--bs',
        '8',
        '--student',
        'resnet8',
        '--epochs',
        '1',
        '--device',
        'cpu',
        '--amp',
        'off']
    for name, more in dict(
        held=[], streamed=['--stream', '--workers', '1'], windows=['--augment', 'resized_crop'], cut=['--valid', '4']
    ).items():
        assert kdnb_train([*asked, *more, '--run', name]) == 0
        told = capsys.readouterr().err
        assert (
            '0.png cannot be read as an image' in told and '--strict refuses them' in told and 'UserWarning' not in told
        )
        assert kdnb_test([name, '--data', str(tmp_path / 'photos'), '--device', 'cpu']) == 0
        assert 'recorded' in capsys.readouterr().out
    assert (
        kdnb_train([*asked, '--strict', '--run', 'strict']) == 1
        and '0.png cannot be read as an image' in capsys.readouterr().err)


def test_a_run_on_a_folder_says_how_to_find_it_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('KDNB_RUNS', str(tmp_path / 'runs'))
    monkeypatch.setenv('KDNB_DATA', str(tmp_path / 'empty'))
    for i in range(20):
        f = tmp_path / 'pets' / 'ab'[i % 2] / f'{i}.png'
        f.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), i * 10, np.uint8)).save(f)
    assert (
        kdnb_train(
            [
                '--data',
                str(tmp_path / 'pets'),
                '--bs',
                '4',
                '--student',
                'resnet8',
                '--epochs',
                '1',
                '--device',
                'cpu',
                '--run',
                'r'])
        == 0)
    assert (
        kdnb_test(['r', '--device', 'cpu']) == 1
        and "the run learnt from 'pets': if that was a folder or an .npz, say where it is with --data"
        in capsys.readouterr().err)
    assert kdnb_test(['r', '--device', 'cpu', '--data', str(tmp_path / 'pets')]) == 0
