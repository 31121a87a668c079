"""A run done again from its config.json: the same weights to the last bit, or one sentence that says why not; and
what scripts read."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from kdnb.cli import kdnb_distill, kdnb_sweep, kdnb_test, kdnb_train
from kdnb.data import Data, load_data
from kdnb.experiments import repeat_options
from kdnb.methods import KD, Term
from kdnb.models import load_model, resnet, weights_hash
from kdnb.schemes import Distill, Frozen
from kdnb.seeds import seeded
from kdnb.systems import Preset, sweep_presets
from kdnb.train import Learner, Run

pytestmark = pytest.mark.slow

SMALL = '--data digits --size 8 --n-train 60 --bs 20 --epochs 1 --device cpu'.split()
R8 = ['--student', 'resnet8']


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A folder with runs: two teachers, one that can be cut, and an .npz."
    place = tmp_path_factory.mktemp('repeat')
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    d = load_digits()
    x = (d.images[:300, :, :, None] * 255 / 16).round().astype(np.uint8)
    np.savez(place / 'mine.npz', x_train=x[:200], y_train=d.target[:200], x_test=x[200:], y_test=d.target[200:300])
    with pytest.MonkeyPatch.context() as m:
        m.setenv('KDNB_RUNS', str(place / 'runs'))
        m.setattr(Learner, 'callbacks', [])
        for run, student in dict(teacher='resnet14', grown='reducenet8').items():
            assert kdnb_train([*SMALL, '--student', student, '--run', run, '--quiet']) == 0
    yield place
    torch.set_num_threads(n)


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.setenv('KDNB_RUNS', str(place / 'runs'))
    monkeypatch.setenv('KDNB_DATA', str(place))
    monkeypatch.chdir(place)
    monkeypatch.setattr(Learner, 'callbacks', [])
    return place


def config(run): return f'runs/{run}/config.json'


def last(run): return weights_hash(load_model(run, 'last'))


def asked(run): return {k: v for k, v in Run(run).json('config.json').items() if k != 'about'}


def test_who_learnt_alone_is_not_distilled(here, capsys):
    assert (
        kdnb_distill(['--config', config('teacher'), '--device', 'cpu', '--run', 'never']) == 1
        and not (here / 'runs' / 'never').exists())
    assert 'learnt alone: add --teacher RUN, or use kdnb_train' in capsys.readouterr().err
    assert (
        kdnb_distill(
            ['--config', config('teacher'), '--device', 'cpu', *R8, '--teacher', 'teacher', '--run', 'taught-now'])
        == 0
        and Run('taught-now').json('config.json')['scheme'] == 'Distill')


TAUGHT = [*R8, '--teacher', 'teacher', '--method']


@pytest.mark.parametrize(
    'name,words',
    dict(
        alone=[*R8, '--seed', '3', '--lr', '.02', '--wd', '0'],
        smoothed=[*R8, '--method', 'ls(smoothing=.2)'],
        papers=[*R8, '--valid', '0', '--recipe', 'reducenet', '--augment', 'none'],
        split=[*R8, '--valid', '50', '--split-seed', '4'],
        kd=[*TAUGHT, 'kd(T=2)'],
        thirds=[*TAUGHT, 'ce(1/3)+kd(2/3)'],
        features=[*TAUGHT, 'fitnet+at+sp'],
        ofd=[*TAUGHT, 'ofd', '--weights', 'paper'],
        modern=[*TAUGHT, 'dkd+review+pkt'],
        stages=[*TAUGHT, "at(taps=[1, 2], reading='sum')"],
        two_stages=[*TAUGHT, 'fitnet', '--weights', 'paper'],
        joint=['--student', 'plainnet8', '--teacher', 'teacher', '--method', 'jointrd(fade_to=1/3)'],
        together=['--student', 'plainnet8', '--teacher', 'resnet8', '--method', 'jointrd(train_teacher=True)'],
        online=[*R8, '--method', 'online(students=2, T=3, weight=rise(.1, 1/12))'],
        peers=['--student', 'cheapnet8_shift', '--method', "online(students=2, teacher='peers')"],
        cut=['--shrink', 'grown'],
        reducenet=['--shrink', 'grown', '--teacher', 'grown', '--weights', 'reducenet'],
        refitted=['--shrink', 'grown', '--refit'],
        tuned=['--student', 'resnet14', '--init', 'teacher'],
        npz=[*R8, '--data', 'mine.npz', '--size', '8'],
        elsewhere=[*R8, '--run', './elsewhere/elsewhere'],
    ).items())
def test_a_run_from_its_config_is_the_same_to_the_last_bit(here, capsys, name, words):
    run = './elsewhere/elsewhere' if name == 'elsewhere' else name
    assert kdnb_train([*SMALL, '--run', name, *words]) == 0
    if name == 'elsewhere':
        assert kdnb_train(
            ['--config', f'{run}/config.json', '--device', 'cpu', '--run', './elsewhere/again']
        ) == 0 and last('./elsewhere/again') == last(run)
        return
    assert kdnb_train(['--config', config(name), '--device', 'cpu', '--run', f'{name}-copy']) == 0
    assert (last(f'{name}-copy'), asked(f'{name}-copy')) == (last(name), asked(name))


def test_a_teacher_that_moved_is_found_by_its_weights(here, tmp_path, capsys):
    assert kdnb_train([*SMALL, *TAUGHT, 'kd', '--run', 'moved']) == 0
    os.rename('runs/teacher', 'runs/renamed')
    try:
        assert repeat_options(config('moved'))['--teacher'] == 'renamed'
    finally:
        os.rename('runs/renamed', 'runs/teacher')


def test_a_run_of_a_notebook_is_repeated_in_the_shell(here, capsys):
    data = load_data('digits', size=8, n_train=60, bs=20, device='cpu')
    with seeded(5):
        student = resnet(8)
    learn = Learner(Distill(student, 'teacher', 'kd+at', size=8), data, run='notebook', seed=5, amp='off').fit(1)
    assert kdnb_train(['--config', config('notebook'), '--device', 'cpu', '--run', 'shell']) == 0 and last(
        'shell'
    ) == weights_hash(learn.student)


def test_a_student_of_remembered_words_is_repeated(here, capsys):
    assert kdnb_train([*SMALL, *TAUGHT, 'kd(T=2)', '--remember', '2', '--run', 'told']) == 0
    assert repeat_options(config('told'))['--remember'] == 2
    assert kdnb_train(['--config', config('told'), '--device', 'cpu', '--run', 'told-copy']) == 0 and (
        last('told-copy'),
        asked('told-copy'),
    ) == (last('told'), asked('told'))
    assert (
        kdnb_train(['--config', config('told'), '--device', 'cpu', '--remember', '1', '--run', 'told-less']) == 0
        and asked('told-less')['remembered'] == 1)


def test_a_run_of_the_first_kind(here, capsys, tmp_path):
    "Who learnt alone did not say by which method; commands were recorded without quotes."
    first = json.loads((here / 'runs' / 'teacher' / 'config.json').read_text())
    del first['method']
    (tmp_path / 'config.json').write_text(json.dumps(first))
    assert 'an early kdnb wrote it, and did not name the loss: add --method ce' in refused(
        capsys, ['--config', str(tmp_path / 'config.json')])
    assert kdnb_train(
        ['--config', str(tmp_path / 'config.json'), '--method', 'ce', '--device', 'cpu', '--run', 'first']
    ) == 0 and last('first') == last('teacher')


def test_commands_of_all_times_are_read(here, tmp_path):
    os.makedirs(tmp_path / 'my photos', exist_ok=True)
    place = tmp_path / 'my photos' / 'mine.npz'
    place.write_bytes(Path('mine.npz').read_bytes())
    first = json.loads((here / 'runs' / 'teacher' / 'config.json').read_text())
    first['data']['name'] = 'mine'
    for command, found in (
        (f"kdnb_train --data '{place}' --student resnet8", place),
        (f"kdnb_train '--data={place}'", place),
        ('kdnb_train --data ./mine.npz --method kd(T=2)+at', 'mine.npz'),
        ("kdnb_train --data=mine.npz --run it's", 'mine.npz')):
        first['about']['command'] = command
        (tmp_path / 'config.json').write_text(json.dumps(first))
        assert Path(repeat_options(tmp_path / 'config.json')['--data']) == Path(found), command


def test_options_beside_it_win(here, capsys):
    assert kdnb_train([*SMALL, *TAUGHT, 'kd(T=2)', '--run', 'base']) == 0
    for words, differ in (
        (['--seed', '1'], {'seed'}),
        (['--epochs', '2'], {'epochs'}),
        (['--method', 'at'], {'method', 'terms'}),
        (['--student', 'resnet14'], {'student'})):
        assert kdnb_train(['--config', config('base'), '--device', 'cpu', *words]) == 0
        was, now = asked('base'), asked(f'base-again-{words[0][2:]}-{words[1]}')
        assert {k for k in was if was[k] != now.get(k)} == differ
    assert (
        kdnb_train(['--config', config('teacher'), '--device', 'cpu', '--data', 'mine.npz', '--valid', '20']) == 0
        and asked('teacher-again-data-mine.npz-valid-20')['data']['name'] == 'mine')
    assert kdnb_train([*SMALL, '--shrink', 'grown', '--run', 'trimmed']) == 0
    assert kdnb_train(
        ['--config', config('trimmed'), '--student', 'resnet8', '--device', 'cpu', '--run', 'uncut']
    ) == 0 and 'made' not in asked('uncut')
    assert (
        kdnb_distill(['--config', config('base'), '--device', 'cpu']) == 0 and (here / 'runs' / 'base-again').is_dir())
    assert repeat_options(config('base'), ['--teacher']).get('--teacher') is None


def refused(capsys, words, before=()):
    capsys.readouterr()
    had = sorted(os.listdir('runs'))
    assert kdnb_train([*words, '--device', 'cpu', '--run', 'never']) == 1
    out, err = capsys.readouterr()
    assert (
        err.startswith('kdnb_train: ')
        and err.count('\n') == 1
        and 'Traceback' not in err
        and sorted(os.listdir('runs')) == had
    ), err
    return err


class Odd(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(192, 10)

    def forward(self, x): return self.fc(x.flatten(1))


def test_what_a_shell_has_no_words_for_is_named(here, capsys, tmp_path):
    data = load_data('digits', size=8, n_train=60, bs=20, device='cpu')
    own = Data((data.train.x, data.train.y), None, (data.test.x, data.test.y), range(10), bs=20, device='cpu')
    with seeded(0):
        students = [resnet(8) for _ in range(7)]
    square = Term(lambda s, t: (s - t).pow(2).mean(), taps=None, name='square')
    runs = dict(
        object=(Odd(), data, 'its student was given as an object .Odd.'),
        unnamed=(resnet(8, stem_width=24), data, 'its student is resnet.*for which there is no name in a shell'),
        loss=(
            Distill(students[0], 'teacher', square),
            data,
            "its method 'CE\\(1\\) \\+ square\\(1, taps=None\\)' has a word of a notebook's own"),
        tensors=(students[0], own, "its data 'own' are tensors or a Dataset"),
        stranger=(
            Distill(students[0], resnet(14), 'kd'),
            data,
            'no run beside .* has the weights [0-9a-f]{12} .*add --teacher RUN'),
        prepared=(
            Distill(students[0], Frozen('teacher', prepare=lambda x: -x), 'kd'),
            data,
            'through a function of a notebook'),
        unseeded=(
            students[1],
            data,
            'the initial weights are [0-9a-f]{12} there, [0-9a-f]{12} here: they were not drawn from its seed'))
    for name, (model, images, why) in runs.items():
        Learner(model, images, run=name, cbs=None).fit(1)
        assert re.search(why, refused(capsys, ['--config', config(name)])), name
    disguised = type('KD', (KD,), {'__module__': 'mine', '__call__': lambda self, s, t, y: (s - t).pow(2).mean()})()
    Learner(Distill(students[0], 'teacher', disguised), data, run='disguised', cbs=None).fit(1)
    assert 'this would not be the run of' in refused(capsys, ['--config', config('disguised')])


def test_files_that_are_no_config(here, capsys, tmp_path):
    good = json.loads((here / 'runs' / 'teacher' / 'config.json').read_text())
    for i, (content, why) in enumerate(
        [
            (b'\xff\xfe\x00', 'is damaged'),
            (b'{"student": {', 'is damaged'),
            (b'', 'is damaged'),
            (b'[' * 100000, 'is damaged'),
            (b'[1, 2]', 'no config.json of a run'),
            (b'{"model_type": "bert"}', 'is not of a kdnb run|no config.json of a run'),
            (good | {'epoch': 3}, "unknown key in .* 'epoch': did you mean epochs"),
            ({k: v for k, v in good.items() if k != 'seed'}, "has no 'seed'"),
            (good | {'data': [1]}, 'is damaged'),
            (good | {'student': 'resnet8'}, 'is damaged'),
            (good | {'recipe': 'crb'}, "unknown recipe 'crb': did you mean crd"),
            (good | {'scheme': 'Mine'}, "its scheme Mine is a notebook's own"),
            (good | {'epochs': 'ten'}, 'epochs'),
            (good | {'epochs': -1}, 'epochs is -1'),
            (
                good | {'data': good['data'] | {'name': 'pets'}},
                "it learnt from 'pets', a folder or an .npz that is not here: add --data PATH"),
            (good | {'data': good['data'] | {'split': 'x'}}, 'the choice of valid images is not the same'),
            (good | {'seed': None}, 'seed'),
            (good | {'amp': 'fp8'}, 'unknown amp'),
            (good | {'method': 7}, 'is damaged|7'),
            (good | {'about': None}, 'damaged'),
            (good | {'remembered': 'all'}, "remembered is 'all'")]):
        (tmp_path / f'{i}.json').write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        assert re.search(why, refused(capsys, ['--config', str(tmp_path / f'{i}.json')])), (i, why)
    for path, why in (
        (str(tmp_path), "is a folder: give the file in it"),
        ('nobody.json', 'there is no file nobody.json'),
        ('mine.npz', 'is damaged')):
        assert why in refused(capsys, ['--config', path])


# --- scripts


def test_quiet_says_nothing_and_json_one_object(here, capsys):
    for name, command, words in (('a', kdnb_train, [*SMALL, *R8]), ('b', kdnb_distill, [*SMALL, *TAUGHT, 'kd'])):
        words = [*words, '--run', f'script-{name}']
        capsys.readouterr()
        assert command([*words, '--quiet']) == 0 and capsys.readouterr() == ('', '')
        assert command([*words, '--json']) == 0
        out, err = capsys.readouterr()
        assert out.count('\n') == 1 and json.loads(out) == dict(
            run=str(here / 'runs' / f'script-{name}'),
            result=Run(f'script-{name}').json('result.json'),
            reduced='REDUCED: 1 of 240 epochs, 60 of 970 training images')
        assert 'finished, loaded' in err
        assert (
            command([*words, '--json', '--quiet']) == 0
            and json.loads(capsys.readouterr().out)
            and capsys.readouterr().err == '')
    assert kdnb_train([*SMALL, '--student', 'resnet2O', '--json']) == 1
    out, err = capsys.readouterr()
    assert out == '' and "unknown model 'resnet2O'" in err
    assert kdnb_test(['script-a', '--device', 'cpu', '--json', '--quiet']) == 0
    said = json.loads(capsys.readouterr().out)
    assert (
        said['split'] == 'test'
        and said['last']['images'] == 719
        and said['last']['accuracy']
        == pytest.approx(said['last']['recorded'], abs=0.005)
        == pytest.approx(Run('script-a').json('result.json')['last']['test_acc'], abs=0.005))
    assert kdnb_test(['script-a', '--device', 'cpu', '--quiet']) == 0 and capsys.readouterr() == ('', '')


def test_a_sweep_for_scripts(here, capsys, monkeypatch):
    monkeypatch.setitem(
        sweep_presets,
        'tiny',
        Preset('tiny', 'two', 'digits', 'crd', {'kd': 'kd'}, (('resnet13', 'resnet8'),), weights='crd'))
    words = ['tiny', *'--epochs 1 --n-train 100 --size 8 --device cpu'.split()]
    assert kdnb_sweep([*words, '--dry-run', '--json', '--quiet']) == 0
    assert [c[0] for c in json.loads(capsys.readouterr().out)['commands']] == [
        'kdnb_train',
        'kdnb_train',
        'kdnb_distill']
    assert kdnb_sweep([*words, '--json', '--quiet']) == 1
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert (
        [Path(r['run']).name for r in said['runs']] == ['digits-crd-epochs1-n-train100-size8-resnet8-0']
        and len(said['failed']) == 2
        and err.startswith('kdnb_sweep: 2 of 3 runs are missing'))
    assert kdnb_sweep(['--json']) == 0 and set(json.loads(capsys.readouterr().out)['presets']) == set(sweep_presets)


# --- what can go wrong with the machine


@pytest.mark.parametrize(
    'error,says',
    [
        (MemoryError(), 'there is not enough memory: take a smaller --bs'),
        (
            torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB'),
            'not enough memory .CUDA out of memory'),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 'not enough memory'),
        (PermissionError(13, 'Permission denied', '/runs/x'), '/runs/x: Permission denied: check the path')])
def test_the_machine_says_no_in_one_sentence(here, capsys, monkeypatch, error, says):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr('kdnb.cli.train.load_data', fail)
    assert re.search(says, refused(capsys, [*SMALL, *R8]))


def test_a_file_where_runs_should_be(here, capsys, monkeypatch):
    monkeypatch.setenv('KDNB_RUNS', str(here / 'mine.npz'))
    assert kdnb_train([*SMALL, *R8, '--run', 'x']) == 1
    err = capsys.readouterr().err
    assert err.count('\n') == 1 and 'mine.npz' in err and 'Not a directory' in err


def test_nobody_reads_on(here):
    "`kdnb_sweep ... | head -1` is no error worth a word."
    program = 'import sys; from kdnb.cli import kdnb_sweep; sys.exit(kdnb_sweep())'
    line = f'{shlex.quote(sys.executable)} -c {shlex.quote(program)} crd --seeds 20 --dry-run | head -1'
    done = subprocess.run(['bash', '-c', line], capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith('# RepDistiller') and done.stderr == ''
