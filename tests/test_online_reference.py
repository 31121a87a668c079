"""DML and ONE have the value and the gradient of their authors' code, and DOT the steps of its, on the same numbers.

The figures in `reference/online.json` were computed by the authors' files (`reference/make_online.py`; they and commits
stand in it). KDCL has no code of its authors; `nbs/09_schemes/05_online.ipynb` compares it with its paper, image by
image.
"""
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from kdnb.methods import ramp
from kdnb.models import resnet
from kdnb.schemes import DML, ONE
from kdnb.train import DOT

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE/'reference')]
from dot_steps import dot_case, dot_losses  # noqa: E402 - found by the line above
from fixed import fill, logits_case, numbers  # noqa: E402 - found by the line above
from test_reference_logits import errors  # noqa: E402 - found by the line above

SAID = json.loads((HERE/'reference/online.json').read_text())
FIGURES = SAID['figures']


class Says(nn.Module):
    "A student whose logits are known."
    def __init__(self, z):
        super().__init__()
        self.z = nn.Parameter(z.clone())
    def forward(self, x): return self.z[:len(x)]


def test_the_figures_are_of_known_files():
    assert all(len(commit) == 40 for commit in SAID['commits'].values())
    assert {path.split('/')[0] for path in SAID['sources'].values()} == set(SAID['commits'])


@pytest.mark.parametrize('j', [1, 2])
def test_each_peer_of_dml_learns_by_its_authors_loss(j):
    s, t, y, *_ = logits_case()
    team = DML([Says(s), Says(t)], size=8)
    losses, _ = team(torch.zeros(12, 3, 8, 8), y)
    own = team.students[j - 1].z
    assert max(errors(losses[f'ce_{j}'] + losses[f'kd_{j}'], [own], FIGURES[f'dml_{j}'])) < 1e-5


def one_like_theirs():
    "Their net of eight layers: the parts in the order of theirs have their numbers."
    student = resnet(8)
    one = ONE(student, size=32)
    nets = [student, *(rest.model for rest in one.others)]
    fill(nn.ModuleList([student.stem, student.stages[0], student.stages[1], *(n.stages[2] for n in nets),
                        one.gate.fc, one.gate.bn, *(n.head.fc for n in nets)]), 71)
    return one, nets


def test_one_is_its_authors_whole_loss():
    one, nets = one_like_theirs()
    one.begin_epoch(40, 300)
    losses, _ = one(numbers(72, 12, 3, 32, 32), logits_case()[2])
    assert one.weights(40, 300)['kd'] == pytest.approx(FIGURES['one']['weight'])
    read = nets[0].stem.conv.weight, one.gate.fc.weight, nets[0].head.fc.weight, nets[2].head.fc.weight
    value, gradient = errors(sum(losses.values()), read, FIGURES['one'])
    assert value < 1e-6 and gradient < 2e-5                     # they add 1e-7 to each probability of the teacher


def test_the_ramp_is_theirs_at_its_ends():
    assert ramp(1, 80/300)(0, 300) == pytest.approx(0.006737947) and ramp(2, .5)(7, 10) == 2 and ramp(1, 0)(0, 9) == 1


def test_dot_takes_its_authors_steps():
    params = dot_case()
    opt = DOT(params)
    for step in range(6):
        opt.param_groups[0]['lr'] = .05 if step < 3 else .005
        task, kd = dot_losses(params, step)
        opt.zero_grad()
        opt.take_apart(kd)
        task.backward()
        opt.step()
    for p, wanted in zip(params, FIGURES['dot'], strict=True):
        wanted = torch.tensor(wanted).view_as(p)
        assert ((p - wanted).norm()/wanted.norm()).item() < 1e-6
