"ONE, DML and KDCL: an interrupted run ends as if it had not been, commands know them, and one head is exported."

import json

import pytest
import torch
from torch import nn

from kdnb.cli import kdnb_test, kdnb_train
from kdnb.data import load_data
from kdnb.experiments import option_words, repeat_options
from kdnb.models import load_model, num_params, resnet, weights_hash
from kdnb.schemes import DML, KDCL, ONE, Alone
from kdnb.seeds import seeded
from kdnb.train import Callback, Learner, Run, load_state

pytestmark = pytest.mark.usefixtures('quiet')


def one(): return ONE(resnet(8), size=8)
def dml(): return DML([resnet(8), resnet(8)], size=8)
def kdcl(): return KDCL([resnet(8), resnet(8, width=2)], size=8)


class Stop(Callback):
    "An error in the middle of the second epoch."
    def __init__(self):
        self.done = 0
    def after_batch(self, learn):
        self.done += 1
        if self.done == 8: raise KeyError('stop')


def learner(make, data, run=None, seed=0, **options):
    with seeded(seed):
        return Learner(make(), data, run=run, **options)


def whole(learn):
    rows = [{k: v for k, v in r.items() if k not in ('seconds', 'images_per_second')} for r in learn.history]
    return weights_hash(learn.scheme), weights_hash(learn.student), rows, learn.result


@pytest.mark.slow
@pytest.mark.parametrize('make', [one, kdcl])
def test_a_run_that_stopped_ends_as_if_it_had_not(data, tmp_path, make):
    never = whole(learner(make, data).fit(2))
    with pytest.raises(KeyError):
        learner(make, data, tmp_path / 'run', cbs=[Stop()]).fit(2)
    assert whole(learner(make, data, tmp_path / 'run', seed=7).fit(2)) == never     # all weights come from the run
    assert whole(learner(make, data, tmp_path / 'run', seed=8).fit(2)) == never     # and a finished run is loaded


def test_one_branch_is_kept_and_exported(data, tmp_path, caplog):
    learn = learner(one, data, tmp_path / 'run')
    with caplog.at_level('INFO', 'kdnb'):
        learn.scheme.check(data)
    assert 'ONE trains 3 heads; what is saved as the student and exported is the first' in caplog.text
    learn.fit(1)
    kept = load_model(tmp_path / 'run', 'last')
    assert num_params(kept) == num_params(resnet(8)) and weights_hash(kept) == weights_hash(learn.student)
    assert set(load_state(Run(tmp_path / 'run'), 'last.pt')['train']['rest']) > {'gate.fc.weight'}
    assert kept.eval()(torch.zeros(2, 3, 8, 8)).shape == (2, 10)


def test_one_costs_what_it_trains(data):
    learn = learner(one, data).fit(1)
    student, scheme = learn.student, learn.scheme
    last = num_params(student.stages[-1]) + num_params(student.head)
    assert num_params(scheme) - num_params(student) == 2*last + num_params(scheme.gate)
    assert {k for k in learn.history[0] if k.startswith(('ce', 'kd', 'ens'))} == {
        *(f'{k}_{j}' for k in ('ce', 'kd') for j in (1, 2, 3)), 'ensemble_ce', 'ensemble_acc'}


def test_the_student_begins_as_it_does_alone(data):
    with seeded(3):
        alone = Learner(Alone(resnet(8)), data)
    assert weights_hash(learner(one, data, seed=3).student) == weights_hash(alone.student)


def test_transformers_may_be_peers_and_one_says_what_it_needs(data):
    class Tokens(nn.Module):
        "No maps anywhere."
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(192, 10)
        def forward(self, x): return self.fc(x.flatten(1))

    losses, _ = DML([Tokens(), Tokens()], size=8)(torch.randn(4, 3, 8, 8), torch.arange(4))
    assert losses['kd_1'] > 0
    with pytest.raises(ValueError, match='map'):
        ONE(Tokens(), size=8)


def test_soft_labels_of_one_class_say_the_same():
    x, y = torch.randn(6, 3, 8, 8), torch.arange(6)
    for make in (one, dml, kdcl):
        with seeded(0):
            scheme = make().eval()
        hard, soft = scheme(x, y)[0], scheme(x, nn.functional.one_hot(y, 10).float())[0]
        assert all(torch.allclose(hard[k], soft[k], atol=1e-5) for k in hard)


SMALL = '--data digits --size 8 --n-train 100 --bs 20 --student resnet8 --device cpu --epochs 1'.split()


@pytest.mark.slow
@pytest.mark.parametrize('words', ['one(branches=2)', 'dml(2)', 'kdcl(2, ensemble="naive")'])
def test_commands_know_them_and_a_run_can_be_repeated(words, capsys):
    assert kdnb_train([*SMALL, '--method', words, '--run', 'first']) == 0
    again = option_words(repeat_options(Run('first').path/'config.json', ['--run']) | {'--run': 'second'})
    assert kdnb_train(again) == 0
    first, second = (json.loads((Run(name).path/'result.json').read_text()) for name in ('first', 'second'))
    assert first == second and kdnb_test(['first', '--device', 'cpu']) == 0
    assert 'recorded' in capsys.readouterr().out


@pytest.mark.parametrize('words, told', [
    (['--method', 'one', '--teacher', 'x'], 'leave --teacher'), (['--method', 'one(branches=1)'], 'from 2 up'),
    (['--method', 'dml(1)'], 'two students or more'), (['--method', 'kdcl(ensemble="mean")'], 'naive')])
def test_mistakes(capsys, words, told):
    assert kdnb_train([*SMALL, *words, '--run', 'never']) == 1
    assert told in capsys.readouterr().err


def test_data_of_one_stage_are_told():
    small = load_data('digits', size=8, n_train=100, bs=20, device='cpu')
    with pytest.raises(ValueError, match='one at this size'):
        Learner(ONE(nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                                  nn.Linear(8, 10))), small)
