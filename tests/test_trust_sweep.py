"""One job never ends a sweep: whatever a model, a term or a callback of yours raises is noted for its run alone."""

import pytest
from torch import nn
from torch.utils.data import Dataset

from kdnb.cli import kdnb_sweep
from kdnb.data import Data, load_data
from kdnb.experiments import Job, run_jobs, sweep
from kdnb.models import resnet
from kdnb.schemes import Alone
from kdnb.seeds import seeded
from kdnb.train import Callback, Learner, SomeFailed, fit_together

pytestmark = pytest.mark.usefixtures('quiet')
COMMANDS = [f'kdnb_train --data digits --size 8 --n-train 40 --bs 20 --student resnet8 --epochs 1 --device cpu '
            f'--seed {seed} --run alone-{seed}'.split() for seed in (0, 1)]
ERRORS = KeyError('x'), AssertionError(), SystemExit(7)


@pytest.fixture(scope='module')
def few(): return load_data('digits', size=8, n_train=40, bs=20, device='cpu')


def net(seed=0):
    with seeded(seed): return resnet(8)


class Late(nn.Module):
    "A net that goes wrong in a later batch, after all checks."
    def __init__(self, error):
        super().__init__()
        self.net, self.error, self.seen = resnet(8), error, 0

    def forward(self, x):
        self.seen += self.training and len(x) == 20
        if self.seen > 2: raise self.error
        return self.net(x)


class Bad(Callback):
    def __init__(self, hook, error):
        setattr(self, hook, self.fail)
        self.error = error

    def fail(self, *_): raise self.error


class BadScheme(Alone):
    def begin_epoch(self, epoch, epochs):
        if epoch == 1: raise LookupError('no such epoch')
        super().begin_epoch(epoch, epochs)


@pytest.mark.parametrize('error', ERRORS, ids=lambda e: type(e).__name__)
def test_an_error_in_building_or_training_is_noted(few, error):
    def broken(): raise error

    failed = run_jobs([
        Job('builds-not', 2, broken), Job('late', 2, lambda: Learner(Late(error), few, run='late')),
        Job('good', 1, lambda: Learner(net(), few, run='good')),
        Job('waits', 1, lambda: Learner(net(), few, run='waits'), needs=['late'])], say=None)
    assert set(failed) == {'builds-not', 'late', 'waits'} and type(error).__name__ in failed['builds-not']
    assert type(error).__name__ in failed['late'] and '\n' not in failed['late']


class Items(Dataset):
    "Images of which one cannot be had, in the second epoch or as soon as they are asked for."
    def __init__(self, few, late): self.few, self.left = few, 50 if late else 20

    def __len__(self): return len(self.few.train)

    def __getitem__(self, i):
        self.left -= 1
        if self.left < 0: raise ZeroDivisionError('of these data')
        return self.few.train.x[i], int(self.few.train.y[i])


@pytest.mark.parametrize('late', [False, True])
def test_an_error_of_data_is_noted(few, late):
    def broken():
        parts = Items(few, late), None, (few.test.x, few.test.y)
        data = Data(*parts, few.classes, bs=20, stream=True, workers=0, stats=(few.mean, few.std), device='cpu')
        return Learner(net(), data, run='broken')

    good = Job('good', 1, lambda: Learner(net(), few, run='good'))
    failed = run_jobs([Job('broken', 3, broken), good], say=None)
    assert set(failed) == {'broken'} and 'of these data' in failed['broken']


@pytest.mark.parametrize('made', [None, 3], ids=str)
def test_a_job_that_builds_nothing(few, made):
    good = Job('good', 1, lambda: Learner(net(), few, run='good'))
    failed = run_jobs([Job('nothing', 1, lambda: made), good], say=None)
    assert set(failed) == {'nothing'} and 'no learner' in failed['nothing']


def test_jobs_that_wait_for_each_other(few):
    jobs = [Job('a', 1, net, needs=['b']), Job('b', 1, net, needs=['a']), Job('c', 1, net, needs=['c']),
            Job('good', 1, lambda: Learner(net(), few, run='good'))]
    failed = run_jobs(jobs, say=None, wait=0.)
    assert set(failed) == {'a', 'b', 'c'} and 'these wait for each other' in failed['a']


@pytest.mark.parametrize('hook', ['before_fit', 'after_batch', 'after_epoch', 'after_fit', 'batches', 'epochs'])
def test_a_callback_of_one_job(few, hook):
    def learner(run, *cbs): return lambda: Learner(net(), few, run=run, cbs=cbs)

    jobs = [Job('bad', 1, learner('bad', Bad(hook, KeyError('mine')))), Job('good', 1, learner('good'))]
    assert run_jobs(jobs, say=None) == {'bad': "KeyError: 'mine'"}


@pytest.mark.parametrize('hook', ['before_fit', 'after_batch', 'after_epoch', 'after_fit'])
def test_a_callback_of_one_learner_of_a_group(few, hook):
    made = [Learner(net(), few, cbs=[Bad(hook, KeyError('mine'))]), Learner(net(1), few)]
    with pytest.raises(SomeFailed, match='KeyError') as e: fit_together(made, 1)
    assert [*e.value.failed] == made[:1] and made[1].result


def test_a_scheme_of_one_learner_of_a_group(few):
    made = [Learner(BadScheme(net()), few), Learner(net(1), few)]
    with pytest.raises(SomeFailed, match='no such epoch'): fit_together(made, 2)
    assert made[1].result and made[0].epoch == 1


def test_a_sweep_with_a_net_that_fails_late(few):
    def late(classes): return Late(KeyError('gone'))

    results = sweep(['resnet8', late], method=[], seeds=2, epochs=2, data=few)
    assert [row['label'] for row in results] == ['alone', 'alone'] and len(results.left_out) == 2
    assert 'KeyError' in results.left_out[0]['detail']


def test_the_command_tells_and_its_exit_code(monkeypatch, capsys):
    from kdnb.cli import sweep as room
    build = room.build_learner

    def broken(a, quiet):
        if a.run.endswith('-0') and 'alone' in a.run: return {}['gone']
        return build(a, quiet)

    monkeypatch.setattr(room, 'build_learner', broken)
    words = 'kd-grid --data digits --size 8 --valid 0 --epochs 1 --device cpu --method ls'.split()
    monkeypatch.setattr(room, 'asked_commands', lambda a: COMMANDS)
    assert kdnb_sweep(words) == 1
    err = capsys.readouterr().err
    assert 'runs are missing' in err and "KeyError: 'gone'" in err and 'Traceback' not in err
