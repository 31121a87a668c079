"""Losses on logits and CRD have the value and the gradient of their authors' code, on the same numbers.

The figures in `reference/logits.json` were computed by the authors' files (`reference/make_logits.py`; files and
commits stand in it), never by ours: 12 images, 10 classes, features of 24 and 16 numbers, negative ones among them.
"""
import json
import sys
from pathlib import Path

import torch

from kdnb.methods import CRD, Contrast

HERE = Path(__file__).resolve().parent/'reference'
sys.path.insert(0, str(HERE))
from fixed import fill, unit  # noqa: E402 - found by the line above

SAID = json.loads((HERE/'logits.json').read_text())
FIGURES = SAID['figures']


def errors(loss, read, figure):
    "How far a loss and its gradients are from a figure, relative to the figure's size."
    grads = torch.autograd.grad(loss, read)
    wanted = [torch.tensor(g) for g in figure['gradient']]
    apart = [((g.flatten() - w).norm()/w.norm()).item() for g, w in zip(grads, wanted, strict=True)]
    return abs(loss.item()/figure['loss'] - 1), max(apart)


def test_the_figures_are_of_known_files():
    assert all(len(commit) == 40 for commit in SAID['commits'].values())
    assert {path.split('/')[0] for path in SAID['sources'].values()} == set(SAID['commits'])


def crd_case():
    s, t, index = unit(51, 12, 24)*5, unit(52, 12, 16)*5, torch.arange(12)*3 % 40
    contrast = Contrast(24, 16, width=8, k=20).hold(torch.arange(40) % 10)
    fill(contrast.student, 61), fill(contrast.teacher, 62)
    contrast.students[contrast.place], contrast.teachers[contrast.place] = unit(63, 40, 8), unit(64, 40, 8)
    return s.requires_grad_(), t, index, contrast


def test_crd_is_repdistillers_with_its_constants_and_rows(monkeypatch):
    s, t, index, contrast = crd_case()
    negatives = (torch.arange(12)[:, None]*7 + torch.arange(21)**2)[:, 1:] % 40
    term, drawn = CRD(), [contrast.place[negatives], contrast.place[negatives.roll(5, 0)]]
    monkeypatch.setattr('kdnb.methods.contrast.draw_others', lambda *_: drawn.pop(0))
    for step in (1, 2):
        read = s, contrast.student.weight, contrast.teacher.weight
        loss = term([s], [t], None, [contrast], index=index)
        assert max(errors(loss, read, FIGURES[f'crd_{step}'])) < 1e-5, step
    rows = contrast.students[contrast.place[index]].flatten()
    assert torch.allclose(rows, torch.tensor(FIGURES['crd_2']['rows']), atol=1e-6)
