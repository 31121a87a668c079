"""An open loop: recipes and optimisers of one's own, accumulation, clipping, an average of the student."""
import inspect
from dataclasses import replace
from functools import partial

import house
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR, OneCycleLR, ReduceLROnPlateau

from kdnb.data import load_data
from kdnb.experiments import repeat_options
from kdnb.models import create_model, load_model, resnet, weights_hash
from kdnb.schemes import Online
from kdnb.seeds import seeded
from kdnb.systems import Recipe, recipes
from kdnb.train import Callback, Learner, fit_together, loop, run_config

DATA = load_data('digits', size=8, n_train=120, bs=20, device='cpu')        # 6 batches
WARM = Recipe(4, lr=2e-3, wd=.05, opt='adamw', betas=(.9, .95), warmup=1, clip=1., accumulate=2, ema=.9, no_decay=True)
WAYS = dict(
    adamw=dict(recipe=WARM),
    onecycle=dict(recipe=replace(recipes['crd'], schedule='onecycle', drops=None, gamma=None)),
    function=dict(recipe=Recipe(4, .05, 0, schedule=lambda t: 1 - t, opt='rmsprop', momentum=0.)),
    adam=dict(recipe=Recipe(4, 1e-3, 0, opt='adam', ema=.99)),
    own=dict(opt=partial(torch.optim.RAdam, lr=1e-3)),
    own_schedule=dict(opt=partial(torch.optim.NAdam, lr=1e-3), sched=partial(CosineAnnealingLR, T_max=9)),
    torch_cycle=dict(sched=partial(OneCycleLR, max_lr=.1, total_steps=24)))

TIMES = 'seconds', 'images_per_second'

def learner(run=None, cbs=None, data=DATA, seed=0, **how) -> Learner:
    with seeded(0): student = resnet(8)
    return Learner(student, data, run=run, cbs=cbs, seed=seed, **how)

class Killed(Callback):
    """Plays a process that ends in the second epoch."""
    def after_batch(self, learn):
        if learn.epoch == 1 and len(learn.tally.steps) == 3: raise SystemError('killed')

def same(a: Learner, b: Learner) -> bool:
    def rows(learn): return [{k: v for k, v in row.items() if k not in TIMES} for row in learn.history]
    average = [weights_hash(learn.average.model) for learn in (a, b) if learn.average]
    return rows(a) == rows(b) and weights_hash(a.student) == weights_hash(b.student) and len(set(average)) < 2

@pytest.mark.parametrize('way', WAYS)
def test_a_killed_run_ends_as_if_it_had_not_been(way, tmp_path):
    whole = learner(**WAYS[way]).fit(4)
    with pytest.raises(SystemError): learner(tmp_path/'run', cbs=[Killed()], **WAYS[way]).fit(4)
    again = learner(tmp_path/'run', **WAYS[way]).fit(4)
    assert same(whole, again)
    assert again.result == whole.result
    assert learner(tmp_path/'run', **WAYS[way]).fit(4).result == whole.result       # loaded

@pytest.mark.parametrize('way', ['adamw', 'onecycle', 'function'])
def test_a_longer_run_goes_on_at_the_longer_schedule(way):
    longer, whole = learner(**WAYS[way]).fit(1).fit(2), learner(**WAYS[way]).fit(2)
    assert longer.history[1]['lr'] == whole.history[1]['lr']

def test_the_rate_rises_and_falls_with_each_step():
    rates = []
    class Rates(Callback):
        def before_step(self, learn): rates.append(learn.opt.param_groups[0]['lr'])
    learner(cbs=[Rates()], recipe=WARM).fit(4)
    assert len(rates) == 12                                 # 6 batches, 2 a step, 4 epochs
    assert rates[:3] == pytest.approx([2e-3/3, 4e-3/3, 2e-3])
    assert rates[3:] == sorted(rates[3:], reverse=True)

def test_accumulating_is_one_step_with_the_mean_gradient():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3*64, 10))
    def run(bs, accumulate):
        data = load_data('digits', size=8, n_train=120, bs=bs, device='cpu', augment=None)
        with seeded(0): net[1].reset_parameters()
        return Learner(net, data, recipe=replace(recipes['crd'], accumulate=accumulate), amp='off', cbs=None).fit(1)
    assert torch.allclose(run(40, 1).init['state']['1.weight'], run(20, 2).init['state']['1.weight'])
    big = [p.clone() for p in run(40, 1).student.parameters()]
    for a, b in zip(big, run(20, 2).student.parameters()):
        torch.testing.assert_close(a, b)

def test_gradients_are_clipped_and_seen_before():
    norms = []
    class Norms(Callback):
        def before_step(self, learn):
            for p in learn.student.parameters(): p.grad.mul_(1e3)
        def after_batch(self, learn): norms.append(learn.opt.state_dict()['state'][0]['momentum_buffer'].norm().item())
    learn = learner(cbs=[Norms()], recipe=Recipe(4, lr=0., wd=0., momentum=0., clip=.5))
    learn.fit(1)
    assert max(norms) <= .5

def test_a_hook_changes_gradients():
    class Frozen1(Callback):
        def before_step(self, learn): [*learn.student.parameters()][-1].grad.zero_()
    learn = learner(cbs=[Frozen1()], wd=0.)
    before = [*learn.student.parameters()][-1].clone()
    learn.fit(1)
    assert torch.equal(before, [*learn.student.parameters()][-1])

