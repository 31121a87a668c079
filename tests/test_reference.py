"""Each method of the preset `crd` reads what the published code reads, and its loss is theirs, for each of 13 pairs.

The numbers in `reference/figures.json` were computed by the nets and losses of RepDistiller, mdistiller and DIST_KD
with the same weights and images (`reference/make.py`; the commits stand in the file), in eval mode, without labels.
"""
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from kdnb.all import Distill, create_model, parse_method
from kdnb.methods import CE, Method, until
from kdnb.models import num_params
from kdnb.systems import find_preset

HERE = Path(__file__).resolve().parent/'reference'
sys.path.insert(0, str(HERE))
from fixed import fill, images, our_nets  # noqa: E402 - found by the line above

pytestmark = pytest.mark.slow
FIGURES = json.loads((HERE/'figures.json').read_text())
ADAPTERS = dict(fitnet=11, ofd=21, review=31, vid=41, cc=51, ab=61, ft=71)      # seeds, as in make.py
PRESET = find_preset('crd')
PAIRS = {f'{teacher} -> {student}': (teacher, student) for teacher, student in PRESET.pairs}


def parts_of_ft(factors):
    "Its two nets, as theirs are cut."
    return factors.translator, nn.ModuleList([factors.encoder, factors.decoder])


def scheme_of(pair, methods):
    "One scheme with the terms of several methods, at its full weights; its adapters filled as theirs."
    teacher, student = our_nets(pair, create_model)
    terms = [parse_method(PRESET.words(m, pair), PRESET.weights)[-1] for m in methods]
    for term in terms:                              # what comes first and alone is compared in its epochs
        term.weight = term.weight.weight if isinstance(term.weight, until) else term.weight
    scheme = Distill(student, teacher, Method([CE(), *terms]), size=32)
    for name, seed in ADAPTERS.items():
        made = scheme.adapters[name]
        parts = made.stages if name == 'review' else parts_of_ft(made[0]) if name == 'ft' else made
        for k, adapter in enumerate(parts):
            fill(adapter, seed + k)
    scheme.begin_epoch(239, 240)
    return scheme.eval()


def test_the_figures_are_of_all_pairs_and_known_commits():
    assert list(FIGURES['pairs']) == list(PAIRS)
    assert all(len(commit) == 40 for commit in FIGURES['commits'].values()) and len(FIGURES['commits']) == 3
    methods = {*PRESET.methods} - {'wttm', 'kd_ls', 'crd'}  # of which there is no code here
    assert all(methods - set(of) <= {'fsp', 'kdsvd'} and set(of) <= methods for of in FIGURES['pairs'].values())
    theirs = dict(zip(PAIRS, PRESET.published[0].scores['fsp']))
    with_fsp = [pair for pair, of in FIGURES['pairs'].items() if 'fsp' in of]
    assert with_fsp == [pair for pair, score in theirs.items() if score is not None]
    x, _ = images()
    assert len(x) > 8 and x.min() < 0


@pytest.mark.parametrize('name', PAIRS)
def test_what_is_read_and_its_loss_are_those_of_the_published_code(name):
    expected = FIGURES['pairs'][name]
    scheme = scheme_of(PAIRS[name], expected)
    x, y = images()
    with torch.no_grad():
        (_, fs), (_, ft), (losses, _) = scheme.net(x), scheme.teacher(x), scheme(x, y)
    for method, pairs in zip(['ce', *expected], scheme.pairs, strict=True):
        if method == 'ce':
            continue
        read = [[list(fs[a].shape), list(ft[b].shape)] for a, b in pairs]
        theirs = [[shape[:2] if shape[2:] == [1, 1] else shape for shape in both]
                  for both in expected[method]['shapes']]
        assert read == theirs, method
        rounding = 3e-4 if method == 'pkt' else 0           # 3e4 times a mean of numbers that cancel, in float32
        relative = 2e-3 if method == 'dist' else 2e-4       # theirs adds 1e-8 to the products of lengths
        assert losses[method].item() == pytest.approx(expected[method]['loss'], rel=relative, abs=rounding), method
    assert num_params(scheme.adapters['review']) == expected['review']['parameters']
