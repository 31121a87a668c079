"OFD and ReviewKD beside mdistiller's code: the value, and the gradient at each of the student's features."
import json
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

from kdnb.methods import OFD, ReviewKD

HERE = Path(__file__).resolve().parent/'reference'
sys.path.insert(0, str(HERE))
fixed, stages, transfer = map(import_module, ('fixed', 'stages', 'transfer'))
CASES = stages.CASES
FIGURES = json.loads((HERE/'stages.json').read_text())


def ours(name: str) -> tuple[torch.Tensor, list[torch.Tensor]]:
    "The loss of a term without its weight, and what of the student it is differentiated by."
    fs, ft = stages.inputs(name)
    fs = [f.requires_grad_() for f in fs]
    term = OFD() if name == 'ofd' else ReviewKD()
    if name == 'ofd':
        term.prepare(nn.Sequential(*(nn.Sequential(bn, nn.ReLU()) for bn in stages.norms())), ['0.0', '1.0', '2.0'])
        assert None not in term.margins
    adapters = term.connect([f.detach() for f in fs], ft).train()
    for k, stage in enumerate(adapters if name == 'ofd' else adapters.stages):
        fixed.fill(stage, (20 if name == 'ofd' else 30) + k)
    return term(term.through(adapters, fs, ft), ft, torch.zeros(10, dtype=torch.long)), fs


def errors(name: str) -> tuple[float, float]:
    "The relative errors of the value and, in parts of its length, of the gradient."
    theirs, mine = FIGURES['losses'][name], transfer.figure(*ours(name))
    parts = [abs(a - b)/their[0] for my, their in zip(mine['gradient'], theirs['gradient'], strict=True)
             for a, b in zip(my, their, strict=True)]
    return abs(mine['value'] - theirs['value'])/abs(theirs['value']), max(parts)


@pytest.mark.parametrize('name', CASES)
def test_value_and_gradient_of_stages_are_those_of_the_authors_code(name):
    value, gradient = errors(name)
    assert value < 1e-5 and gradient < 2e-5, (value, gradient)
