"""Two processes under torchrun make the run that one process makes: the same steps, scores and folder, resumed either
way; and one that dies ends both with one sentence."""

import json
import os
import shutil
import signal
import subprocess
import sys
import types
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import kdnb.train.loop
from kdnb.cli import kdnb_distill, kdnb_train
from kdnb.data import Data, load_data
from kdnb.models import plainnet, resnet
from kdnb.parallel import join, leave, rank, wait_for_all, world_size
from kdnb.schemes import Alone, Distill, JointRD, Online
from kdnb.seeds import seeded
from kdnb.train import Callback, Learner, copy_weights, fit_together, score_split

ROOT = Path(__file__).resolve().parents[2]
DATA = dict(size=8, n_train=100, bs=20, device='cpu')
EPOCHS, LR = 2, 0.01
# float32 kernels round a batch of 10 and one of 20 otherwise; ten steps of two joined nets make 1e-3 of it on some
# processors, and 2e-15 where the same steps are taken in float64
ROUNDING = dict(jointrd=5e-3, jointrd_learning=5e-3)

# --- what one process and each of two do alike


def norms(module): return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


def still(scheme, x, y):
    """Its BatchNorms, and its teacher's, have the statistics of a batch and keep them: those of a part of a batch are
    another matter."""
    with torch.no_grad():
        for m in norms(scheme):
            m.momentum = 1.0
        scheme.train()(x, y)
    for m in norms(scheme):
        m.eval()
        m.train = types.MethodType(lambda self, mode=True: self, m)
    return scheme


def seen(model):
    "A teacher with statistics of its own."
    for m in norms(model):
        nn.init.uniform_(m.running_var, 0.5, 2.0)
    return model


class Idle(nn.Module):
    "A net with a part that never runs."

    def __init__(self):
        super().__init__()
        self.net, self.spare = resnet(8), nn.Linear(3, 3)

    def forward(self, x): return self.net(x)


class Dropping(nn.Module):
    "A net that remembers what its dropout left in the last step."

    def __init__(self):
        super().__init__()
        self.net, self.drop = resnet(8), nn.Dropout(0.5)

    def forward(self, x):
        if self.training:
            self.seen = self.drop(torch.ones(8))
        return self.net(self.drop(x))


def taught(method): return lambda: Distill(resnet(8), seen(resnet(14, width=2)), method, size=8)


def jointly(**how): return lambda: JointRD(plainnet(8), seen(resnet(14)), size=8, ramp=0.5, **how)


SCHEMES = dict(
    alone=lambda: Alone(resnet(8)),
    idle=lambda: Alone(Idle()),
    **{m: taught(m) for m in ('kd', 'at(10)', 'sp(30)', 'rkd(.1)', 'ofd', 'dkd', 'kd+sp(30)+rkd(.1)', 'review(.1)')},
    hint=taught('fitnet(10)'),
    stages=taught('ce(after(1, .5))+kd(after(1, .5))+fitnet(until(10, .5))'),
    jointrd=jointly(),
    jointrd_learning=jointly(train_teacher=True),
    online=lambda: Online([resnet(8) for _ in range(2)], size=8),
    peers=lambda: Online([resnet(8) for _ in range(2)], size=8, teacher='peers'))


def learner(kind, data, **how):
    with seeded(0):
        scheme = still(SCHEMES[kind](), *data.examples(20, 'train'))
    return Learner(scheme, data, lr=LR, amp='off', cbs=None, **how)


def flat(state): return torch.cat([v.flatten().double() for v in state.values()])


def moved(learn):
    "How far all that is trained has moved."
    now, start = copy_weights(learn.scheme), learn.init
    return torch.cat(
        [
            (now[part][k] - start[part][k]).flatten().double()
            for part in now
            for k in now[part]
            if now[part][k].is_floating_point()])


def trained(kind, data, **how):
    learn = learner(kind, data, **how).fit(EPOCHS)
    return dict(moved=moved(learn), history=learn.history, result=learn.result, keys=sorted(learn.scheme.state_dict()))


def streamed():
    "The same images, read one by one."
    d = load_data('digits', **DATA)
    return Data(
        *(TensorDataset(s.x, s.y) for s in (d.train, d.valid, d.test)),
        d.classes,
        bs=20,
        augment='crop',
        device='cpu',
        stream=True,
        workers=0,
        stats=(d.mean, d.std))


def stopped(learn):
    "Ctrl-C in the second epoch, on every rank."
    one = kdnb.train.loop.one_epoch

    def until(learn):
        if learn.epoch == 1: raise KeyboardInterrupt
        one(learn)

    with patch.object(kdnb.train.loop, 'one_epoch', until), pytest.raises(KeyboardInterrupt):
        learn.fit(3)
    return learn.history


