"""Whatever happens to a run - killed, interrupted, a full disk, a damaged file, a loss that is no number - it ends as
if it had not, or says in one sentence why not."""

import errno
import inspect
import io
import json
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import kdnb.train.loop
import kdnb.train.runs
import kdnb.train.scoring
from kdnb.data import load_data
from kdnb.measure import predict
from kdnb.methods import CE, KD, Term
from kdnb.models import load_model, plainnet, resnet, weights_hash
from kdnb.schemes import Alone, Distill, JointRD, Online, Scheme
from kdnb.seeds import seeded
from kdnb.train import (
    Callback,
    Diverged,
    Learner,
    Run,
    about_process,
    has_fast_bf16,
    load_state,
    pick_amp,
    read_history,
)

OWN = ['best.pt', 'config.json', 'history.jsonl', 'last.pt', 'result.json']
CPU = torch.device('cpu')

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('quiet')]


def student(seed=0):
    with seeded(seed):
        return resnet(8)


def learner(data, run=None, init=0, **options): return Learner(student(init), data, run=run, **options)


def whole(learn):
    "All that a run is remembered by, without its clock."
    rows = [{k: v for k, v in r.items() if k not in ('seconds', 'images_per_second')} for r in learn.history]
    return weights_hash(learn.student), weights_hash(learn.scheme), rows, learn.result


def on_disk(path):
    "The same, read from the folder alone."
    rows = [{k: v for k, v in r.items() if k not in ('seconds', 'images_per_second')} for r in read_history(Run(path))]
    return weights_hash(load_model(path, 'last')), rows, Run(path).json('result.json'), sorted(os.listdir(path))


def content(folder):
    return {
        p.relative_to(folder).as_posix(): (p.read_bytes(), p.stat().st_mtime_ns)
        for p in folder.rglob('*')
        if p.is_file()}


class At(Callback):
    "Do something after one step, counted from 1 through all epochs."

    def __init__(self, step, do):
        self.step, self.do, self.done = step, do, 0

    def after_batch(self, learn):
        self.done += 1
        if self.done == self.step:
            self.do(learn)


def throw(error):
    def do(*_):
        raise error

    return do


class Stop(Exception): "Neither Ctrl-C nor an error of ours."


# --- killed

CHILD = '''
import sys, time, torch; from pathlib import Path
torch.set_num_threads(1); sys.path.insert(0, sys.argv[1])
import test_runs as t
data = t.load_data('digits', size=8, n_train=100, bs=20, device='cpu')
folder = Path(sys.argv[2]); t.Learner.callbacks = []
def wait(learn): (folder/'ready').touch(); time.sleep(300)
def second(learn): t.learner(data, folder/'bf16', amp='bf16', cbs=[t.At(8, wait)]).fit(3)
t.learner(data, folder/'off', amp='off', cbs=[t.At(8, second)]).fit(3)
'''


def test_a_killed_run_ends_as_if_it_had_not_been(data, tmp_path):
    "Two runs, in float32 and in bfloat16, both in the third step of their second epoch when the process dies."
    child = subprocess.Popen(
        [sys.executable, '-c', CHILD, str(Path(__file__).parent), str(tmp_path)], start_new_session=True)
    try:
        end = time.time() + 120
        while not (tmp_path / 'ready').exists():
            assert child.poll() is None and time.time() < end
            time.sleep(0.02)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    for amp in ('off', 'bf16') if has_fast_bf16(CPU) else ('off',):
        assert sorted(os.listdir(tmp_path / amp)) == ['best.pt', 'config.json', 'history.jsonl', 'last.pt']
        again, never = (
            learner(data, tmp_path / amp, init=7, amp=amp).fit(3),
            learner(data, tmp_path / f'{amp}-never', amp=amp).fit(3))
        assert whole(again) == whole(never) and on_disk(tmp_path / amp) == on_disk(tmp_path / f'{amp}-never')


def readable(path):
    "No file is half-written, whichever there are."
    for p in path.iterdir():
        if p.suffix == '.pt':
            torch.load(p, weights_only=True)
        elif p.suffix == '.json':
            json.loads(p.read_text())
        else:
            assert p.name == 'history.jsonl' and [json.loads(line) for line in p.read_text().splitlines()]


@pytest.mark.parametrize('when', ['before', 'after', 'full'])
def test_whichever_write_a_run_dies_in_it_goes_on(data, tmp_path, monkeypatch, when):
    "Before the k-th file is in place, after it, and with a disk that is full just then: for every k."
    real, never = os.replace, learner(data, tmp_path / 'never').fit(2)

    def count(at):
        calls = [0]

        def replace(a, b):
            calls[0] += 1
            if calls[0] == at and when != 'after':
                raise OSError(errno.ENOSPC, 'No space left on device') if when == 'full' else Stop
            real(a, b)
            if calls[0] == at: raise Stop

        monkeypatch.setattr(os, 'replace', replace)
        return calls

    calls = count(0)
    learner(data, tmp_path / 'counted').fit(2)
    writes = calls[0]
    assert writes >= 7  # config, (best,) last and history of each epoch, result
    for k in range(1, writes + 1):
        run = tmp_path / f'run-{k}'
        count(k)
        with pytest.raises(OSError if when == 'full' else Stop) as e:
            learner(data, run).fit(2)
        if when == 'full':
            assert 'No space left on device' in str(e.value) and 'intact' in str(e.value) and '\n' not in str(e.value)
        monkeypatch.setattr(os, 'replace', real)
        readable(run)
        again = learner(data, run).fit(2)
        assert whole(again) == whole(never) and on_disk(run) == on_disk(tmp_path / 'never'), f'write {k} of {writes}'
        assert weights_hash(load_model(run, 'best')) == weights_hash(load_model(tmp_path / 'never', 'best'))


