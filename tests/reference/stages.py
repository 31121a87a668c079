"""What mdistiller's OFD and ReviewKD give on fixed inputs: `python tests/reference/stages.py FOLDER > stages.json`.

FOLDER holds a checkout of the repository of `SOURCES`, under its short name, with the file `commit` in it. Their
modules and losses are run in double precision; kept are the value and the gradient at each of the student's features.
`tests/test_stages_reference.py` compares kdnb's terms with them.
"""
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from fixed import fill, numbers
from scipy.stats import norm
from torch import Tensor, nn
from transfer import figure, part_of

SOURCES = {'mdistiller': 'megvii-research/mdistiller'}
MAPS = ([(10, 4, 16, 16), (10, 6, 8, 8), (10, 8, 4, 4)], [(10, 5, 16, 16), (10, 9, 8, 8), (10, 12, 4, 4)])
CASES = {                                           # the student's and the teacher's features, shallow to deep
    'ofd': MAPS,
    'review': ([*MAPS[0], (10, 8, 1, 1)], [*MAPS[1], (10, 12, 1, 1)]),
    'review_sizes': ([(10, 4, 8, 8), (10, 6, 4, 4), (10, 8, 1, 1)], [(10, 5, 16, 16), (10, 9, 8, 8), (10, 12, 1, 1)])}


def inputs(name: str) -> tuple[list[Tensor], list[Tensor]]:
    "The features of both models, about half of them negative."
    seed = 100*(1 + [*CASES].index(name))
    ours, theirs = CASES[name]
    return ([numbers(seed + k, *shape) for k, shape in enumerate(ours)],
            [numbers(seed + 50 + k, *shape) for k, shape in enumerate(theirs)])


def norms() -> list[nn.BatchNorm2d]:
    "The teacher's BatchNorms before its activations; a channel in ten has a mean far above 0."
    found = [fill(nn.BatchNorm2d(shape[1]), 60 + k) for k, shape in enumerate(MAPS[1])]
    for bn in found:
        bn.bias.data[1] = 5*bn.weight.data[1].abs()
    return found


class Base(nn.Module):
    "Their base class holds two models."

    def __init__(self, student, teacher):
        super().__init__()
        self.student, self.teacher = student, teacher


def by_ofd(folder: str, fs: list[Tensor], ft: list[Tensor]) -> Tensor:
    "Their distiller on features."
    space = dict(Distiller=Base, norm=norm, math=math)
    *_, ofd = part_of(f'{folder}/mdistiller/mdistiller/distillers/OFD.py', 'ConnectorConvBN', 'feat_loss',
                                    'OFD', **space)
    def net(shapes): return SimpleNamespace(get_stage_channels=lambda: [0, *(shape[1] for shape in shapes)],
                                            get_bn_before_relu=norms)
    options = SimpleNamespace(LOSS=SimpleNamespace(CE_WEIGHT=1., FEAT_WEIGHT=1.),
                              CONNECTOR=SimpleNamespace(KERNEL_SIZE=1))
    student, teacher = map(net, CASES['ofd'])
    distiller = ofd(student, teacher, SimpleNamespace(OFD=options)).double()
    for k, connector in enumerate(distiller.connectors.connectors):
        fill(connector, 20 + k)
    return distiller.ofd_loss(fs, ft)


def by_review(folder: str, name: str, fs: list[Tensor], ft: list[Tensor]) -> Tensor:
    "Their distiller on features; their loss of the labels is of logits that are all alike."
    *_, review = part_of(f'{folder}/mdistiller/mdistiller/distillers/ReviewKD.py', 'ABF', 'hcl_loss', 'ReviewKD',
                               Distiller=Base, math=math)
    ours, theirs = CASES[name]
    sizes = [shape[2] for shape in ours[::-1]], [shape[2] for shape in theirs[::-1]]
    options = SimpleNamespace(SHAPES=sizes[0], OUT_SHAPES=sizes[1], IN_CHANNELS=[shape[1] for shape in ours],
                              OUT_CHANNELS=[shape[1] for shape in theirs], CE_WEIGHT=0., REVIEWKD_WEIGHT=1.,
                              WARMUP_EPOCHS=1, STU_PREACT=False, MAX_MID_CHANNEL=512)
    def says(features, first): return lambda image: (torch.zeros(10, 2), dict(
        feats=features[:-1], preact_feats=[*first, *features[:-1]], pooled_feat=features[-1].flatten(1)))
    distiller = review(None, None, SimpleNamespace(REVIEWKD=options)).double().train()
    distiller.student, distiller.teacher = says(fs, []), says(ft, [None])
    for k, stage in enumerate(distiller.abfs[::-1]):
        fill(stage, 30 + k)
    return distiller.forward_train(None, torch.zeros(10, dtype=torch.long), epoch=1)[1]['loss_kd']


def main(folder: str) -> None:
    commits = {source: (Path(folder)/short/'commit').read_text().strip() for short, source in SOURCES.items()}
    found = {}
    for name in CASES:
        fs, ft = inputs(name)
        fs, ft = [f.double().requires_grad_() for f in fs], [f.double() for f in ft]
        loss = by_ofd(folder, fs, ft) if name == 'ofd' else by_review(folder, name, fs, ft)
        found[name] = figure(loss, fs)
    lines = [f'  {json.dumps(name)}: {json.dumps(of)}' for name, of in found.items()]
    print(f'{{"commits": {json.dumps(commits)},\n "losses": {{\n' + ',\n'.join(lines) + '}}')


if __name__ == '__main__':
    main(sys.argv[1])
