"""What OFA's and VkD's code gives on fixed inputs: `python tests/reference/across.py FOLDER > across.json`.

FOLDER holds a checkout of each repository of `SOURCES`, under its short name, with the file `commit` in it; timm is
needed. OFA's whole distiller is run, with models that answer with fixed numbers; of VkD the statements of its training
loop that compute the loss. All is in double precision. `tests/test_across.py` compares kdnb's terms with them.
"""
import ast
import json
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from fixed import fill, numbers
from torch import Tensor, nn
from transfer import figure, part_of

SOURCES = {'OFAKD': 'Hao840/OFAKD', 'vkd': 'roymiles/vkd'}
CLASSES = 7
CASES = {                                           # the student's maps, its width; the teacher's width or map
    'ofa': ([(10, 4, 16, 16), (10, 6, 8, 8), (10, 8, 4, 4)], 8, 12),
    'ofa_patches': ([(10, 6, 28, 28)]*3, 8, 5),
    'vkd': ([(10, 6, 4, 4)], 6, (10, 9, 3, 3)),
    'vkd_narrow': ([(10, 6, 4, 4)], 6, (10, 4, 5, 5))}
GAMMAS, T = (1.4, 1.2, .8, 1.5), 2.                 # of three exits, and of the student's logits


def inputs(name: str) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    "The student's maps and logits, what the teacher says or computes, and the labels."
    seed = 9000 + 100*[*CASES].index(name)
    maps, _, theirs = CASES[name]
    t = numbers(seed + 50, *theirs) if isinstance(theirs, tuple) else 2*numbers(seed + 50, 10, CLASSES)
    fs = [numbers(seed + k, *shape) for k, shape in enumerate(maps)]
    return fs, 2*numbers(seed + 40, 10, CLASSES), t, torch.arange(10)*3 % CLASSES


def free(name: str) -> Tensor:
    "A matrix whose QR decomposition is VkD's projection."
    a, b = sorted((CASES[name][1], CASES[name][2][1]))
    return numbers(9990, b, a)


class Base(nn.Module):
    "Their base class holds what it is given."

    def __init__(self, student, teacher, criterion, args):
        super().__init__()
        self.student, self.teacher, self.criterion, self.args = student, teacher, criterion, args


class Says(nn.Module):
    "A model that answers with these numbers, and tells the shapes of its stages 2, 3 and 4."

    def __init__(self, logits: Tensor, features: list[Tensor], width: int):
        super().__init__()
        self.logits, self.features, self.width = logits, features, width

    def stage_info(self, stage: int) -> tuple[int, object]:
        if stage == -1:
            return -1, self.width
        index = max(stage - 2, 0)
        return index, tuple(self.features[index].shape[1:])

    def forward(self, image, requires_feat=False): return (self.logits, self.features) if requires_feat else self.logits


def by_ofa(folder: str, name: str, fs: list[Tensor], z: Tensor, t: Tensor, y: Tensor) -> Tensor:
    "The loss of their distiller without that of the labels."
    from timm.layers import trunc_normal_
    from timm.models.vision_transformer import Block
    path, block = f'{folder}/OFAKD/distillers', partial(Block, norm_layer=nn.LayerNorm)     # as in their timm, 0.6.5
    names = ['GAP1d', 'get_module_dict', 'init_weights', 'is_cnn_model', 'PatchMerging', 'SepConv', 'set_module_dict',
             'TokenFilter', 'TokenFnContext']

    def _assert(condition, message): assert condition, message

    parts = dict(zip(names, part_of(f'{path}/utils.py', *names, _assert=_assert, trunc_normal_=trunc_normal_)))
    _, ofa = part_of(f'{path}/ofa.py', 'ofa_loss', 'OFA', np=np, Block=block, BaseDistiller=Base, **parts)
    args = SimpleNamespace(ofa_eps=list(GAMMAS), ofa_stage=[2, 3, 4], ofa_temperature=T, ofa_loss_weight=1.,
                           kd_loss_weight=1., gt_loss_weight=1., num_classes=CLASSES)
    own = fs if name == 'ofa' else [f.flatten(2).transpose(1, 2) for f in fs]
    distiller = ofa(Says(z, own, CASES[name][1]), Says(t, [], CASES[name][2]), nn.CrossEntropyLoss(), args)
    fill(distiller.projector, 3).double().train()
    losses = distiller(None, y)[1]
    return losses['loss_kd'] + losses['loss_ofa']


def by_vkd(folder: str, name: str, fs: list[Tensor], t: Tensor) -> Tensor:
    "The statements of their training loop that compute the loss."
    path = f'{folder}/vkd/engine.py'
    nodes = [n for n in ast.walk(ast.parse(Path(path).read_text())) if isinstance(n, ast.If)]
    block = next(n for n in nodes if ast.unparse(n.test) == 'args.alpha > 0' and 'smooth_l1' in ast.unparse(n))
    projector = torch.nn.utils.parametrizations.orthogonal(nn.Linear(fs[0].shape[1], t.shape[1], bias=False).double())
    q = torch.linalg.qr(free(name).double()).Q
    projector.weight = q if t.shape[1] >= fs[0].shape[1] else q.T
    space = dict(F=nn.functional, args=SimpleNamespace(alpha=1.), z_t_conv=t, z_s=fs[0].flatten(2).transpose(1, 2),
                 student=SimpleNamespace(module=SimpleNamespace(projector=projector)))
    exec(compile(ast.Module(block.body, []), path, 'exec'), space)
    return space['repr_distill_loss']


def main(folder: str) -> None:
    commits = {source: (Path(folder)/short/'commit').read_text().strip() for short, source in SOURCES.items()}
    found = {}
    for name in CASES:
        fs, z, t, y = inputs(name)
        fs, z, t = [f.double().requires_grad_() for f in fs], z.double().requires_grad_(), t.double()
        is_ofa = name.startswith('ofa')
        loss = by_ofa(folder, name, fs, z, t, y) if is_ofa else by_vkd(folder, name, fs, t)
        found[name] = figure(loss, [*fs, z] if is_ofa else fs)
    lines = [f'  {json.dumps(name)}: {json.dumps(of)}' for name, of in found.items()]
    print(f'{{"commits": {json.dumps(commits)},\n "losses": {{\n' + ',\n'.join(lines) + '}}')


if __name__ == '__main__':
    main(sys.argv[1])