def test_a_file_that_a_killed_process_was_writing_is_in_nobodys_way(data, tmp_path):
    for name in ('config.json', 'last.pt'):
        run = tmp_path / name
        run.mkdir()
        (run / f'{name}.4194305.tmp').write_bytes(b'half')  # a process number that no system gives
        assert learner(data, run).fit(1).result


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no /dev/full here')
def test_a_disk_that_is_really_full(data, tmp_path):
    "The neighbour that last.pt is written to leads to a device without space."
    run, kept = tmp_path / 'run', {}

    def fill(learn):
        kept.update(content(run))
        os.symlink('/dev/full', run / f'last.pt.{os.getpid()}.tmp')

    full = learner(data, run, cbs=[At(8, fill)])
    with pytest.raises(
        OSError, match='could not write .*last.pt: No space left on device; what was there before is intact'):
        full.fit(3)
    after = content(run)
    assert (
        after['last.pt'] == kept['last.pt']
        and after['config.json'] == kept['config.json']
        and not list(run.glob('*.tmp')))
    never = whole(learner(data).fit(3))
    assert whole(full.fit(3)) == never and whole(learner(data, run, init=7).fit(3)) == never


# --- two at once

TRAINS = """
import sys, time; sys.path.insert(0, sys.argv[1])
import test_runs as t
t.torch.set_num_threads(1); t.Learner.callbacks = []
data = t.load_data('digits', size=8, n_train=100, bs=20, device='cpu')
def wait(learn):
    if not t.os.fork(): time.sleep(300)         # one that reads images, say, and outlives its parent by a little
    (t.Path(sys.argv[2])/'ready').touch(); time.sleep(300)
t.learner(data, t.Path(sys.argv[2])/'run', cbs=[t.At(8, wait)]).fit(3)
"""


def begun(child, ready):
    end = time.time() + 120
    while not ready.exists():
        assert child.poll() is None and time.time() < end
        time.sleep(0.02)


def when_it_waits(monkeypatch, do):
    "Call a function half a second after a run warns that it waits."
    real = kdnb.train.runs.warn_user

    def warned(text):
        real(text)
        threading.Timer(0.5, do).start()

    monkeypatch.setattr(kdnb.train.runs, 'warn_user', warned)


@pytest.mark.skipif(sys.platform == 'win32', reason='no locks there')
@pytest.mark.parametrize('fresh', [False, True])
def test_a_run_that_another_process_trains_is_awaited(data, tmp_path, monkeypatch, fresh):
    run = tmp_path / 'run'
    child = subprocess.Popen(
        [sys.executable, '-c', TRAINS, str(Path(__file__).parent), str(tmp_path)], start_new_session=True)
    try:
        begun(child, tmp_path / 'ready')
        before = content(run)
        with pytest.raises(OSError, match="run 'run' is being trained by another process: wait"):
            Run(run).hold()
        when_it_waits(monkeypatch, lambda: os.kill(child.pid, signal.SIGKILL) if content(run) == before else None)
        with pytest.warns(UserWarning, match="run 'run' is being trained by another process: this one waits"):
            second = learner(data, run).fit(3, fresh=fresh)
        assert child.wait() == -signal.SIGKILL and whole(second) == whole(learner(data).fit(3))
    finally:
        os.killpg(child.pid, signal.SIGKILL)


@pytest.mark.skipif(sys.platform == 'win32', reason='no locks there')
def test_ctrl_c_while_another_process_is_awaited(data, tmp_path, monkeypatch):
    child = subprocess.Popen(
        [sys.executable, '-c', TRAINS, str(Path(__file__).parent), str(tmp_path)], start_new_session=True)
    try:
        begun(child, tmp_path / 'ready')
        before, learn = content(tmp_path / 'run'), learner(data, tmp_path / 'run')
        when_it_waits(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt), pytest.warns(UserWarning, match='waits'):
            learn.fit(3)
        assert content(tmp_path / 'run') == before and not learn.run.held
    finally:
        os.killpg(child.pid, signal.SIGKILL)


def test_two_learners_do_not_train_one_run_at_once(data, tmp_path):
    said = []

    def second(learn):
        with pytest.raises(OSError, match='another learner of this process') as e:
            learner(data, tmp_path / 'run').fit(3)
        said.append(e)

    never = whole(learner(data).fit(3))
    assert whole(learner(data, tmp_path / 'run', cbs=[At(12, second)]).fit(3)) == never and said
    with pytest.raises(Stop):
        learner(data, tmp_path / 'other', cbs=[At(8, throw(Stop))]).fit(3)
    with pytest.raises(ValueError, match='run differently'):
        learner(data, tmp_path / 'other').fit(4)
    assert whole(learner(data, tmp_path / 'other').fit(3)) == never  # whoever failed has let go


