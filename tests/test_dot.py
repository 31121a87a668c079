"DOT in a learner: it goes on bit for bit, moves as its formula says, and is refused where it has nothing to do."

from dataclasses import replace
from functools import partial

import pytest
import torch

from kdnb.data import load_data
from kdnb.methods import until
from kdnb.models import resnet, weights_hash
from kdnb.schemes import ONE, Distill, Online
from kdnb.seeds import seeded
from kdnb.systems import Recipe, recipes
from kdnb.train import DOT, Callback, Learner, begin_fit, open_epoch, train_step

pytestmark = pytest.mark.usefixtures('quiet')
DATA = load_data('digits', size=8, n_train=60, bs=20, device='cpu')          # 3 steps


def scheme(method='ce(.1)+kd'):
    with seeded(0): return Distill(resnet(8), resnet(8, width=2), method, size=8)


class Stop(Callback):
    "An error in the second epoch."
    def after_batch(self, learn):
        if learn.epoch == 1: raise KeyError('stop')


def whole(learn): return weights_hash(learn.scheme), learn.result, [r['loss'] for r in learn.history]


@pytest.mark.parametrize('how', [dict(), dict(recipe=replace(recipes['crd'], accumulate=3))])
def test_a_run_that_stopped_goes_on_bit_for_bit(tmp_path, how):
    never = whole(Learner(scheme(), DATA, opt=DOT, cbs=None, **how).fit(2))
    with pytest.raises(KeyError):
        Learner(scheme(), DATA, tmp_path/'run', opt=DOT, cbs=[Stop()], **how).fit(2)
    assert whole(Learner(scheme(), DATA, tmp_path/'run', opt=DOT, cbs=None, **how).fit(2)) == never
    with pytest.raises(ValueError, match='run differently'):
        Learner(scheme(), DATA, tmp_path/'run', cbs=None, **how).fit(2)


def test_delta_of_zero_is_sgd_of_the_sum():
    ends = []
    for opt in (partial(DOT, lr=.05, delta=0), partial(torch.optim.SGD, lr=.05, momentum=.9, weight_decay=5e-4)):
        learn = Learner(scheme(), DATA, opt=opt, amp='off', cbs=None).fit(1)
        ends.append(torch.cat([p.detach().flatten() for p in learn.student.parameters()]))
    assert ((ends[0] - ends[1]).norm()/ends[1].norm()).item() < 1e-5


def test_a_step_moves_by_both_momenta():
    learn = Learner(scheme(), DATA, opt=DOT, lr=.01, wd=0, cbs=None)
    begin_fit(learn, 1, fresh=False)
    open_epoch(learn)
    before = learn.student.head.fc.bias.detach().clone()
    train_step(learn, *next(DATA.train.epoch(0, 0)))
    state = learn.opt.state[learn.student.head.fc.bias]
    assert torch.allclose(before - learn.student.head.fc.bias, .01*(state['task_momentum'] + state['kd_momentum']))
    assert state['task_momentum'].norm() > 0 and state['kd_momentum'].norm() > 0 and not learn.opt.apart


def test_adapters_and_terms_that_fall_silent_are_trained_too():
    learn = Learner(scheme([*scheme('kd').method, *scheme('fitnet').method[1:]]), DATA, opt=DOT, cbs=None).fit(1)
    assert all('kd_momentum' in learn.opt.state[p] for p in learn.scheme.adapters.parameters())
    Learner(scheme([*scheme('ce').method, type(scheme('kd').method[-1])(until(1, .5))]), DATA, opt=DOT, cbs=None).fit(2)


@pytest.mark.parametrize('make, how, told', [
    (lambda: resnet(8), {}, 'Alone does not give both'),
    (lambda: scheme('ce'), {}, 'Distill does not give both'),
    (lambda: Online([resnet(8), resnet(8)], size=8), {}, 'Online does not give both'),
    (lambda: ONE(resnet(8), size=8), {}, 'ONE does not give both'),
    (scheme, dict(compile=True), 'compile=True'),
    (scheme, dict(recipe=Recipe(2, lr=.05, wd=0, clip=1.)), 'clip')])
def test_it_is_refused_in_a_sentence_before_training(tmp_path, make, how, told):
    with pytest.raises(ValueError, match=told):
        Learner(make(), DATA, tmp_path/'run', opt=DOT, cbs=None, **how).fit(2)
    assert not (tmp_path/'run'/'config.json').exists()