# --- what only a rank can tell


def refusals(data, where):
    "What is refused, in its words."

    def said(f):
        try:
            f()
        except Exception as e:
            return f'{type(e).__name__}: {e}'

    few = load_data('digits', **DATA | dict(valid=1, bs=2))
    return dict(
        batch=said(lambda: learner('alone', load_data('digits', **DATA | dict(bs=25)))),
        few=said(lambda: learner('alone', few).fit(1)),
        damaged=said(lambda: learner('kd', data, run=f'{where}/damaged').fit(3)),
        other=said(lambda: learner('alone', data, run=f'{where}/two').fit(9)),
        wild=said(lambda: Learner(resnet(8), data, lr=1e18, amp='off', cbs=None).fit(2)))


class Watch(Callback):
    seen = 0

    def after_epoch(self, learn):
        Watch.seen += 1


def child(where):
    join()
    torch.set_num_threads(1)
    data = load_data('digits', **DATA)
    told = dict(
        me=(rank(), world_size()), trained={k: trained(k, data) for k in SCHEMES}, stream=trained('kd', streamed()))
    torch.compile = partial(torch.compile, backend='eager')
    told['compiled'] = trained('kd+sp(30)+rkd(.1)', data, compile=True)
    told['half'] = stopped(learner('kd', data, run=f'{where}/two-one'))
    told['joined'] = learner('kd', data, run=f'{where}/one-two').fit(3).history
    whole = learner('kd', data, run=f'{where}/two').fit(3)
    told |= dict(
        whole=moved(whole),
        scores=[score_split(whole, s) == whole.validate(s) for s in ('valid', 'test')],
        again=learner('kd', data, run=f'{where}/two').fit(3).result == whole.result)
    odd = load_data('digits', **DATA | dict(n_train=95))
    watched = Learner(resnet(8), odd, amp='off', cbs=[Watch()], lr=LR).fit(1)
    with seeded(rank()):
        own = Learner(Dropping(), odd, amp='off', cbs=None)
    dropped = own.fit(1).student.seen
    told |= dict(
        left_out=watched.train.left_out,
        watched=Watch.seen,
        ordinary=flat(copy_weights(watched.scheme)['state']),
        start=flat(own.init['state']),
        dropped=dropped)
    told['refused'] = refusals(data, where)
    wait_for_all()
    torch.save(told, where / f'{rank()}.pt')
    leave()


# --- torchrun


def torchrun(*words, **env):
    "Start two processes; their exit code, what they printed, and what stood on stderr."
    env = {
        **os.environ,
        'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'tests' / 'slow')]),
        'OMP_NUM_THREADS': '1',
        'MPLBACKEND': 'Agg',
        'CUDA_VISIBLE_DEVICES': '',
        **env}
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', *map(str, words)],
        env=env,
        capture_output=True,
        text=True,
        timeout=300)
    return done.returncode, done.stdout, done.stderr


def command(name, *words, **env):
    return torchrun(
        '--no-python',
        '--',
        sys.executable,
        '-c',
        f"import sys, kdnb.cli as c; sys.exit(c.{name}())",
        *words,
        **env)


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


@pytest.fixture(scope='module')
def data(): return load_data('digits', **DATA)


@pytest.fixture(scope='module')
def place(tmp_path_factory, data):
    "Runs that one process began."
    place = tmp_path_factory.mktemp('ranks')
    learner('kd', data, run=f'{place}/one').fit(3)
    stopped(learner('kd', data, run=f'{place}/one-two'))
    shutil.copytree(place / 'one-two', place / 'damaged')
    (place / 'damaged' / 'last.pt').write_bytes(b'cut short')
    return place


@pytest.fixture(scope='module')
def ranks(place):
    "What each of two processes found out."
    code, out, err = torchrun(__file__, place)
    assert code == 0, out + err
    return [torch.load(place / f'{r}.pt', weights_only=False) for r in (0, 1)]


@pytest.fixture(scope='module')
def alone(data): return {k: trained(k, data) for k in SCHEMES}


def near(a, b): return ((a - b).norm() / b.norm()).item()


def same_rows(rows, expected, but=('seconds', 'images_per_second')):
    assert [list(r) for r in rows] == [list(r) for r in expected]
    for r, e in zip(rows, expected):
        for k in r.keys() - set(but):
            assert r[k] == pytest.approx(e[k], rel=2e-3, abs=1.01 if k == 'train_acc' else 1e-4), k


