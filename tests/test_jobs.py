"""Sweeps: several processes make each run once, a killed one leaves nothing locked, what fails is told, and what
learns together is what learns alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from kdnb.data import load_data
from kdnb.experiments import Job, lock_run, run_jobs, sweep, training_cost
from kdnb.models import resnet
from kdnb.schemes import Distill, Frozen
from kdnb.seeds import seeded
from kdnb.systems import Recipe, recipes
from kdnb.train import Callback, Learner, Run

ROOT = Path(__file__).resolve().parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('quiet')]

MAKER = '''
import sys, time, torch; torch.set_num_threads(1)
from kdnb.experiments import Job, run_jobs, sweep, training_cost
from kdnb.experiments import Job
from kdnb.train import Learner, Callback
from kdnb.data import load_data
Learner.callbacks = []
import kdnb.train.loop as loop, kdnb.train.together as together
finish, step = loop.finish_fit, loop.train_step
def told(learn): finish(learn); print('made', learn.run.path.name, flush=True)
def slow(learn, *batch): step(learn, *batch); time.sleep(float(sys.argv[1]))
for m in (loop, together): m.finish_fit, m.train_step = told, slow
data = load_data('digits', size=8, n_train=60, bs=20, device='cpu')
results = sweep(['resnet8'], teacher='resnet14', method=['kd', 'at'], seeds=3, epochs=2, data=data, amp='off')
print('rows', len(results), flush=True)
'''


def start(tmp_path, pause):
    return subprocess.Popen(
        [sys.executable, '-c', MAKER, str(pause)],
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'KDNB_RUNS': str(tmp_path), 'OMP_NUM_THREADS': '1'},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True)


def lines(out, word): return sorted(line.split()[1] for line in out.splitlines() if line.startswith(word + ' '))


def test_two_processes_make_each_run_once(tmp_path, monkeypatch):
    monkeypatch.setattr('kdnb.experiments.jobs.run_jobs.__defaults__', (print, 0.2))
    both = [start(tmp_path, 0.05) for _ in range(2)]
    outs = [p.communicate(timeout=400) for p in both]
    assert [p.returncode for p in both] == [0, 0], outs
    made = [m for out, _ in outs for m in lines(out, 'made')]
    assert len(made) == len(set(made)) == 10 and all(lines(out, 'rows') == ['10'] for out, _ in outs)
    assert any('are being made by other processes' in out for out, _ in outs)


def test_what_a_killed_process_held_is_free(tmp_path):
    child = start(tmp_path, 0.3)
    try:
        while not (log := list(tmp_path.glob('*-kd-0/history.jsonl'))) and child.poll() is None:
            time.sleep(0.05)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    finally:
        child.kill()
    assert log and not (log[0].parent / 'result.json').exists()
    again = start(tmp_path, 0)
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0 and lines(out, 'rows') == ['10'], err
    assert 'goes on after epoch 1 of 2' in out and not any('teacher' in m for m in lines(out, 'made'))


@pytest.fixture
def data(): return load_data('digits', size=8, n_train=60, bs=20, device='cpu')


ASK = dict(teacher='resnet14', seeds=1, epochs=1, amp='off')


def test_a_sweep_makes_what_single_runs_make(data, tmp_path):
    results = sweep('resnet8', method=['kd', 'at'], data=data, **ASK | dict(seeds=[3]))
    teacher = next(r['run'] for r in results if 'teacher' in r['run'])
    for m in 'kd', 'at':
        with seeded(3):
            alone = Learner(Distill(resnet(8), teacher, m, size=8), data, amp='off', seed=3, cbs=None).fit(1)
        row = next(r for r in results if r['run'].endswith(f'-{m}-3'))
        assert row['last'] == alone.result['last']['test_acc']
        assert Run(row['run']).json('config.json')['about']['together'] == 3


def test_a_sweep_takes_a_recipe_of_your_own(data):
    ask = dict(method='ls', data=data, seeds=1, epochs=1)
    first, other = (sweep('resnet8', recipe=Recipe(2, lr=lr, wd=0, opt='adamw'), **ask) for lr in (.01, .02))
    assert len(first) == len(other) == 2 and {row['run'] for row in first}.isdisjoint(row['run'] for row in other)
    assert {row['recipe'] for row in first} == {'own'} and all(row['run'].startswith('digits-60-own-') for row in first)
    assert {row['config']['optimiser']['opt'] for row in first} == {'adamw'}
    named = sweep('resnet8', recipe=recipes['short'], **ask)
    assert {row['recipe'] for row in named} == {'short'}
    assert 'digits-60-short-1-resnet8-ls-0' in [row['run'] for row in named]


def test_seeds_never_share(data):
    sweep('resnet8', method='kd', data=data, **ASK | dict(seeds=2))
    seen = {
        p.name: Run(p).json('config.json')['about'].get('together')
        for p in Path(os.environ['KDNB_RUNS']).iterdir()
        if p.name[0] != '.'}
    assert sorted(seen.values(), key=str) == [2, 2, 2, 2, None]  # two and two, and the teacher by itself


def test_what_fails_is_told_and_the_rest_is_made(data, capsys):
    def small(n): return resnet(8, n)

    def wrong(n): return resnet(8, n + 1)

    results = sweep([small, wrong], method='kd', data=data, **ASK)
    assert sorted(r['run'].split('-')[-3] for r in results) == ['ampoff', 'small', 'small']
    assert [(r['run'].split('-')[-3], r['why']) for r in results.left_out] == [('wrong', 'failed')] * 2
    assert 'the student has 11 classes and digits has 10' in results.left_out[0]['detail']
    out = capsys.readouterr().out
    assert out.count('failed: ') == 1 and ' and 1 more: the student has 11 classes' in out
    assert 'left out, 2 failed' in repr(results)


def test_no_teacher_no_students(data, monkeypatch):
    real = Learner.fit

    def fit(self, *a, **k):
        if 'teacher' in self.run.path.name: raise OSError('disk full')
        return real(self, *a, **k)

    monkeypatch.setattr(Learner, 'fit', fit)
    results = sweep('resnet8', method='kd', data=data, **ASK)
    assert {r['run'].split('-')[-2]: r['detail'] for r in results.left_out} == {
        'resnet14': 'disk full',
        'kd': f"skipped, as there is no teacher {results.left_out[0]['run']}",
    } and len(results) == 1


def test_a_fault_is_told_and_the_lock_let_go(data):
    def make():
        raise KeyError('a bug')

    assert run_jobs([Job('bug', 1, make)]) == {'bug': "KeyError: 'a bug'"}
    assert lock_run('bug') is not None


def test_what_is_there_is_told_in_one_line(data, capsys):
    sweep('resnet8', method='kd', data=data, **ASK)
    capsys.readouterr()
    sweep('resnet8', method='kd', data=data, **ASK)
    assert capsys.readouterr().out == '3 of 3 runs: finished, loaded\n'
    sweep('resnet8', method=['kd', 'at'], data=data, **ASK)
    out = capsys.readouterr().out.splitlines()
    assert (
        out[0] == '3 of 4 runs: finished, loaded'
        and out[1].startswith('[4 of 4] ')
        and 'loaded' not in ''.join(out[1:]))


def test_a_finished_run_that_is_another_is_refused_and_told_when_it_is_found(data, capsys):
    ask = ASK | dict(teacher=None, method='ls', data=data, name='mine')
    sweep('resnet8', **ask)
    capsys.readouterr()
    results = sweep('resnet8', **ask, lr=0.2)
    assert (
        not results
        and all(
            'the learning rate is 0.05, you ask for 0.2. Remove that folder, or make these runs in another place '
            '($KDNB_RUNS)'
            in r['detail']
            for r in results.left_out)
        and capsys.readouterr().out.count('failed: mine') == 2)
    assert {r['run'] for r in sweep('resnet8', **ask | dict(name=None, lr=0.2))} == {
        f'digits-60-crd-1-lr0.2-ampoff-resnet8-{m}-0' for m in ('alone', 'ls')}


def test_a_warning_points_at_the_line_that_asked(data):
    with pytest.warns(UserWarning) as told:
        sweep(
            'resnet8',
            method='kd(1e6)',
            data=load_data('digits', size=8, n_train=60, bs=20, device='cpu', recipe='reducenet'),
            **ASK)
    said = [w for w in told if 'recipe' in str(w.message) or 'starts at' in str(w.message)]
    assert len(said) >= 3 and {w.filename for w in said} == {__file__}


@pytest.mark.parametrize(
    'how', [dict(student=None), dict(student=3), dict(teacher=3), dict(data=[1]), dict(method=None)])
def test_what_is_of_another_kind_is_a_sentence(data, how):
    with pytest.raises(TypeError, match='not (None|3|.1.)'):
        sweep(**dict(student='resnet8', data=data, **ASK, method='kd') | how)


def test_a_teacher_that_is_not_finished_is_told_at_once(data):
    Learner(resnet(8), data, run='half', cbs=None).fit(1)
    (Path(os.environ['KDNB_RUNS']) / 'half' / 'result.json').unlink()
    with pytest.raises((ValueError, OSError), match="run 'half' is not finished"):
        sweep('resnet8', method='kd', data=data, **ASK | dict(teacher='half'))


def test_a_teacher_for_others_is_told_before_anything_is_made(data):
    other = Learner(resnet(8), load_data('digits', size=16, n_train=60, bs=20, device='cpu'), cbs=None).fit(1)
    for teacher, says in (
        (resnet(8, 7), 'the teacher has 7 classes and digits has 10'),
        (Frozen(resnet(8, 7)), 'has 7 classes'),
        (other, 'the teacher saw images of another size')):
        with pytest.raises(ValueError, match=says):
            sweep('resnet8', method='kd', data=data, **ASK | dict(teacher=teacher))
    assert not os.path.exists(os.environ['KDNB_RUNS'])


def test_a_teacher_of_other_classes_teaches_what_reads_features(data):
    other = resnet(8, num_classes=7)
    made = sweep('resnet8', other, method=['fitnet', 'sp'], seeds=1, epochs=1, data=data, amp='off')
    assert len(made) == 3
    with pytest.raises(ValueError, match='the teacher has 7 classes and digits has 10: take another teacher'):
        sweep('resnet8', other, method=['fitnet', 'kd'], seeds=1, epochs=1, data=data, amp='off')


def test_not_enough_memory_is_told_with_a_remedy(data, monkeypatch):
    def fit(self, *a, **k):
        raise torch.OutOfMemoryError(
            'CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB\nSee documentation')

    monkeypatch.setattr(Learner, 'fit', fit)
    results = sweep('resnet8', method='ls', data=data, **ASK)
    assert all(
        r['detail'].startswith('there is not enough memory (CUDA out of memory') and 'take a smaller bs=' in r['detail']
        for r in results.left_out[:1])


def test_ctrl_c_stops_it_and_it_goes_on_later(data, monkeypatch):
    class Stop(Callback):
        def after_batch(self, learn):
            raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(Learner, 'callbacks', [Stop])
        with pytest.raises(KeyboardInterrupt):
            sweep('resnet8', method='kd', data=data, **ASK)
    assert len(sweep('resnet8', method='kd', data=data, **ASK)) == 3


def test_a_dry_run_says_all_and_makes_nothing(data, capsys):
    assert sweep(['resnet8', 'resnet14'], method=['kd', 'at'], data=data, dry_run=True, **ASK | dict(seeds=2)) == []
    out = capsys.readouterr().out
    assert (
        out.startswith('13 runs, ')
        and out.count('after digits-60-crd-1-ampoff-resnet14-teacher') == 8
        and not os.path.exists(os.environ['KDNB_RUNS']))


def test_the_cost_is_that_of_the_profile():
    from kdnb.measure import profile

    with seeded(0):
        assert training_cost('resnet20', None, 10, 3) == 2 * 3 * 10 * 3 * profile(resnet(20), 32).macs


@pytest.mark.parametrize(
    'how, says',
    [
        (dict(seeds=0), 'seeds='),
        (dict(seeds=10**9), 'seeds= is a number of seeds from 1 to 1,000'),
        (dict(seeds=[-1]), 'from 0 up'),
        (dict(student=['resnet8', 'resnet20000000']), 'a digit too many'),
        (dict(student='resnt8'), 'did you mean'),
        (dict(student=[]), 'student is empty'),
        (dict(recipe='crdd'), 'did you mean crd'),
        (dict(epochs=0), 'epochs must be'),
        (dict(epochs='3'), 'epochs must be'),
        (dict(lr=-1), 'lr must be'),
        (dict(amp='fp8'), 'unknown amp'),
        (dict(teacher=None), 'kd needs a teacher'),
        (dict(name='a/b'), "such as 'a-b'"),
        (dict(teacher='/nowhere'), 'nowhere'),
        (dict(teacher='./runs'), 'runs'),
        (dict(seeds=True), 'seeds='),
        (dict(method='kdd'), 'did you mean'),
        (dict(student=[lambda classes: resnet(8, classes), lambda classes: resnet(14, classes)]), 'one name'),
        (dict(teacher='nobody'), 'nobody'),
        (dict(student='plainnet8', method='jointrd(train_teacher=True)'), 'share their teacher')])
def test_mistakes_are_told_before_anything_is_made(data, how, says):
    with pytest.raises((ValueError, OSError), match=says):
        sweep(**dict(student='resnet8', data=data, **ASK, method='kd') | how)
    assert not os.path.exists(os.environ['KDNB_RUNS'])
