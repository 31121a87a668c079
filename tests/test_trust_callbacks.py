"""What a callback draws changes nothing in the training, whichever hook it stands in."""

import pytest
import torch
from torch import nn

from kdnb.models import resnet, weights_hash
from kdnb.seeds import seeded
from kdnb.train import Callback, Learner, fit_together

pytestmark = pytest.mark.usefixtures('quiet')


class Draws(Callback):
    "Draws in one hook, and seeds anew."
    def __init__(self, hook): self.hook = hook

    def draw(self, hook):
        if hook != self.hook: return
        torch.rand(7)
        torch.manual_seed(3)

    def before_fit(self, learn): self.draw('before_fit')

    def before_step(self, learn): self.draw('before_step')

    def after_batch(self, learn): self.draw('after_batch')

    def after_epoch(self, learn): self.draw('after_epoch')

    def after_fit(self, learn): self.draw('after_fit')

    def change_recipe(self, recipe):
        self.draw('change_recipe')
        return recipe

    def epochs(self, learn, it):
        self.draw('epochs')
        for e in it:
            self.draw('epochs')
            yield e

    def batches(self, learn, it):
        for b in it:
            self.draw('batches')
            yield b
            self.draw('batches')


def made(data, hook=None):
    with seeded(0): net = nn.Sequential(nn.Dropout(.3), resnet(8))
    return Learner(net, data, cbs=[Draws(hook)] if hook else [])


@pytest.fixture(scope='module')
def plain(data):
    return weights_hash(made(data).fit(2).student)


HOOKS = 'change_recipe before_fit before_step after_batch after_epoch after_fit epochs batches'.split()


@pytest.mark.parametrize('hook', HOOKS)
def test_numbers_of_a_callback(data, plain, hook):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    assert weights_hash(made(data, hook).fit(2).student) == plain
    assert torch.rand(1) == expected                        # nor in what you draw afterwards


def test_numbers_of_a_group_and_its_callbacks(data, plain):
    learners = [made(data, 'after_batch'), made(data, 'before_step'), made(data)]
    fit_together(learners, 2, cbs=[Draws('batches')])
    assert {weights_hash(learn.student) for learn in learners} == {plain}