# --- the same run


def test_who_is_who(ranks):
    assert [r['me'] for r in ranks] == [(0, 2), (1, 2)]


@pytest.mark.parametrize('kind', SCHEMES)
def test_two_processes_learn_what_one_learns(ranks, alone, kind):
    expected = alone[kind]
    assert expected['moved'].norm() > 1e-3
    for r in ranks:
        found = r['trained'][kind]
        assert near(found['moved'], expected['moved']) < ROUNDING.get(kind, 1e-4) and found['keys'] == expected['keys']
        same_rows(found['history'], expected['history'])
        assert found['result'] == expected['result']
    assert torch.equal(*(r['trained'][kind]['moved'] for r in ranks))


def test_a_stream_too(ranks, alone):
    for r in ranks:
        assert near(r['stream']['moved'], alone['kd']['moved']) < 1e-3
        same_rows(r['stream']['history'], alone['kd']['history'])


def test_compiled(ranks, alone):
    for r in ranks:
        assert (
            near(r['compiled']['moved'], alone['kd+sp(30)+rkd(.1)']['moved']) < 1e-3
            and r['compiled']['keys'] == alone['kd+sp(30)+rkd(.1)']['keys'])


def test_ordinary_batchnorm_ends_alike_on_all_ranks(ranks):
    assert torch.equal(ranks[0]['ordinary'], ranks[1]['ordinary']) and ranks[0]['ordinary'].isfinite().all()


def test_all_begin_with_the_weights_of_rank_0(ranks):
    assert torch.equal(ranks[0]['start'], ranks[1]['start'])


def test_dropout_differs(ranks):
    assert not torch.equal(ranks[0]['dropped'], ranks[1]['dropped'])


def test_images_that_make_no_equal_parts_are_left_out(ranks):
    assert [r['left_out'] for r in ranks] == [1, 1]


def test_only_rank_0_is_watched(ranks):
    assert [r['watched'] for r in ranks] == [1, 0]


def test_parts_score_what_the_whole_scores(ranks):
    assert [r['scores'] for r in ranks] == [[True] * 2] * 2


# --- the same folder


def files(run): return sorted(f.name for f in run.iterdir())


def keys_of(run): return {f: sorted(torch.load(run / f, weights_only=True)['state']) for f in ('last.pt', 'best.pt')}


def config(run): return json.loads((run / 'config.json').read_text())


def test_the_run_folder_is_the_same(ranks, place):
    one, two = place / 'one', place / 'two'
    assert files(two) == files(one) and keys_of(two) == keys_of(one) and [r['again'] for r in ranks] == [True] * 2
    a, b = config(one), config(two)
    assert b['about'].pop('processes') == 2 and a['about'].keys() == b['about'].keys()
    a.pop('about')
    b.pop('about')
    assert a == b
    a, b = ([json.loads(line) for line in (run / 'history.jsonl').read_text().splitlines()] for run in (one, two))
    same_rows(b, a)


def test_begun_by_one_ended_by_two(ranks, place):
    one = [json.loads(line) for line in (place / 'one' / 'history.jsonl').read_text().splitlines()]
    for r in ranks:
        same_rows(r['joined'], one)
    assert files(place / 'one-two') == files(place / 'one') and 'processes' not in config(place / 'one-two')['about']


def test_begun_by_two_ended_by_one(ranks, place, data):
    one = learner('kd', data, run=f'{place}/one').fit(3)  # loaded
    learn = learner('kd', data, run=f'{place}/two-one').fit(3)
    same_rows(learn.history, one.history)
    assert near(moved(learn), moved(one)) < 1e-4
    assert [len(r['half']) for r in ranks] == [1, 1] and config(place / 'two-one')['about']['processes'] == 2


# --- refused alike


@pytest.mark.parametrize(
    'what, words',
    dict(
        batch='WrongValue: a batch of 25 images does not divide by 2 processes: say bs=24',
        few='WrongValue: 1 images are too few for 2 processes',
        damaged="FileTrouble: last.pt of run 'damaged' is damaged",
        other="WrongValue: run 'two' was run differently",
        wild='Diverged: ',
    ).items())
def test_refused_on_all_ranks(ranks, what, words):
    for r in ranks:
        assert r['refused'][what].startswith(words)


# --- commands

SMALL = '--data digits --size 8 --n-train 100 --bs 20 --device cpu --amp off --epochs 3'.split()


