"""Two processes take the steps of one: with warm-up, clipping, accumulation, an average and a hook; with numbers of
images, second views and drawn teachers.
"""
import os
import subprocess
import sys
from pathlib import Path

import house
import pytest
import torch
from torch import nn

from kdnb.data import load_data
from kdnb.methods import CE, KD, Term
from kdnb.parallel import join, leave, rank
from kdnb.schemes import Distill
from kdnb.seeds import seeded
from kdnb.systems import Recipe
from kdnb.train import Callback, Learner

pytestmark = pytest.mark.slow
RECIPE = Recipe(2, lr=1e-3, wd=.05, opt='adamw', schedule='onecycle', warmup=1, clip=.5, accumulate=2, ema=.9)

class Halves(Callback):
    """Halves the gradients, and notes their length."""
    def __init__(self): self.seen = []
    def before_step(self, learn):
        for p in learn.student.parameters(): p.grad.mul_(.5)
        self.seen.append(learn.student[1].weight.grad.norm().item())

def train() -> dict:
    with seeded(0): net = nn.Sequential(nn.Flatten(), nn.Linear(3*64, 10))
    data = load_data('digits', size=8, n_train=120, bs=20, device='cpu')
    learn = Learner(net, data, recipe=RECIPE, amp='off', cbs=[hook := Halves()]).fit(2)
    weights, average = ([p.detach() for p in m.parameters()] for m in (net, learn.average.model))
    return dict(seen=hook.seen, weights=weights, average=average, ema=learn.result['ema'])

def small(width: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3*64, width), nn.ReLU(), nn.Linear(width, 10))

def numbered(s, t, index): return ((s - t).square().mean(1)*(1 + index % 3)).mean()

def agree(s, t, view): return (s - view[1]).square().mean()

def far(s, t): return (s - t).square().mean()

def ask() -> dict:
    with seeded(0):
        student, *teachers = map(small, (8, 12, 16))
        hint = Term(far, taps={'1': '1'}, adapt=lambda s, t: nn.Linear(s.shape[1], t.shape[1]))
        terms = CE(), KD(), Term(numbered, taps=None), Term(agree, taps=None), hint
        scheme = Distill(student, teachers, terms, size=8, combine='random')
    data = load_data('digits', size=8, n_train=120, bs=20, device='cpu', augment='crop')
    learn = Learner(scheme, data, amp='off', lr=.01, cbs=None).fit(2)
    return dict(weights=[p.detach() for p in scheme.parameters()], loss=[row['loss'] for row in learn.history])

def test_two_processes_are_as_one(tmp_path):
    env = {**os.environ, 'PYTHONPATH': f'{house.ROOT}{os.pathsep}{house.ROOT/"tests"}', 'OMP_NUM_THREADS': '1'}
    words = ['--standalone', '--nproc-per-node', '2', __file__, str(tmp_path)]
    command = [sys.executable, '-m', 'torch.distributed.run', *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    one, two = [train(), ask()], [torch.load(tmp_path/f'{k}.pt') for k in (0, 1)]
    for told in two: torch.testing.assert_close(told, one, rtol=1e-4, atol=1e-6)
    assert len(one[0]['seen']) == 6 and len(one[1]['weights']) == 8

if __name__ == '__main__':
    join()
    torch.save([train(), ask()], Path(sys.argv[1])/f'{rank()}.pt')
    leave()
