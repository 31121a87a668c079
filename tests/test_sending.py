"Schemes and terms can be saved whole, pickled and copied; `tests/slow/test_spawn.py` sends one to a process."
import copy
import io
import pickle

import pytest
import torch
from torch import nn

from kdnb.all import CE, KD, Alone, Distill, Frozen, JointRD, Online, Term, load_data, parse_method, plainnet, resnet
from kdnb.methods import known_methods, rise
from kdnb.taps import Tapped, tail

def halved(x): return x/2


def gap(s, t): return (s.mean((2, 3)) - t.mean((2, 3))).square().mean()


SCHEMES = {
    'alone': lambda: Alone(resnet(8), 'ce+ls'),
    'every': lambda: Distill(resnet(8), resnet(14, width=2), 'kd(standardize=True)+at+fitnet+ofd+rkd+dist+wttm+review'),
    'waiting': lambda: Distill(resnet(8), resnet(14, width=2), 'fitnet', size=None),
    'mine': lambda: Distill(
        resnet(8), Frozen(resnet(14), prepare=halved), [CE(rise(1, 0.1)), Term(gap, taps=-1), KD()]),
    'joint': lambda: JointRD(plainnet(8), resnet(8)),
    'joint-learns': lambda: JointRD(plainnet(8), resnet(8), train_teacher=True),
    'online': lambda: Online([resnet(8), resnet(8, width=2)]),
    'peers': lambda: Online([resnet(8), resnet(8)], teacher='peers', weight=rise(1, 0.1)),
}


def saved(scheme):
    held = io.BytesIO()
    torch.save(scheme, held)
    held.seek(0)
    return torch.load(held, weights_only=False)


WAYS = {'torch': saved, 'pickle': lambda s: pickle.loads(pickle.dumps(s)), 'copy': copy.deepcopy}


def losses_of(scheme, x, y):
    return {k: v.item() for k, v in scheme.train()(x, y)[0].items()}


@pytest.fixture(scope='module')
def some():
    g = torch.Generator().manual_seed(0)
    return torch.rand(4, 3, 16, 16, generator=g), torch.arange(4)


def ready(name):
    "A scheme that has worked before it is sent, unless it waits."
    scheme = SCHEMES[name]()
    if name != 'waiting':
        scheme.settle(16)
    return scheme


@pytest.mark.parametrize('name', SCHEMES)
def test_a_scheme_comes_back(name, some):
    scheme = ready(name)
    for epoch in 1, 2:                              # the second time after a step
        again = {way: send(scheme) for way, send in WAYS.items()}
        for one in scheme, *again.values():
            one.begin_epoch(epoch, 4)
        expected = losses_of(scheme, *some)
        for way, other in again.items():
            assert losses_of(other, *some) == pytest.approx(expected, rel=1e-5), way
            assert {id(p) for p in scheme.parameters()}.isdisjoint(map(id, other.parameters()))


def test_the_teacher_of_a_copy_is_frozen_and_in_one_piece(some):
    scheme = ready('joint')
    for way, send in WAYS.items():
        other = send(scheme)
        teacher = other.teacher.model
        assert all(t.model is teacher for _, t in other.tails), way
        assert not any(p.requires_grad for p in teacher.parameters()) and other.net.model is other.student


@pytest.mark.parametrize('method', known_methods)
def test_a_term_comes_back(method):
    for term in parse_method(method):
        for send in WAYS.values():
            again = send(term)
            assert repr(again) == repr(term) and again.describe() == term.describe()


def test_taps_and_tails_come_back(some):
    for part in (Tapped(resnet(8), [1, 'embedding']), Frozen(resnet(8), ['stages.1'], prepare=halved)):
        for send in WAYS.values():
            torch.testing.assert_close(send(part.eval())(some[0]), part(some[0]))
    part = tail(resnet(8).eval(), 'stages.1')
    for send in WAYS.values():
        f = torch.rand(2, 32, 8, 8)
        torch.testing.assert_close(send(part)(f), part(f))


def test_data_and_learners_do_not_stand_in_the_way(some):
    data = load_data('digits', size=16, n_train=60, bs=20, device='cpu')
    scheme = Distill(resnet(8), resnet(14, width=2), 'kd+fitnet+ofd')
    scheme.check(data)
    assert losses_of(pickle.loads(pickle.dumps(scheme)), *some) == pytest.approx(losses_of(scheme, *some), rel=1e-5)


def test_a_prepare_without_a_name_is_told():
    scheme = Distill(resnet(8), Frozen(resnet(14), prepare=lambda x: x/2), 'kd')
    with pytest.raises(Exception, match='lambda'):
        pickle.dumps(scheme)
    assert isinstance(copy.deepcopy(scheme).teacher.model, nn.Module)