# --- interrupted, from inside


def test_ctrl_c_in_any_step_leaves_the_last_whole_epoch(data, tmp_path, capsys):
    one, never = whole(learner(data).fit(3))[2][:1], whole(learner(data).fit(3))
    for step, rows in ((1, 0), (5, 0), (6, 1), (8, 1)):
        for run in (None, tmp_path / str(step)):
            broken = learner(data, run, cbs=[At(step, throw(KeyboardInterrupt))])
            with pytest.raises(KeyboardInterrupt, match=f'the last whole epoch is {rows} of 3. Run the same cell'):
                broken.fit(3)
            assert 'interrupted' not in capsys.readouterr().out  # once is enough
            assert broken.epoch == rows and whole(broken)[2] == one[:rows] and broken.result is None
            if not rows:
                assert weights_hash(broken.student) == weights_hash(student())
            elif run:
                assert weights_hash(broken.student) == weights_hash(load_model(run, 'last'))
            assert whole(broken.fit(3)) == never  # the learner in hand is still good


@pytest.mark.parametrize('call', [1, 2, 3, 4, 5])
def test_ctrl_c_while_scoring_is_ctrl_c(data, tmp_path, monkeypatch, call):
    "Valid after each of three epochs, then test with the last weights and with the best: interrupted in each."
    calls, run = [0], tmp_path / 'run'

    def scored(*a):
        calls[0] += 1
        if calls[0] == call: raise KeyboardInterrupt
        return predict(*a)

    monkeypatch.setattr(kdnb.train.scoring, 'predict', scored)
    monkeypatch.setattr(kdnb.train.loop, 'predict', scored)
    broken = learner(data, run)
    epoch = min(call - 1, 3)
    with pytest.raises(KeyboardInterrupt, match=f'the last whole epoch is {epoch} of 3'):
        broken.fit(3)
    assert (broken.epoch, len(broken.history)) == (epoch, epoch)
    assert weights_hash(broken.student) == weights_hash(load_model(run, 'last') if epoch else student())
    never = whole(learner(data).fit(3))
    assert whole(broken.fit(3)) == never and whole(learner(data, run).fit(3)) == never


def test_gradients_that_were_left_are_forgotten(data, monkeypatch):
    "Ctrl-C between the backward pass and the step, and a backward pass by hand before the first epoch."
    never, step, steps = whole(learner(data).fit(2)), torch.amp.GradScaler.step, [0]

    def interrupted(scaler, opt):
        steps[0] += 1
        if steps[0] == 7: raise KeyboardInterrupt
        return step(scaler, opt)

    monkeypatch.setattr(torch.amp.GradScaler, 'step', interrupted)
    broken = learner(data)
    with pytest.raises(KeyboardInterrupt):
        broken.fit(2)
    assert whole(broken.fit(2)) == never
    tried = learner(data)
    tried.student.eval()(data.one_batch()[0]).sum().backward()
    assert whole(tried.fit(2)) == never


def test_a_callback_that_raises_leaves_the_run_to_go_on(data, tmp_path):
    never = whole(learner(data).fit(3))
    for run in (None, tmp_path / 'run'):
        broken = learner(data, run, cbs=[At(8, throw(Stop))])
        with pytest.raises(Stop):
            broken.fit(3)
        if run:
            assert whole(learner(data, run, init=7).fit(3)) == never
        assert whole(broken.fit(3)) == never


def test_dropout_goes_on_where_it_was(data, tmp_path):
    def net(p=0.5, seed=0):
        with seeded(seed):
            return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Dropout(p), nn.Flatten(), nn.Linear(72, 10))

    never = Learner(net(), data).fit(3)
    with pytest.raises(Stop):
        Learner(net(), data, run=tmp_path / 'run', cbs=[At(8, throw(Stop))]).fit(3)
    torch.rand(3)  # whatever else the process did
    assert whole(Learner(net(seed=7), data, run=tmp_path / 'run').fit(3)) == whole(never)
    assert weights_hash(Learner(net(p=0.0), data).fit(3).student) != weights_hash(never.student)  # it did drop
    assert weights_hash(Learner(net(), data, seed=1).fit(3).student) != weights_hash(never.student)


def test_each_epoch_draws_something_else_and_each_run_the_same(data):
    def draws(seed):
        drawn = []

        def draw(model, *_):
            if model.training:
                drawn.append(torch.rand(()).item())  # what a dropout would be given

        learn = learner(data, seed=seed)
        learn.student.register_forward_hook(draw)
        learn.fit(3)
        return drawn

    a = draws(0)
    assert len(set(a)) == 15 and draws(0) == a and not set(draws(1)) & set(a)


@pytest.fixture(scope='module')
def teacher():
    with seeded(9):
        return resnet(8, width=2)


