"""What the authors' code gives on fixed inputs: `python tests/reference/transfer.py FOLDER > transfer.json`.

FOLDER holds a checkout of each repository of `SOURCES`, under its short name, with the file `commit` in it. Only their
losses and modules are run here, in double precision, on the inputs of `CASES`; kept are the value, and of the gradient
at each of the student's features its length and three products with fixed directions. `tests/test_transfer.py` compares
kdnb's losses and adapters with them.
"""
import ast
import importlib
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import torch
from fixed import fill, numbers
from torch import Tensor, nn

SOURCES = {'RepDistiller': 'HobbitLong/RepDistiller', 'ICKD': 'ADLab-AutoDrive/ICKD', 'WKD': 'JiamingLv/WKD',
           'Simple-Recipe-Distillation': 'roymiles/Simple-Recipe-Distillation', 'CAT-KD': 'GzyAftermath/CAT-KD',
           'SDD-CVPR2024': 'shicaiwei123/SDD-CVPR2024', 'SimKD': 'DefangChen/SimKD'}
CASES = {                                           # shapes of the student's and of the teacher's features
    'vid': ([(10, 3, 8, 8)], [(10, 5, 4, 4)]),
    'cc': ([(10, 6)], [(10, 9)]),
    'ab': ([(10, 3, 4, 4)], [(10, 5, 8, 8)]),
    'ft': ([(10, 4, 8, 8)], [(10, 6, 4, 4)]),
    'fsp': ([(10, 2, 8, 8), (10, 3, 8, 8), (10, 5, 4, 4)], [(10, 2, 16, 16), (10, 3, 8, 8), (10, 5, 2, 2)]),
    'kdsvd': ([(10, 4, 8, 8), (10, 6, 4, 4), (10, 8, 4, 4)], [(10, 4, 4, 4), (10, 6, 4, 4), (10, 8, 2, 2)]),
    'ickd': ([(10, 4, 8, 8)], [(10, 6, 4, 4)]),
    'srd': ([(10, 6)], [(10, 9)]),
    'wkdf': ([(10, 4, 8, 8)], [(10, 6, 4, 4)]),
    'cat': ([(10, 7, 8, 8)], [(10, 7, 4, 4)]),      # maps of seven classes
    'sdd': ([(10, 7, 8, 8)], [(10, 7, 4, 4)]),
    'simkd': ([(10, 4, 8, 8)], [(10, 6, 4, 4)]),
    'kd': ([(10, 7)], [(10, 7)]),                   # logits
    'fitnet': ([(10, 4, 8, 8)], [(10, 6, 4, 4)]),
    'at': ([(10, 3, 8, 8), (10, 5, 4, 4)], [(10, 5, 4, 4), (10, 6, 4, 4)]),
    'nst': ([(10, 3, 8, 8)], [(10, 5, 4, 4)]),
    'sp': ([(10, 3, 8, 8)], [(10, 5, 4, 4)]),
    'rkd': ([(10, 6)], [(10, 9)]),
    'pkt': ([(10, 6)], [(10, 9)])}
REPDISTILLERS = 'vid', 'cc', 'ab', 'ft', 'fsp', 'kdsvd', 'kd', 'fitnet', 'at', 'nst', 'sp', 'rkd', 'pkt'


def inputs(name: str) -> tuple[list[Tensor], list[Tensor]]:
    "The features of both models, about half of them negative; the teacher's lie near the student's only by chance."
    seed = 100*[*CASES].index(name)
    ours, theirs = CASES[name]
    return ([numbers(seed + k, *shape) for k, shape in enumerate(ours)],
            [numbers(seed + 50 + k, *shape) for k, shape in enumerate(theirs)])


def sketch(g: Tensor) -> list[float]:
    "The length of a gradient, and its products with three fixed directions."
    g = g.detach().double()
    return [g.norm().item(), *((g*numbers(7000 + k, *g.shape)).sum().item() for k in range(3))]


def figure(loss: Tensor, features: list[Tensor]) -> dict:
    "The value of a loss, and its gradient at features."
    return dict(value=loss.item(), gradient=[sketch(g) for g in torch.autograd.grad(loss, features)])


class Filled:
    "Their modules with fixed weights, in double precision."

    def __init__(self, seed: int): self.seed = seed

    def __call__(self, net: nn.Module) -> nn.Module: return fill(net, self.seed).double().train()


def turned_kdsvd() -> nn.Module:
    "Their KDSVD, whose loss depends on the signs that the library returns; here the sum of each vector is positive."
    zoo = importlib.import_module('distiller_zoo')

    class Turned(zoo.KDSVD):
        def svd(self, feat, n=1):
            u, sizes, v = super().svd(feat, n)
            return u, sizes, v*v.sum(1, keepdim=True).sign()

    return Turned()


def older_of_repdistiller(name: str, s: list[Tensor], t: list[Tensor]) -> Tensor:
    "The losses of RepDistiller for the first methods, without their weights."
    zoo, util = importlib.import_module('distiller_zoo'), importlib.import_module('models.util')
    if name == 'kd': return zoo.DistillKL(4)(s[0], t[0])
    if name == 'fitnet': return zoo.HintLoss()(Filled(3)(util.ConvReg(s[0].shape, t[0].shape))(s[0]), t[0])
    if name in ('rkd', 'pkt'): return (zoo.RKDLoss() if name == 'rkd' else zoo.PKT())(s[0], t[0])
    return sum(dict(at=zoo.Attention, nst=zoo.NSTLoss, sp=zoo.Similarity)[name]()(s, t))