def test_biases_and_norms_are_spared():
    learn = learner(recipe=WARM).fit(1)
    groups = learn.opt.param_groups
    assert [g['weight_decay'] for g in groups] == [.05, 0.]
    assert all(p.ndim > 1 for p in groups[0]['params']) and all(p.ndim == 1 for p in groups[1]['params'])

def test_a_name_and_its_recipe_are_one_run(tmp_path):
    learner(tmp_path/'run').fit(1)
    assert learner(tmp_path/'run', recipe=recipes['crd']).fit(1).recipe_name == 'crd'
    with pytest.raises(ValueError, match=r'the recipe is crd, you ask for own'):
        learner(tmp_path/'run', recipe=replace(recipes['crd'], clip=1.)).fit(1)

def test_config_of_published_recipes_is_as_it_was():
    assert run_config(learner())['optimiser'] == dict(
        epochs=240, lr=.05, wd=5e-4, nesterov=False, drops=(150/240, 180/240, 210/240), gamma=.1)

def test_factories_are_in_the_identity(tmp_path):
    learner(tmp_path/'run', opt=partial(torch.optim.RAdam, lr=1e-3)).fit(1)
    learner(tmp_path/'run', opt=partial(torch.optim.RAdam, lr=1e-3)).fit(1)
    with pytest.raises(ValueError, match='was run differently: the optimiser.s opt is'):
        learner(tmp_path/'run', opt=partial(torch.optim.RAdam, lr=1e-2)).fit(1)
    with pytest.raises(ValueError, match='was run differently: the optimiser.s schedule is'):
        how = dict(opt=partial(torch.optim.RAdam, lr=1e-3), sched=partial(MultiStepLR, milestones=[5]))
        learner(tmp_path/'run', **how).fit(1)
    with pytest.raises(ValueError, match='opt: <object object .* cannot be recognised in another process'):
        learner(opt=partial(torch.optim.RAdam, lr=object()))

def test_the_average_is_scored_and_exported(tmp_path):
    learn = learner(tmp_path/'run', recipe=replace(recipes['crd'], ema=.9)).fit(2)
    assert {'valid_acc', 'ema_acc'} <= learn.history[-1].keys()
    assert learn.result['ema'].keys() == {'epoch', 'test_acc'}
    assert weights_hash(load_model(tmp_path/'run', 'ema')) == weights_hash(learn.average.model)
    assert weights_hash(learn.student) == weights_hash(learner().fit(2).student)     # it only watches

def test_together_is_as_alone():
    ways = dict(recipe=replace(recipes['crd'], ema=.9)), dict(recipe=WARM), WAYS['own'], WAYS['onecycle']
    group = fit_together([learner(**how) for how in ways], 2, cbs=None)
    for learn, how in zip(group, ways, strict=True): assert same(learn, learner(**how).fit(2))

def test_a_shell_has_no_words_for_a_recipe_of_a_notebook(tmp_path):
    for name, how, told in (('a', dict(recipe=WARM), "its recipe is a notebook's own"),
                            ('b', dict(opt=partial(torch.optim.RAdam, lr=1e-3)), "its opt is not its recipe's")):
        data = load_data('digits', size=8, n_train=120, bs=20, device='cpu')
        Learner(create_model('resnet8', 10), data, run=tmp_path/name, cbs=None, **how).fit(1)
        with pytest.raises(ValueError, match=told): repeat_options(tmp_path/name/'config.json')

SLIPS = [
    (dict(opt=torch.optim.LBFGS), 'LBFGS needs a closure in each step'),
    (dict(sched=ReduceLROnPlateau), 'ReduceLROnPlateau needs metrics in each step'),
    (dict(sched=lambda _: MultiStepLR(torch.optim.SGD(nn.Linear(2, 2).parameters()), [3])), 'of another optimiser'),
    (dict(sched=partial(OneCycleLR, max_lr=.1, total_steps=5)), 'has 5 steps and the run 6: say total_steps=6'),
    (dict(opt=torch.optim.SGD(nn.Linear(2, 2).parameters())), 'opt= is a function that makes an optimiser, such as'),
    (dict(recipe=replace(recipes['crd'], accumulate=4)), 'accumulate=4 does not divide the 6 batches of an epoch')]

@pytest.mark.parametrize(('how', 'told'), SLIPS, ids=[told[:20] for _, told in SLIPS])
def test_what_does_not_fit_is_refused_before_training(how, told, tmp_path):
    with pytest.raises((ValueError, TypeError), match=told): learner(tmp_path/'run', **how).fit(1)
    assert not (tmp_path/'run').exists()

def test_an_average_is_of_one_student():
    with pytest.raises(ValueError, match='averages one student and this Online has 2'):
        Learner(Online([resnet(8), resnet(8)]), DATA, recipe=replace(recipes['crd'], ema=.9))

def test_the_loop_reads_in_one_sitting():
    "Steps and epochs; what closes an epoch checks, scores and saves."
    names = 'take_gradient_step train_step open_epoch epoch_batches take_steps one_epoch _train_on'.split()
    sources = [inspect.getsource(getattr(loop, name)) for name in names]
    assert sum(len(house.code_lines(source)) for source in sources) <= 60