def hint(name='hint'):
    return Term(
        nn.functional.mse_loss, 0.1, taps=2, adapt=lambda fs, ft: nn.Conv2d(fs.shape[1], ft.shape[1], 1), name=name)


def hinted(teacher, init=0):
    with seeded(abs(init)):
        return Distill(resnet(8), teacher, [hint(), KD(0.9)], size=8)


def test_adapters_and_their_momentum_go_on_where_they_were(data, tmp_path, teacher):
    first, never = hinted(teacher), hinted(teacher)
    start = weights_hash(never.adapters)
    never = Learner(never, data).fit(3)
    with pytest.raises(Stop):
        Learner(first, data, run=tmp_path / 'run', cbs=[At(13, throw(Stop))]).fit(3)
    again = Learner(hinted(teacher, init=7), data, run=tmp_path / 'run').fit(3)
    assert (
        whole(again) == whole(never)
        and weights_hash(again.scheme.adapters) == weights_hash(never.scheme.adapters) != start)
    momenta = [[s['momentum_buffer'] for s in learn.opt.state_dict()['state'].values()] for learn in (again, never)]
    assert len(momenta[0]) == len([*never.scheme.parameters()]) and all(torch.equal(a, b) for a, b in zip(*momenta))
    assert not any('adapt' in k for k in load_state(again.run, 'last.pt')['state'])  # they never leave with the student


def test_a_teacher_is_the_same_bit_for_bit_after_all(data, tmp_path, teacher):
    before, scheme = weights_hash(teacher), hinted(teacher)  # the hash has the statistics of batch norm in it
    broken = Learner(scheme, data, run=tmp_path / 'run', cbs=[At(8, throw(KeyboardInterrupt))])
    with pytest.raises(KeyboardInterrupt):
        broken.fit(2)
    scheme.train()
    teacher.train()
    broken.fit(2)
    broken.validate('test')
    assert (
        weights_hash(teacher) == before
        and not any(m.training for m in teacher.modules())
        and all(p.grad is None for p in teacher.parameters()))
    assert not {id(p) for p in teacher.parameters()} & {id(p) for g in broken.opt.param_groups for p in g['params']}


# --- damaged, foreign, different


class Evil:
    def __reduce__(self): return os.mkdir, (Evil.to,)


