"Numbers out of reason are refused before anything is read or built, in Python as on the command line; and warnings."

import math
import warnings
from contextlib import contextmanager

import pytest
import torch
from torch import nn

import kdnb.cli as commands
from kdnb.callbacks import EMA, EarlyStop
from kdnb.data import load_data
from kdnb.errors import warn_user
from kdnb.experiments import sweep_commands
from kdnb.losses import kd_loss
from kdnb.measure import calibration_error, profile
from kdnb.methods import parse_method
from kdnb.models import create_model, resnet
from kdnb.parallel import torchrun
from kdnb.schemes import Distill, JointRD
from kdnb.seeds import seeded
from kdnb.systems import Recipe
from kdnb.train import Learner

HUGE = 10**30
DIGITS = '--data digits --size 8 --n-train 60 --bs 20 --device cpu --run odd'.split()


def learner(data, **how): return Learner(resnet(8), data, cbs=None, **how)


@pytest.mark.parametrize('how, words, told', [
    (dict(lr=1e30), ['--lr', '1e30'], r'lr must be a number from 0 up, at most 1e19, not 1e\+30'),
    (dict(lr=math.nan), ['--lr', 'nan'], 'lr must be a number from 0 up, not nan'),
    (dict(wd=-1.), ['--wd', '-1'], 'wd must be a number from 0 up, not -1.0'),
    (dict(wd=math.inf), ['--wd', 'inf'], 'wd must be a number from 0 up, at most 1e19, not inf'),
    (dict(seed=-1), ['--seed', '-1'], 'the seed is a whole number from 0 up, of 63 bits, not -1'),
    (dict(seed=HUGE), ['--seed', str(HUGE)], f'the seed is a whole number from 0 up, of 63 bits, not {HUGE}')])
def test_a_learner_and_its_command(how, words, told, data, runs, capsys):
    with pytest.raises(ValueError, match=told): learner(data, **how)
    assert commands.kdnb_train([*DIGITS, *words]) == 1
    assert not runs.exists()
    with pytest.raises(ValueError, match=told): raise ValueError(capsys.readouterr().err)


@pytest.mark.parametrize('epochs', [0, -1, HUGE, 1.5, math.nan])
def test_epochs(epochs, data, runs, capsys):
    with pytest.raises(ValueError, match='epochs must be a whole number from 1 ') as e: learner(data).fit(epochs)
    with pytest.raises(ValueError, match='epochs must be a whole number from 1 '): sweep_commands('crd', epochs)
    if isinstance(epochs, int):
        assert commands.kdnb_train([*DIGITS, '--epochs', str(epochs)]) == 1
        assert str(e.value) in capsys.readouterr().err


@pytest.mark.parametrize('how', [
    dict(workers=HUGE), dict(workers=-1), dict(size=HUGE), dict(bs=HUGE), dict(n_train=HUGE), dict(valid=math.nan),
    dict(split_seed=-1), dict(split_seed=HUGE)])
def test_data_and_their_options(how, capsys):
    (name, value), = how.items()
    option = '--' + name.replace('_', '-')
    with pytest.raises(ValueError, match=f'{name}='): load_data('digits', device='cpu', **how)
    assert commands.kdnb_train(['--data', 'digits', '--device', 'cpu', option, str(value)]) == 1
    assert f'{option} {value}: give ' in capsys.readouterr().err


@pytest.mark.parametrize('call', [
    lambda v: kd_loss(torch.ones(2, 3), torch.ones(2, 3), v), lambda v: parse_method(f'kd(T={v})'),
    lambda v: Distill(resnet(8), resnet(8), f'kd({v})'), lambda v: EarlyStop(least=v), EMA,
    lambda v: JointRD(create_model('plainnet8', 10), resnet(8), size=8, ramp=v), lambda v: Recipe(9, .1, 0., gamma=v),
    lambda v: Recipe(v, .1, 0.), lambda v: Recipe(9, .1, 0., clip=v), lambda v: sweep_commands('crd', n_train=v),
    lambda v: torchrun('kdnb_train', v), lambda v: profile(resnet(8), bs=v), lambda v: profile(resnet(8), size=v),
    lambda v: calibration_error(torch.ones(2, 3), torch.tensor([0, 1]), bins=v), lambda v: seeded(v).__enter__()])
@pytest.mark.parametrize('value', [HUGE, -1, 1e30])
def test_other_numbers(call, value):
    with pytest.raises((ValueError, TypeError)) as e: call(value)
    assert len(str(e.value)) < 300 and 'verflow' not in str(e.value)


def lines_of(call):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        call()
    return [(w.filename, w.lineno) for w in told]


def inside(name, source):
    "A function that belongs to kdnb, for the warning."
    found = dict(__name__='kdnb.made', warn_user=warn_user, torch=torch, contextmanager=contextmanager, nn=nn)
    exec(source, found)
    return found[name]


@pytest.mark.parametrize('source', [
    'def f(): warn_user("look")',
    '@torch.no_grad()\ndef f(): warn_user("look")',
    '@contextmanager\ndef held(): yield\n@held()\n@torch.inference_mode()\n@held()\ndef f(): warn_user("look")',
    'class M(nn.Module):\n def forward(self): warn_user("look")\nf = nn.Sequential(M()).__getitem__(0)'])
def test_a_warning_points_at_your_line(source):
    f = inside('f', source)

    def yours(): f()

    assert lines_of(yours) == [(__file__, yours.__code__.co_firstlineno)]
