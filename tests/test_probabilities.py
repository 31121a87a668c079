"""A model that ends in a softmax is told, once, as teacher and as student."""

import warnings

import pytest
from torch import nn

from kdnb.all import Distill, JointRD, Learner, Online, plainnet, resnet

def softmax(model):
    return nn.Sequential(model, nn.Softmax(1))


class Softmax(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x): return self.net(x).softmax(1)


@pytest.fixture(autouse=True)
def _quiet(quiet): pass


@pytest.mark.parametrize(
    'make, who',
    [
        (lambda: softmax(resnet(8)), ['student']),
        (lambda: Distill(resnet(8), softmax(resnet(8)), 'kd'), ['teacher']),
        (lambda: Distill(softmax(resnet(8)), resnet(8), 'kd'), ['student']),
        (lambda: Distill(softmax(resnet(8)), softmax(resnet(8)), 'dkd'), ['student', 'teacher']),
        (lambda: JointRD(plainnet(8), Softmax(resnet(8)), weight=0), ['teacher']),
        (lambda: Online([resnet(8), resnet(8)]), []),
        (lambda: Distill(resnet(8), resnet(8), 'kd+at'), [])])
def test_probabilities_are_told_once(make, who, data):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        Learner(make(), data, cbs=None)
    said = [str(w.message) for w in told if 'probabilities' in str(w.message)]
    assert [s.split()[1] for s in said] == who and all('give logits' in s for s in said)