def damages(good, to):
    "What a file's bytes may have become."
    Evil.to = str(to)
    noise, n, sly = random.Random(0).randbytes(len(good)), len(good), io.BytesIO()
    torch.save({'kdnb': 1, 'call': None, 'state': Evil(), 'train': {}}, sly)  # whole, and in the right form
    return {
        'cut': good[: n // 3],
        'short': good[:-1],
        'noise': noise,
        'spot': good[: n // 2] + noise[:40] + good[n // 2 + 40 :],
        'empty': b'',
        'evil': pickle.dumps(Evil(), protocol=2),
        'sly': sly.getvalue()}


def of(kind, folder):
    "A run whose files can be damaged: broken off in its second epoch, or finished."
    d = load_data('digits', size=8, n_train=100, bs=20, device='cpu')
    if kind == 'finished':
        learner(d, folder).fit(2)
    else:
        with pytest.raises(Stop):
            learner(d, folder, cbs=[At(8, throw(Stop))]).fit(2)
    return d


@pytest.mark.parametrize(
    'kind,name',
    [
        ('unfinished', 'last.pt'),
        ('unfinished', 'config.json'),
        ('finished', 'last.pt'),
        ('finished', 'config.json'),
        ('finished', 'result.json')])
def test_a_damaged_file_is_one_sentence_and_nothing_is_touched(tmp_path, kind, name):
    run, marker = tmp_path / 'run', tmp_path / 'executed'
    d = of(kind, run)
    good = (run / name).read_bytes()
    for how, bad in damages(good, marker).items():
        if (how, name) == ('short', 'result.json'):
            bad = good[:-5]
        (run / name).write_bytes(bad)
        before = content(run)
        with pytest.raises(OSError) as e:
            learner(d, run).fit(2)
        assert name in str(e.value) and 'fresh=True' in str(e.value) and '\n' not in str(e.value), how
        assert content(run) == before and not marker.exists(), how
    assert whole(learner(d, run).fit(2, fresh=True)) == whole(learner(d).fit(2))  # the remedy helps
    assert sorted(os.listdir(run)) == OWN


def test_a_damaged_best_is_one_sentence(tmp_path):
    run, marker = tmp_path / 'run', tmp_path / 'executed'
    of('unfinished', run)
    good = (run / 'best.pt').read_bytes()
    for bad in damages(good, marker).values():
        (run / 'best.pt').write_bytes(bad)
        with pytest.raises(OSError) as e:
            load_model(run, 'best')
        assert 'best.pt' in str(e.value) and '\n' not in str(e.value) and not marker.exists()


def test_a_damaged_history_is_one_sentence(tmp_path):
    run = tmp_path / 'run'
    of('finished', run)
    for bad in damages((run / 'history.jsonl').read_bytes()[:-1], tmp_path / 'executed').values():
        (run / 'history.jsonl').write_bytes(bad)
        if bad:
            with pytest.raises(OSError, match='history.jsonl.*damaged'):
                read_history(Run(run))


@pytest.mark.parametrize('other', ['best', 'dict', 'tensor'])
def test_a_file_that_holds_something_else_is_not_gone_on_from(tmp_path, other):
    run = tmp_path / 'run'
    d = of('unfinished', run)
    if other == 'best':
        (run / 'last.pt').write_bytes((run / 'best.pt').read_bytes())
    else:
        torch.save({'a': 1} if other == 'dict' else torch.ones(3), run / 'last.pt')
    before = content(run)
    with pytest.raises(OSError, match='last.pt of run .*fresh=True'):
        learner(d, run).fit(2)
    assert content(run) == before


def test_a_folder_that_is_not_a_run_is_left_alone(data, tmp_path):
    for name, text in (('chapter.tex', 'x'), ('config.json', '{"model_type": "bert"}'), ('last.pt', 'x')):
        for fresh in (False, True):
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            (folder / name).write_text(text)
            before = content(folder)
            with pytest.raises(OSError, match='is not a run.*choose another name'):
                learner(data, folder).fit(1, fresh=fresh)
            assert content(folder) == before
    (tmp_path / 'file').write_text('x')
    with pytest.raises(OSError, match='is not a run'):
        learner(data, tmp_path / 'file').fit(1)
    assert (tmp_path / 'file').read_text() == 'x'


@pytest.mark.filterwarnings('ignore:recipe .jointrd.')
@pytest.mark.parametrize('kind', ['unfinished', 'finished'])
def test_another_configuration_is_refused_by_what_differs_in_words(tmp_path, teacher, kind):
    run = tmp_path / 'run'
    d = of(kind, run)
    before = content(run)
    few = load_data('digits', size=8, n_train=50, bs=20, device='cpu')
    for make, epochs, keys in [
        (lambda: learner(d, run), 3, ['it was trained for 2 epochs, you ask for 3']),
        (
            lambda: learner(d, run, lr=0.1, seed=1),
            2,
            ['the learning rate is 0.05, you ask for 0.1', 'the seed is 0, you ask for 1']),
        (
            lambda: learner(d, run, wd=0.0, amp='off' if pick_amp('auto', CPU) is None else 'bf16'),
            2,
            ['the weight decay is 0.0005, you ask for 0.0', 'the number format (amp) is auto, you ask for']),
        (
            lambda: learner(d, run, recipe='jointrd'),
            2,
            ['the recipe is crd, you ask for jointrd']),
        (lambda: learner(few, run), 2, ['the number of training images is 100, you ask for 50']),
        (lambda: Learner(resnet(14), d, run=run), 2, ["the student's depth is 8, you ask for 14"]),
        (
            lambda: learner(few, run, lr=0.1, wd=0.0, seed=1),
            2,
            ['the number of training images', 'the learning rate', 'the weight decay', 'and 1 more setting']),
        (
            lambda: Learner(Distill(resnet(8), teacher), d, run=run),
            2,
            ['the scheme is Alone, you ask for Distill'])]:
        with pytest.raises(ValueError) as e:
            make().fit(epochs)
        told = str(e.value).split('run differently: ')[1].split('. Choose')[0].split('; ')
        assert all(any(t.startswith(k) for t in told) for k in keys) and 'fresh=True' in str(e.value), e.value
        assert len(told) == len(keys) and '\n' not in str(e.value), e.value
        assert content(run) == before
    assert learner(d, run, init=7).fit(2).result  # and the same one is not


def test_fresh_touches_only_what_the_run_wrote(tmp_path):
    run = tmp_path / 'run'
    d = of('finished', run)
    (run / 'notes.txt').write_text('mine')
    (run / 'figures').mkdir()
    (run / 'figures' / 'best.pt').write_text('mine too')
    (run / 'last.pt.bak').write_text('and this')
    theirs = {k: v for k, v in content(run).items() if k not in OWN}
    learner(d, run, seed=1).fit(1, fresh=True)
    learner(d, run, seed=1).fit(1)
    assert len(theirs) == 3 and {k: v for k, v in content(run).items() if k not in OWN} == theirs
    with pytest.raises(Stop):
        learner(d, run, cbs=[At(2, throw(Stop))]).fit(2, fresh=True)
    assert sorted(n for n in os.listdir(run) if n in OWN) == [
        'config.json'
    ]  # nothing of the old run poses as the new one's


# --- no number


class Sick(Term):
    "kd, but not a number when it is called for the k-th time."

    def __init__(self, at, weight=1.0):
        super().__init__(lambda s, t: (s - t).square().mean(), weight, taps=None, name='mine')
        self.at, self.calls = at, 0

    def __call__(self, s, t, y):
        self.calls += torch.is_grad_enabled()  # not when a scheme tries it, before anything is trained
        return super().__call__(s, t, y) * (float('nan') if self.calls == self.at else 1.0)


def taught(teacher, data, term, run=None, init=0):
    return Learner(Distill(student(init), teacher, [CE(), term]), data, run=run)


def test_a_loss_that_is_no_number_is_named_and_the_last_good_weights_are_kept(data, tmp_path, teacher, capsys):
    run = tmp_path / 'run'
    never = whole(taught(teacher, data, Sick(0)).fit(3))
    sick = taught(teacher, data, Sick(8), run)
    with pytest.raises(
        Diverged, match=r"the loss 'mine' became nan in step 3 of epoch 2: lower lr= \(it is 0\.\d+\) or a weight"):
        sick.fit(3)
    assert 'the last whole epoch is 1 of 3' in capsys.readouterr().out
    assert (
        sorted(os.listdir(run)) == ['best.pt', 'config.json', 'history.jsonl', 'last.pt']
        and len(read_history(sick.run)) == len(sick.history) == 1)
    assert all(v.isfinite().all() for v in sick.student.state_dict().values())
    assert weights_hash(sick.student) == weights_hash(load_model(run, 'last')) and all(
        p.isfinite().all() for p in load_model(run, 'last').parameters())
    before = content(run)
    with pytest.raises(ValueError, match=r'the method is .*Sick\(1\), you ask for .*Sick\(0.1\)\. '):
        taught(teacher, data, Sick(0, 0.1), run).fit(3)
    assert content(run) == before
    assert whole(taught(teacher, data, Sick(0), run, init=7).fit(3)) == never  # the same term, mended, goes on
    assert whole(taught(teacher, data, Sick(0, 0.1), run).fit(3, fresh=True)) == whole(
        taught(teacher, data, Sick(0, 0.1)).fit(3))


def test_a_loss_that_is_no_number_at_once_leaves_the_first_weights(data, tmp_path, teacher):
    sick = taught(teacher, data, Sick(1), tmp_path / 'run')
    with pytest.raises(Diverged, match="'mine' became nan in step 1 of epoch 1"):
        sick.fit(2)
    assert weights_hash(sick.student) == weights_hash(student()) and os.listdir(tmp_path / 'run') == ['config.json']
    sick.scheme.method[1].at = 0
    assert whole(sick.fit(2)) == whole(taught(teacher, data, Sick(0)).fit(2))


@pytest.mark.parametrize('step,epoch', [(5, 1), (10, 2)])
def test_weights_that_are_no_numbers_are_never_saved(data, tmp_path, step, epoch):
    "The losses of the epoch are all finite: only its very last step spoils a weight."

    def spoil(learn):
        with torch.no_grad():
            learn.student.head[-1].weight[0, 0] = float('nan')

    run = tmp_path / 'run'
    sick = learner(data, run, cbs=[At(step, spoil)])
    with pytest.raises(Diverged, match=f'a weight is no longer finite after epoch {epoch}: lower lr='):
        sick.fit(3)
    assert ('last.pt' in os.listdir(run)) == (epoch == 2) and sick.epoch == epoch - 1
    assert all(p.isfinite().all() for p in sick.student.parameters())
    assert whole(sick.fit(3)) == whole(learner(data).fit(3))


# --- again


def test_a_finished_run_in_memory_is_not_trained_again(data):
    steps = At(0, None)
    learn = learner(data, cbs=[steps]).fit(3)
    first = whole(learn)
    assert steps.done == 15 and learn.fit(3) is learn and steps.done == 15 and whole(learn) == first
    learn.fit(3, fresh=True)
    assert steps.done == 30 and whole(learn) == first


def test_a_cell_run_twice_loads(data, tmp_path, teacher, capsys):
    def cell(steps): return Learner(hinted(teacher, init=steps.step), data, run='taught', cbs=[steps]).fit(2)

    first, second = At(0, None), At(-1, None)
    a = cell(first)
    before = content(tmp_path / 'runs' / 'taught')
    capsys.readouterr()
    b = cell(second)
    assert (
        (first.done, second.done) == (10, 0)
        and whole(a) == whole(b)
        and content(tmp_path / 'runs' / 'taught') == before)
    assert "run 'taught': finished, loaded (2 epochs)" in capsys.readouterr().out


def test_without_a_run_nothing_is_written(data, tmp_path, monkeypatch, teacher):
    monkeypatch.delenv('KDNB_RUNS')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kdnb.train.runs, 'write_atomic', throw(AssertionError('written')))
    learn = Learner(hinted(teacher), data, cbs=[At(8, throw(KeyboardInterrupt))])
    with pytest.raises(KeyboardInterrupt):
        learn.fit(2)
    assert learn.fit(2).result and learn.run.path is None and not list(tmp_path.iterdir())
    with pytest.raises(AssertionError, match='written'):
        learner(data, 'run').fit(1)  # the trap does work


# --- randomness


def test_held_out_images_are_the_same_for_every_seed(tmp_path):
    checks = set()
    for seed in (0, 1):
        with seeded(seed):
            d = load_data('digits', size=8, n_train=100, bs=20, device='cpu')
        learner(d, tmp_path / str(seed), seed=seed).fit(1)
        checks.add(
            (
                Run(tmp_path / str(seed)).json('config.json')['data']['split'],
                d.valid.x.sum().item(),
                tuple(d.valid.y.tolist())))
    assert len(checks) == 1
    assert weights_hash(load_model(tmp_path / '0', 'last')) != weights_hash(load_model(tmp_path / '1', 'last'))


def test_the_first_epoch_knows_nothing_of_the_number_of_epochs(data, teacher):
    rows = [whole(Learner(hinted(teacher), data).fit(n))[2][0] for n in (2, 7)]
    assert rows[0] == rows[1]


def test_two_learners_do_not_disturb_each_other_nor_the_generators(data, teacher):
    "One trains within a step of the other."
    a, b = whole(learner(data).fit(3)), whole(Learner(hinted(teacher), data, seed=3).fit(2))
    inner = []
    outer = learner(data, cbs=[At(8, lambda _: inner.append(Learner(hinted(teacher), data, seed=3).fit(2)))])
    # the adapters of `inner` are drawn under `seeded`: what the outer run drew so far must not matter to them
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()
    assert (whole(outer.fit(3)), whole(inner[0])) == (a, b)
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]
    assert all(np.array_equal(x, y) for x, y in zip(np.random.get_state(), before[2]))