def by_repdistiller(name: str, s: list[Tensor], t: list[Tensor]) -> Tensor:
    "The loss of RepDistiller, with its modules."
    zoo, util = importlib.import_module('distiller_zoo'), importlib.import_module('models.util')
    filled = Filled(3)
    if name == 'vid': return filled(zoo.VIDLoss(s[0].shape[1], t[0].shape[1], t[0].shape[1]))(s[0], t[0])
    if name == 'cc':
        both = filled(nn.ModuleList([util.LinearEmbed(f.shape[1], 128) for f in (s[0], t[0])]))
        return zoo.Correlation()(both[0](s[0]), both[1](t[0]))
    if name == 'ab': return sum(zoo.ABLoss(1)(filled(util.Connector([s[0].shape], [t[0].shape]))(s), t))
    if name == 'ft':
        translator = filled(util.Translator(s[0].shape, t[0].shape))
        paraphraser = Filled(4)(util.Paraphraser(t[0].shape))
        factor, rebuilt = paraphraser(t[0])
        return zoo.FactorTransfer()(translator(s[0]), factor.detach()) + nn.functional.mse_loss(rebuilt, t[0])
    if name == 'fsp': return sum(zoo.FSP([f.shape for f in s], [f.shape for f in t])(s, t))
    return sum(turned_kdsvd()(s, t))


def part_of(path: str, *names: str, **there: object) -> list:
    "Functions and classes of a file of theirs, which may import what is not at hand, in a namespace of their own."
    body = [n for n in ast.parse(Path(path).read_text()).body if getattr(n, 'name', None) in names]
    for n in body:
        n.decorator_list = []
    space = dict(torch=torch, nn=nn, F=nn.functional, **there)
    exec(compile(ast.Module(body, []), path, 'exec'), space)
    return [space[name] for name in names]


def by_others(folder: str, name: str, s: list[Tensor], t: list[Tensor]) -> Tensor:
    "The loss of the code of its authors, with its modules."
    filled, a, b = Filled(3), s[0], t[0]
    if name == 'ickd':
        _, ickd = part_of(f'{folder}/ICKD/Cifar100/distiller_zoo/ICKD.py', 'Embed', 'ICKDLoss')
        loss = ickd(SimpleNamespace(s_dim=a.shape[1], feat_dim=b.shape[1]))
        filled(loss.embed_s)
        return sum(loss([a], [b]))
    if name == 'srd':
        path = f'{folder}/Simple-Recipe-Distillation/imagenet/torchdistill/losses/single.py'
        loss = part_of(path, 'OurDistillationLoss')[0]
        own = SimpleNamespace(embed=filled(nn.Linear(a.shape[1], b.shape[1])), **{
            f'bn_{k}': nn.BatchNorm1d(b.shape[1], eps=.0001, affine=False).double() for k in 'st'})
        return loss.forward_loss(own, a, b)
    if name == 'wkdf':
        reg, = part_of(f'{folder}/WKD/mdistiller/distillers/_common.py', 'ConvReg')
        loss, = part_of(f'{folder}/WKD/mdistiller/distillers/WKD.py', 'wkd_feature_loss')
        mean, deviation = loss(filled(reg(a.shape, b.shape))(a), b)
        return 4*mean + deviation
    if name == 'cat':
        path = f'{folder}/CAT-KD/mdistiller/distillers/CAT_KD.py'
        return part_of(path, '_Normalize', 'CAT_loss')[1](a, b, 2, True)
    if name == 'simkd':                             # with the logits, so that the whole net is compared
        net, = part_of(f'{folder}/SimKD/models/util.py', 'SimKD')
        mine, theirs, logits = filled(net(s_n=a.shape[1], t_n=b.shape[1]))(a, b, Filled(5)(nn.Linear(b.shape[1], 7)))
        return nn.functional.mse_loss(mine, theirs) + logits.square().mean()
    path = f'{folder}/SDD-CVPR2024/mdistiller/distillers/SDD_DKD.py'
    loss = part_of(path, 'dkd_loss', '_get_gt_mask', '_get_other_mask', 'cat_mask', 'multi_dkd')[-1]
    with redirect_stdout(sys.stderr):
        spp = part_of(f'{folder}/SDD-CVPR2024/mdistiller/models/cifar/utils.py', 'SPP')[0]('[1,2,4]')
    return loss(spp(a)[0], spp(b)[0], torch.arange(len(a)) % a.shape[1], 1., 8., 4.)


def main(folder: str) -> None:
    found, commits = {}, {}
    for short, source in SOURCES.items():
        commits[source] = (Path(folder)/short/'commit').read_text().strip()
    sys.path.insert(0, f'{folder}/RepDistiller')
    for name in CASES:
        s, t = inputs(name)
        s, t = [f.double().requires_grad_() for f in s], [f.double() for f in t]
        if name not in REPDISTILLERS:
            loss = by_others(folder, name, s, t)
        else:
            older = REPDISTILLERS.index(name) > 5
            loss = older_of_repdistiller(name, s, t) if older else by_repdistiller(name, s, t)
        found[name] = figure(loss, s)
    lines = [f'  {json.dumps(name)}: {json.dumps(of)}' for name, of in found.items()]
    print(f'{{"commits": {json.dumps(commits)},\n "losses": {{\n' + ',\n'.join(lines) + '}}')


if __name__ == '__main__':
    main(sys.argv[1])
