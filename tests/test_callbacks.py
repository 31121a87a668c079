"""Callbacks that end a run, average its student, look for its rate or show it elsewhere; resumed, and in company."""
import json
from dataclasses import replace

import pytest

from kdnb.callbacks import EMA, EarlyStop, LRFinder, WandB, create_callback
from kdnb.cli import kdnb_train
from kdnb.data import load_data
from kdnb.models import load_model, resnet, weights_hash
from kdnb.seeds import seeded
from kdnb.systems import recipes
from kdnb.train import Callback, Learner, Run, fit_together

DATA = load_data('digits', size=8, n_train=120, bs=20, device='cpu')

def learner(run=None, cbs=(), **how) -> Learner:
    with seeded(0): student = resnet(8)
    return Learner(student, DATA, run=run, cbs=list(cbs), **how)

class Killed(Callback):
    """Plays a process that ends after an epoch is saved, before callbacks see it, or in the middle of the next."""
    def __init__(self, epoch, early): self.epoch, self.early = epoch, early
    def after_epoch(self, learn):
        if self.early and learn.epoch == self.epoch: raise SystemError('killed')
    def after_batch(self, learn):
        if not self.early and learn.epoch == self.epoch: raise SystemError('killed')

@pytest.mark.parametrize(('epoch', 'early'), [(2, True), (2, False), (3, True)])
def test_a_killed_run_stops_where_it_would_have(epoch, early, tmp_path):
    stop = EarlyStop(2, least=100.)                         # the first epoch is the best
    assert learner(cbs=[stop]).fit(9).epoch == 3
    with pytest.raises(SystemError): learner(tmp_path/'run', cbs=[Killed(epoch, early), stop]).fit(9)
    learn = learner(tmp_path/'run', cbs=[stop]).fit(9)
    assert learn.epoch == learn.result['last']['epoch'] == 3
    assert weights_hash(learn.student) == weights_hash(learner(cbs=[stop]).fit(9).student)

def test_one_of_a_group_stops():
    first, second = learner(cbs=[EarlyStop(1, least=100.)]), learner(cbs=[EarlyStop(9)])
    fit_together([first, second], 4, cbs=None)
    assert (first.epoch, second.epoch) == (2, 4) and first.result and second.result

def test_one_of_a_group_that_was_overdue_is_finished(tmp_path):
    stop = EarlyStop(1, least=100.)
    with pytest.raises(SystemError): learner(tmp_path/'run', cbs=[Killed(2, True), stop]).fit(4)
    other = learner()
    fit_together([learn := learner(tmp_path/'run', cbs=[stop]), other], 4, cbs=None)
    assert (learn.epoch, learn.result['last']['epoch'], other.epoch) == (2, 2, 4)

def test_an_average_by_name_is_in_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv('KDNB_RUNS', str(tmp_path))
    words = '--data digits --size 8 --n-train 100 --student resnet8 --epochs 1 --device cpu --run r --callback ema'
    assert kdnb_train([*words.split(), '--quiet']) == 0
    run = Run('r')
    assert run.json('config.json')['optimiser']['ema'] == .9999 and 'ema' in run.json('result.json')
    assert weights_hash(load_model('r', 'ema')) != weights_hash(load_model('r', 'last'))

def test_an_average_as_callback_and_in_the_recipe_are_one_run(tmp_path):
    learner(tmp_path/'run', cbs=[EMA(.9)]).fit(1)
    with pytest.raises(ValueError, match='the recipe is crd, you ask for own'):
        learner(tmp_path/'run', recipe=replace(recipes['crd'], ema=.9)).fit(1)
    with pytest.raises(ValueError, match="the optimiser's ema is 0.9, you give none"): learner(tmp_path/'run').fit(1)

def test_a_search_for_a_rate_leaves_the_student_as_it_was():
    learn = learner(cbs=[finder := LRFinder(1e-4, 1e6, steps=6)])
    before = weights_hash(learn.student)
    learn.fit(1)
    assert weights_hash(learn.student) == before and len(finder.rates) <= 6
    assert finder.rates == pytest.approx([1e-4*1e10**(n/5) for n in range(len(finder.rates))])
    assert len(finder.show().axes) == 1 and 10*finder.rate in finder.rates

def test_a_search_for_a_rate_is_no_run(tmp_path):
    with pytest.raises(ValueError, match='a search for a rate is no run'):
        learner(tmp_path/'run', cbs=[LRFinder()]).fit(1)

def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip('wandb', reason="wandb is not installed: pip install 'kdnb[wandb]'")
    monkeypatch.setenv('WANDB_MODE', 'offline')
    monkeypatch.setenv('WANDB_SILENT', 'true')
    sent = []
    class Noted(WandB):
        def _send(self, row):
            if row['epoch'] >= self.board.step: sent.append(row['epoch'])
            super()._send(row)
    with pytest.raises(SystemError): learner(tmp_path/'run', cbs=[Noted(), Killed(2, False)]).fit(3)
    number = json.loads((tmp_path/'run'/'wandb.json').read_text())['id']
    learn = learner(tmp_path/'run', cbs=[Noted()]).fit(3)
    assert sent[:2] == [1, 2] and sent[-1] == 3
    assert json.loads((tmp_path/'run'/'wandb.json').read_text())['id'] == number
    assert weights_hash(learn.student) == weights_hash(learner().fit(3).student)
    assert len([*(tmp_path/'run'/'wandb').glob('offline-run-*')]) == 2
    learner(tmp_path/'run', cbs=[Noted()]).fit(1, fresh=True)
    assert json.loads((tmp_path/'run'/'wandb.json').read_text())['id'] != number

def test_they_have_names():
    assert [type(create_callback(n)) for n in ('ema', 'earlystop', 'lrfinder')] == [EMA, EarlyStop, LRFinder]