# --- formats, order, waiting


@pytest.mark.parametrize('fast', [False, True])
def test_auto_is_bf16_only_where_the_processor_has_it(data, monkeypatch, fast):
    monkeypatch.setattr(torch.cpu, '_is_avx512_bf16_supported', lambda: fast, raising=False)
    assert pick_amp('auto', CPU) is (torch.bfloat16 if fast else None)
    learn = learner(data)
    seen = []
    learn.student.head[-1].register_forward_hook(lambda m, i, o: seen.append((m.training, o.dtype)))
    learn.fit(1)
    assert {t: d for t, d in seen} == {
        True: torch.bfloat16 if fast else torch.float32,
        False: torch.float32,
    }  # scores are in float32
    assert learn.run.json('config.json')['about']['dtype'] == ('bfloat16' if fast else 'float32')


def test_random_numbers_of_every_gpu_go_on_where_they_were(monkeypatch):
    "manual_seed sets those of all of them; the data may be on another than the current one."
    from contextlib import nullcontext

    forked = []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(torch.cuda, 'current_device', lambda: 0)
    monkeypatch.setattr(torch.random, 'fork_rng', lambda devices: forked.extend(devices) or nullcontext())
    monkeypatch.setattr(torch, 'manual_seed', lambda seed: None)
    with seeded(0):
        pass
    assert forked == [0, 1]


