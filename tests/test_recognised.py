"A term is the same term in another process, whatever its loss is made of; else it is refused when the learner is made."
import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from kdnb.all import CE, Distill, Learner, Method, Term, at_loss, load_data, resnet, sp_loss

TERMS = '''
import functools, json, random
import torch
from torch import nn
from kdnb.all import Term, at_loss

class Huber:
    scale = 3
    def __init__(self, beta): self.beta = beta
    def __call__(self, s, t): return self.scale*nn.functional.smooth_l1_loss(s, t, beta=self.beta)

class Kernel(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer('k', torch.ones(3))
    def forward(self, s, t): return (s - t).abs().mean()*self.k.sum()

def pyramid():
    def level(s, t): return (s - t).abs().mean() + (level(s[..., ::2], t[..., ::2]) if s.shape[-1] > 1 else 0)
    return level

def by_name(s, t): return (s - t).abs().mean() if s.dtype in {'a', 'b', 'c'} else (s - t).pow(2).mean()

def with_default(s, t, norm=Huber(2)): return norm(s, t)

made = [functools.partial(at_loss, p=3), functools.partial(Huber(1)), Huber(1), Kernel(), pyramid(), by_name,
        with_default, Huber(1).__call__, functools.lru_cache(by_name)]
terms = [Term(loss, 1, name=f'l{i}') for i, loss in enumerate(made)]
terms += [Term(by_name, 1, adapt=functools.partial(Huber, 1), name='adapted'), Term(by_name, Huber(1), name='weighted')]
'''


def described():
    scope = {'__name__': '__main__'}
    exec(TERMS + 'found = [[repr(t), t.describe()] for t in terms]', scope)
    return json.loads(json.dumps(scope['found']))


def test_a_term_is_the_same_in_another_process():
    program = TERMS + 'print(json.dumps([[repr(t), t.describe()] for t in terms]))'
    run = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True,
                         cwd=Path(__file__).parents[1])
    assert json.loads(run.stdout) == described()
    assert '0x' not in run.stdout


class Huber:
    def __init__(self, beta):
        self.beta = beta

    def __call__(self, s, t):
        return nn.functional.smooth_l1_loss(s, t, beta=self.beta)


@pytest.mark.parametrize('one, other', [
    (Huber(1), Huber(2)), (functools.partial(at_loss, p=2), functools.partial(at_loss, p=3)),
    (nn.CrossEntropyLoss(label_smoothing=.1), nn.CrossEntropyLoss(label_smoothing=.2)),
    (functools.partial(Huber(1)), functools.partial(Huber(2))), (Huber(1).__call__, Huber(2).__call__)])
def test_another_term_is_another(one, other):
    assert Term(one, name='x').describe() != Term(other, name='x').describe()


def test_an_object_that_counts_its_calls_is_the_same_term():
    class Counts(Huber):
        calls = 0

        def __call__(self, s, t):
            self.calls += 1
            return super().__call__(s, t)
    term = Term(Counts(1), name='x')
    before = term.describe()
    term.loss(torch.ones(2), torch.zeros(2))
    assert term.describe() == before


def test_what_cannot_be_recognised_is_refused_when_the_learner_is_made():
    data = load_data('digits', size=8, n_train=60, bs=20, device='cpu')
    noise = torch.Generator()

    def noisy(s, t):
        return (s - t + torch.rand(s.shape, generator=noise)).pow(2).mean()
    with pytest.raises(ValueError, match='the loss of noisy: .* cannot be recognised in another process'):
        Learner(Distill(resnet(8), resnet(8), Term(noisy, taps=None)), data, cbs=None)
    with pytest.raises(ValueError, match='cannot be recognised'):
        Learner(Distill(resnet(8), resnet(8), Term(at_loss, lambda e, n: noise.initial_seed()), size=8), data, cbs=None)


def test_batchwise_is_found_or_asked_for():
    assert Term(functools.partial(sp_loss)).batchwise and Term(functools.partial(functools.partial(sp_loss))).batchwise
    assert not Term(functools.partial(at_loss, p=1)).batchwise

    def mine(s, t):
        return sp_loss(s, t)
    for loss in (lambda s, t: 2*sp_loss(s, t), mine, lambda s, t: mine(s, t), functools.partial(mine)):
        with pytest.raises(ValueError, match='calls (sp_loss|mine), which compares images .* say batchwise=True'):
            Term(loss)
        assert Term(loss, batchwise=True).batchwise
        assert not Term(loss, batchwise=False).batchwise


def test_a_method_of_terms_is_shown_without_addresses():
    assert repr(Method([CE(), Term(functools.partial(Huber(1)), Huber(1))])) == 'CE(1) + Huber(Huber)'
