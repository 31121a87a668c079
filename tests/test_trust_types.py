"Every name of `kdnb.all` answers to values of other types with a sentence of its own, never with an AttributeError."

import inspect
import warnings

import pytest
import torch
from torch import nn

import kdnb.all
from kdnb.data import check_data, list_zoo, load_data
from kdnb.errors import Mistake, check_all, check_type
from kdnb.experiments import Job, mean_std, run_jobs, show_grid, show_tradeoff, sweep, tune
from kdnb.losses import ofd_margin_measured
from kdnb.methods import KD, Term, parse_method
from kdnb.models import list_models, plainnet, reducenet, resnet, shrink, shufflenetv2, weights_hash, wrn
from kdnb.schemes import JointRD, joint_gate
from kdnb.train import Learner, Run, fit_together, read_history

ODD = [None, True, 3, -1.5, float('nan'), '', 'nobody', [], [1], {}, {'a': 1}, object(), torch.ones(2, 3), b'x', 10**30,
       lambda: None]
ASIDE = {'load_data', 'sweep', 'Diverged', 'Method'}    # they fetch or train; take any words; are a list
NAMES = [n for n in kdnb.all.__all__ if callable(getattr(kdnb.all, n)) and n not in ASIDE]


def calls(called):
    "Arguments of odd values: for all that are required, or for each that is not, where none is."
    every = inspect.signature(called).parameters.values()
    wanted = [p for p in every if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    required = [p.name for p in wanted if p.default is p.empty]
    if required: return [dict.fromkeys(required, odd) for odd in ODD]
    return [{p.name: odd} for p in wanted for odd in ODD if not isinstance(odd, torch.Tensor)]


@pytest.mark.parametrize('name', NAMES)
def test_values_of_other_types(name, runs):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for args in calls(getattr(kdnb.all, name)):
            try:
                getattr(kdnb.all, name)(**args)
            except Mistake as e:
                assert str(e)


def learners():
    """One that would train."""
    return [Learner(resnet(8), load_data('digits', size=8, n_train=60, bs=20, device='cpu'), cbs=None)]


@pytest.mark.parametrize('call, told', [
    (lambda: read_history('taught'), 'a run is a Run, such as learn.run or Run'),
    (lambda: check_data('digits'), 'data is what load_data gives, .* not str'),
    (lambda: weights_hash(3), 'a model is an nn.Module or its state_dict'),
    (lambda: list_models(3), "a pattern is text, such as 'resnet"),
    (lambda: ofd_margin_measured([1.]), 'a tensor is needed, not a list'),
    (lambda: joint_gate('a', 3), 'an epoch must be a number from 0 up'),
    (lambda: joint_gate(1, 10, ramp=0), 'ramp must be a number above 0'),
    (lambda: mean_std(3), 'scores is a number for each seed, not int'),
    (lambda: mean_std([]), 'there is no score to average'),
    (lambda: show_grid(3), 'a row of results is a dict'),
    (lambda: show_tradeoff(3), 'a row of results is a dict'),
    (lambda: run_jobs(['taught']), 'a job is a Job, not str'),
    (lambda: Job(3, 1, print), "a job's run is a name or a path, not int"),
    (lambda: Job('a', 0, print), 'epochs must be a whole number from 1 up, not 0'),
    (lambda: Job('a', 1, None), 'make is a function that builds a learner, not NoneType'),
    (lambda: list_zoo([]), "a pattern is text, such as 'shapes"),
    (lambda: tune('resnet8', None, 3, {}), "a method that is tuned is words such as 'kd"),
    (lambda: Term(lambda s, t, y: 0), r'takes \(s, t, y\), and a loss is called with'),
    (lambda: KD(standardize=torch.ones(0)), r'standardize is True or False, not tensor'),
    (lambda: parse_method('crd(bank=2)'), 'bank is True or False, not 2'),
    (lambda: wrn(16, 2, preact=torch.ones(2)), 'preact is True or False'),
    (lambda: shufflenetv2(preact='no'), "preact is True or False, not 'no'"),
    (lambda: plainnet(20, dirac='no'), "dirac is True or False, not 'no'"),
    (lambda: shrink(reducenet(8), inherit='no'), "inherit is True or False, not 'no'"),
    (lambda: load_data('digits', strict='no'), "strict is True or False, not 'no'"),
    (lambda: JointRD(plainnet(20), resnet(20), train_teacher='no'), "train_teacher is True or False, not 'no'"),
    (lambda: sweep('resnet8', method='ls', data='digits', dry_run='no'), "dry_run is True or False, not 'no'"),
    (lambda: fit_together(learners(), 1, fresh='no'), "fresh is True or False, not 'no'"),
    (lambda: learners()[0].fit(1, fresh='no'), "fresh is True or False, not 'no'"),
    (lambda: show_tradeoff({'a': resnet(8)}, []), r"unknown cost '\[\]'"),
    (lambda: tune('resnet8', None, 'kd', [1]), 'a space is a dict'),
    (lambda: tune('resnet8', None, 'kd', torch.ones(0)), 'a space is a dict'),
    (lambda: run_jobs([], 3), 'say is a function, not int'),
    (lambda: run_jobs([], engine=3), 'engine is a function, not int'),
    (lambda: Term(nn.TripletMarginLoss()), r'takes \(anchor.* write a class of Term with __call__'),
    (lambda: resnet(torch.ones(2)), 'depth'),
    (lambda: resnet(10**6), 'has depth 1,000,000: it takes one from 0 to 1,202')])
def test_what_is_told(call, told):
    with pytest.raises((TypeError, ValueError), match=told) as e: call()
    assert isinstance(e.value, Mistake)


def test_the_runs_that_a_job_needs():
    assert Job('a', 1, print, needs=['teacher']).needs == {'teacher'}
    with pytest.raises(TypeError, match='needs is a list of runs, not str'): Job('a', 1, print, needs='teacher')


def test_kinds():
    assert check_type('n', 3, (int, str), 'a number') == 3 and check_all('n', (1, 2), int, 'a number') == [1, 2]
    assert read_history(Run()) == []
    for odd in 3, ['a'], 'a', None:
        with pytest.raises(TypeError, match='n is a number, (in a list, )?not '): check_all('n', odd, int, 'a number')