# --- after it


def looked_at(learn):
    "Scores before and after somebody looks at the student."
    with torch.no_grad():
        before = learn.validate('test'), [learn.student(torch.zeros(64, 3, 8, 8)) for _ in range(5)]
    return before[0], learn.validate('test')


@pytest.mark.parametrize('end', ['trained', 'loaded', 'Ctrl-C', 'an error', 'no number', 'refused'])
def test_who_looks_at_the_student_afterwards_spoils_nothing(data, tmp_path, end):
    if end == 'loaded':
        learner(data, tmp_path / 'run').fit(2)
    stop = {'Ctrl-C': KeyboardInterrupt, 'an error': Stop}.get(end)
    learn = learner(
        data, tmp_path / 'run', cbs=[At(8, throw(stop))] if stop else (), lr=1e18 if end == 'no number' else None)
    if end in ('trained', 'loaded'):
        learn.fit(2)
    else:
        with pytest.raises((KeyboardInterrupt, Stop, Diverged, ValueError)):
            learn.fit(0 if end == 'refused' else 2)
    assert not any(m.training for m in learn.scheme.modules())
    before, after = looked_at(learn)
    assert before == after


def test_a_callback_that_looks_at_the_student_spoils_nothing(data):
    class Look(Callback):
        def after_epoch(self, learn):
            learn.student(torch.zeros(64, 3, 8, 8))

    assert whole(learner(data, cbs=[Look()]).fit(2)) == whole(learner(data).fit(2))


class Remembers(nn.Module):
    "A model with a state beside its tensors."

    def __init__(self):
        super().__init__()
        with seeded(0):
            self.net = resnet(8)
        self.notes = {'seen': [0]}

    def forward(self, x):
        if self.training:
            self.notes['seen'][0] += len(x)
        return self.net(x)

    def get_extra_state(self): return self.notes

    def set_extra_state(self, state):
        self.notes = state


def test_a_state_that_is_no_tensor_is_kept(data, tmp_path):
    never = Learner(Remembers(), data, run=tmp_path / 'never').fit(3)
    with pytest.raises(Stop):
        Learner(Remembers(), data, run=tmp_path / 'run', cbs=[At(8, throw(Stop))]).fit(3)
    again = Learner(Remembers(), data, run=tmp_path / 'run').fit(3)
    assert again.student.notes == never.student.notes == {'seen': [300]} and whole(again) == whole(never)
    again.fit(3, fresh=True)
    assert whole(again) == whole(never)


# --- what is said


def loss(zs, zt): return (zs - zt).square().mean()


