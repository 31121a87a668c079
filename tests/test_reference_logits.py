"""Losses on logits and CRD have the value and the gradient of their authors' code, on the same numbers.

The figures in `reference/logits.json` were computed by the authors' files (`reference/make_logits.py`; files and
commits stand in it), never by ours: 12 images, 10 classes, features of 24 and 16 numbers, negative ones among them.
"""
import json
import sys
from pathlib import Path

import pytest
import torch

from kdnb.losses import class_costs, kd_at_loss
from kdnb.methods import (
    BKD,
    CRD,
    CTKD,
    DIST,
    DKD,
    MLKD,
    NKD,
    RLD,
    WKD,
    WTTM,
    Contrast,
    Hard,
)

HERE = Path(__file__).resolve().parent/'reference'
sys.path.insert(0, str(HERE))
from fixed import fill, logits_case, unit  # noqa: E402 - found by the line above

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


WKD_TERM = WKD()
WKD_TERM.costs = class_costs(logits_case()[-1])
TERMS = dict(
    ttm=WTTM(T=10, weighted=False), wttm=WTTM(), wttm_standardized=WTTM(standardize=True), dist=DIST(),
    dist_standardized=DIST(standardize=True), dkd_standardized=DKD(T=2, standardize=True), nkd=NKD(),
    nkd_cifar=NKD(gamma=3.5, T=3), rld=RLD(), rld_standardized=RLD(T=2, standardize=True), wkd=WKD_TERM, hard=Hard(),
    bkd=BKD())


@pytest.mark.parametrize('name', TERMS)
def test_a_loss_on_logits_is_its_authors(name):
    s, t, y, *_ = logits_case()
    s.requires_grad_()
    assert max(errors(TERMS[name](s, t, y), [s], FIGURES[name])) < 1e-5


def test_mlkd_is_its_authors_on_both_views():
    s, t, y, (s2, t2), _ = logits_case()
    s.requires_grad_(), s2.requires_grad_()
    term = MLKD(ce=0)
    assert term.asks == ('view',)
    assert max(errors(term(s, t, y, view=(s2, t2)), [s, s2], FIGURES['mlkd'])) < 1e-5


def test_the_learnt_temperature_goes_up_the_gradient_as_what_its_authors_run():
    s, t, y, *_ = logits_case()
    s.requires_grad_()
    term = CTKD()
    learnt = term.connect([], [])
    term.begin_epoch(99, 240, learnt)                           # the full share: their decay_min -1
    assert learnt().item() == pytest.approx(FIGURES['ctkd']['T'])
    loss, gradients = errors(term(s, t, y, learnt), [s, learnt.number], FIGURES['ctkd'])
    assert loss < 1e-5 and gradients < 3e-4                     # that of the number is a difference of large ones
    number = learnt.number.detach().clone().requires_grad_()    # without the layer the gradient has the other sign
    plain, = torch.autograd.grad(kd_at_loss(s, t, 1 + 20*number.sigmoid()), number)
    assert plain.item() == pytest.approx(-FIGURES['ctkd']['gradient'][1][0], rel=3e-4)