def said(err): return [line for line in err.splitlines() if line.startswith('kdnb_')]


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    runs = tmp_path_factory.mktemp('runs')
    with pytest.MonkeyPatch.context() as m:
        m.setenv('KDNB_RUNS', str(runs))
        assert kdnb_train([*SMALL, '--student', 'resnet8', '--run', 'teacher']) == 0
    return runs


TAUGHT = [*SMALL, '--teacher', 'teacher', '--student', 'test_ranks:mortal', '--run', 'taught']


class Mortal(nn.Module):
    "A net that kills its process in the second epoch, if that is rank 1 and $MORTAL says so."

    def __init__(self):
        super().__init__()
        self.net, self.steps = resnet(8), 0

    def forward(self, x):
        self.steps += self.training
        if self.steps > 10 and os.environ.get('MORTAL') == os.environ.get('RANK', '-'):
            os.kill(os.getpid(), signal.SIGKILL)
        return self.net(x)


def mortal(num_classes): return Mortal()


@pytest.mark.parametrize('who', ['1', '0'])
def test_a_process_that_dies(runs, monkeypatch, capsys, who):
    monkeypatch.setenv('KDNB_RUNS', str(runs))
    monkeypatch.syspath_prepend(str(ROOT / 'tests' / 'slow'))
    code, out, err = command('kdnb_distill', *TAUGHT, '--fresh', MORTAL=who)
    assert code == 1 and said(err) == [
        'kdnb_distill: one of the processes that train together has ended, and the others cannot go on without it: '
        'run the same command again, and it continues after the last whole epoch']
    assert (
        out.count('epoch 1/3') == 1
        and out.count('resnet8:') <= 1
        and files(runs / 'taught') == ['best.pt', 'config.json', 'history.jsonl', 'last.pt'])
    assert kdnb_distill(TAUGHT) == 0 and "goes on after epoch 1 of 3" in capsys.readouterr().out


def group(where):
    "Two learners together; on rank 0 a callback of the first one raises."
    join()
    torch.set_num_threads(1)
    data = load_data('digits', **DATA)

    class Raise(Callback):
        def after_batch(self, learn):
            if learn.epoch == 1: raise ZeroDivisionError('of the user')

    with seeded(0):
        pair = [
            Learner(resnet(8), data, run=f'{where}/{k}', amp='off', cbs=[Raise()] if k == 'a' else []) for k in 'ab']
    fit_together(pair, 3, cbs=None)


def test_what_fails_in_one_process_ends_a_group_in_all(tmp_path, data):
    "The other process would wait for steps that are no longer taken, or take those of another learner for them."
    code, out, err = torchrun(__file__, tmp_path, 'group')
    told = sorted(
        line.split(': ', 1)[1]
        for line in err.splitlines()
        if line.startswith('[rank') and ('ZeroDivisionError: ' in line or 'ProcessEnded: ' in line))
    assert (
        code == 1
        and {t.split(':')[0] for t in told} == {'ZeroDivisionError', 'kdnb.parallel.ranks.ProcessEnded'}
        and 'SomeFailed' not in err)
    with seeded(0):
        learn = Learner(resnet(8), data, run=tmp_path / 'b', amp='off', cbs=None)
    assert learn.fit(3).result and len(learn.history) == 3


def test_a_damaged_run_is_told_once(runs):
    shutil.copytree(runs / 'teacher', runs / 'torn')
    (runs / 'torn' / 'config.json').write_bytes(b'{"epo')
    code, out, err = command('kdnb_train', *SMALL, '--student', 'resnet8', '--run', 'torn', KDNB_RUNS=str(runs))
    assert code == 1 and said(err) == [
        "kdnb_train: config.json of run 'torn' is damaged: mend it, or start over with --fresh"]
    assert out.count('resnet8:') == 1


# --- on GPUs


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason='needs two GPUs')
def test_two_gpus(runs):
    code, out, err = command(
        'kdnb_distill',
        '--data',
        'digits',
        '--size',
        '8',
        '--n-train',
        '100',
        '--bs',
        '20',
        '--epochs',
        '2',
        '--teacher',
        'teacher',
        '--student',
        'resnet8',
        '--method',
        'kd+sp',
        '--run',
        'gpus',
        KDNB_RUNS=str(runs),
        CUDA_VISIBLE_DEVICES='0,1')
    assert code == 0, err
    assert (
        config(runs / 'gpus')['about']['processes'] == 2
        and files(runs / 'gpus') == files(runs / 'teacher')
        and list(keys_of(runs / 'gpus')['last.pt']) == list(keys_of(runs / 'teacher')['last.pt']))


if __name__ == '__main__':
    (group if sys.argv[2:] else child)(Path(sys.argv[1]))