@pytest.mark.parametrize('name', ['loss', 'lr', 'epoch', 'seconds', 'images_per_second', 'train_acc', 'valid_acc'])
def test_a_loss_that_is_called_like_a_column_is_refused_at_once(data, tmp_path, name):
    with pytest.raises(ValueError, match=f"a loss is called '{name}'.*give it another name"):
        Learner(Distill(student(), resnet(14), Term(loss, taps=None, name=name)), data, run=tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_so_is_one_of_a_scheme_of_ones_own(data):
    class Own(Scheme):
        def __init__(self):
            super().__init__()
            self.student = student()

        def forward(self, x, y): return {'loss': nn.functional.cross_entropy(z := self.student(x), y)}, {'student': z}

    with pytest.raises(ValueError, match="a loss is called 'loss'"):
        Learner(Own(), data).fit(1)


def test_methods_are_called_by_their_public_names():
    from kdnb.train import Remembered

    odd = [
        f'{c.__name__}.{n}: {f.__qualname__}'
        for c in (Learner, Run, Scheme, Alone, Distill, JointRD, Online, Remembered)
        for n, f in vars(c).items()
        if n[0] != '_' and inspect.isfunction(f) and (f.__name__ != n or '._' in f'.{inspect.unwrap(f).__qualname__}')]
    assert odd == []
    with pytest.raises(TypeError, match=r'^Learner\.fit\(\) got an unexpected keyword argument'):
        Learner.fit(None, 3, fesh=True)


@pytest.mark.parametrize(
    'options,says',
    [
        (dict(lr='0.1'), "lr must be a number from 0 up, not '0.1'"),
        (dict(seed='0'), "seed is a whole number, not '0'"),
        (dict(seed=1.5), 'seed is a whole number, not 1.5'),
        *((dict(cbs=c), 'cbs= is a list of callbacks') for c in (3, 'x', Callback, [Callback], Callback()))])
def test_what_is_given_by_mistake(data, options, says):
    with pytest.raises((ValueError, TypeError), match=says):
        learner(data, **options)


def test_a_learner_says_what_it_is(data, tmp_path, teacher, monkeypatch):
    learn = Learner(Distill(student(), teacher, 'kd'), data, run=tmp_path / 'kd')
    assert (
        repr(learn)
        == "Learner: resnet8 (Distill from resnet8w2, CE(0.1) + KD(0.9, T=4)) on digits, run 'kd', not fitted")
    learn.fit(1)
    monkeypatch.setattr(nn.Module, '__call__', throw(AssertionError('it computes')))
    assert re.fullmatch(r"Learner: .* on digits, run 'kd', epoch 1 of 1, test_acc [\d.]+", repr(learn))


def test_so_does_one_of_another_scheme(data):
    with seeded(0):
        several = Online([resnet(8), resnet(8)])
    for scheme, says in (
        (Alone(Remembers()), 'Remembers (Alone, CE(1))'),
        (JointRD(plainnet(8), resnet(8)), 'plainnet8 (JointRD from resnet8, jointrd('),
        (several, 'resnet8, resnet8 (Online)')):
        blank = Learner.__new__(Learner)
        blank.__dict__.update(scheme=scheme, data=data, run=Run(), history=[], result=None)
        assert says in repr(blank) and '\n' not in repr(blank)


def test_a_command_that_was_recorded_can_be_pasted(monkeypatch):
    monkeypatch.delitem(sys.modules, 'ipykernel', raising=False)
    monkeypatch.setattr(sys, 'argv', ['/bin/kdnb_distill', '--method', 'kd(T=2)+at', '--data', 'my photos'])
    assert about_process()['command'] == "kdnb_distill --method 'kd(T=2)+at' --data 'my photos'"


def test_another_size_is_said_without_the_statistics_that_follow_it(data, tmp_path):
    learner(data, tmp_path / 'run').fit(1)
    with pytest.raises(ValueError, match='the size of the images is 8, you ask for 16') as e:
        learner(load_data('digits', size=16, n_train=100, bs=20, device='cpu'), tmp_path / 'run').fit(1)
    assert 'mean' not in str(e.value) and len(str(e.value)) < 200


def test_callbacks_are_called_in_order(data):
    said = []

    class Note(Callback):
        def __init__(self, name):
            self.name = name

        def before_fit(self, learn):
            said.append((self.name, 'before_fit', learn.epoch))

        def epochs(self, learn, it):
            said.append((self.name, 'epochs', list(it)))
            return it

        def batches(self, learn, it):
            said.append((self.name, 'batches', learn.epoch))
            return it

        def after_batch(self, learn):
            said.append((self.name, 'after_batch', len(learn.history)))

        def after_epoch(self, learn):
            said.append((self.name, 'after_epoch', learn.history[-1]['epoch']))

        def after_fit(self, learn):
            said.append((self.name, 'after_fit', sorted(learn.result)))

    learn = learner(data, cbs=[Note('a'), Note('b')]).fit(2)
    epoch = ['batches', *['after_batch'] * 5, 'after_epoch']
    events = ['before_fit', 'epochs', *epoch, *epoch, 'after_fit']
    assert [(n, e) for n, e, _ in said] == [(n, e) for e in events for n in 'ab']
    assert [x for n, e, x in said if n == 'a' and e != 'after_batch'] == [0, [0, 1], 0, 1, 1, 2, ['best', 'last']]
    said.clear()
    learn.fit(2)
    assert said == []  # nothing happens in a run that is loaded
