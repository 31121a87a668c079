"""Compute what the authors' losses on logits, and CRD, give: `python tests/reference/make_logits.py FOLDER`.

FOLDER holds checkouts named owner+name, each with its commit in a file COMMIT. All numbers are computed by their code:
the loss and its gradient with respect to what they read of the student, on the numbers of `cases` in `fixed.py`.
Modules that their files import and do not use for this are stood in for by empty ones.
"""
import importlib.util
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from fixed import fill, logits_case, unit
from torch import nn

SOURCES = dict(
    crd='HobbitLong+RepDistiller/crd/criterion.py', ttm='zkxufo+TTM/distiller_zoo/ttm.py',
    wttm='zkxufo+TTM/distiller_zoo/wttm.py', dist='zkxufo+TTM/distiller_zoo/dist.py',
    nkd='yzd-v+cls_KD/mmcls/models/dis_losses/nkd.py', rld='zju-SWJ+RLD/mdistiller/distillers/RLD.py',
    wkd='JiamingLv+WKD/mdistiller/distillers/WKD.py', ctkd='zhengli97+CTKD/models/temp_global.py',
    ctkd_kl='zhengli97+CTKD/distiller_zoo/KD.py',
    dkd='sunshangquan+logit-standardization-KD/mdistiller/distillers/DKD.py',
    mlkd='Jin-Ying+Multi-Level-Logit-Distillation/mdistiller/distillers/KD_ours.py',
    hard='facebookresearch+deit/losses.py', bkd='penghui-yang+L2D/criterion/distiller_zoo/logits_based/mld.py')


def stand_in(name: str, **holds: object) -> None:
    "An empty module of a name."
    sys.modules[name] = module = ModuleType(name)
    vars(module).update(holds)


def theirs(folder: str, of: str) -> ModuleType:
    "One of their files, as a module."
    path = Path(folder)/SOURCES[of]
    package = f'{of}_package'
    stand_in(package, __path__=[str(path.parent)])
    for part in ('_base', '_common', 'loss'):
        stand_in(f'{package}.{part}', Distiller=Stub, CrossEntropyLabelSmooth=None)
    spec = importlib.util.spec_from_file_location(f'{package}.{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Stub(nn.Module):
    "What their distillers are made of: a student and a teacher."
    def __init__(self, student, teacher):
        super().__init__()
        self.student, self.teacher = student, teacher


def figure(loss, *read):
    "A loss, and its gradient at each of some tensors."
    grads = torch.autograd.grad(loss, read)
    return dict(loss=loss.item(), gradient=[[float(f'{v:.7g}') for v in g.flatten().tolist()] for g in grads])


def of_logits(folder):
    "The losses that read logits."
    s, t, y, second, told = logits_case()
    s.requires_grad_()
    nkd, rld, dkd, wkd = (theirs(folder, of) for of in ('nkd', 'rld', 'dkd', 'wkd'))
    standard = dkd.normalize
    ttm, wttm, dist = (theirs(folder, of) for of in ('ttm', 'wttm', 'dist'))
    w = nn.functional.normalize(told, dim=-1)
    cost = 1 - torch.exp(-1.*(1 - w @ w.T))                     # as WKD.__init__ has it, of the teacher's classifier
    hard = theirs(folder, 'hard').DistillationLoss(lambda outputs, y: 0*outputs.sum(), lambda x: t, 'hard', .5, 1.)
    return dict(
        ttm=figure(ttm.TTM(.1)(s, t), s), wttm=figure(wttm.WTTM(.2)(s, t), s),
        wttm_standardized=figure(wttm.WTTM(.2)(standard(s), standard(t)), s),
        dist=figure(dist.DIST(tau=4.)(s, t), s),
        dist_standardized=figure(dist.DIST(tau=4.)(standard(s), standard(t)), s),
        dkd_standardized=figure(dkd.dkd_loss(s, t, y, 1., 8., 2., True), s),
        nkd=figure(nkd.NKDLoss('', True)(s, t, y), s), nkd_cifar=figure(nkd.NKDLoss('', True, 3., 3.5)(s, t, y), s),
        rld=figure(rld.rld_loss(s, t, y, 1., 8., 4., False, 1.), s),
        rld_standardized=figure(rld.rld_loss(s, t, y, 1., 8., 2., True, 1.), s),
        wkd=figure(wkd.wkd_logit_loss_with_speration(s, t, y, 8., 600., cost, .05, 10), s),
        hard=figure(2*hard(None, (s, s), y), s),                # their alpha .5 put aside
        bkd=figure(theirs(folder, 'bkd').MLD()(s, t), s))


def of_two_views(folder):
    "MLKD's whole loss without the labels, of both views."
    (s, t, y, (s2, t2), _) = logits_case()
    s.requires_grad_(), s2.requires_grad_()
    outputs = dict(weak=(s, t), strong=(s2, t2))
    cfg = SimpleNamespace(KD=SimpleNamespace(TEMPERATURE=4., LOSS=SimpleNamespace(CE_WEIGHT=1., KD_WEIGHT=1.)))
    mlkd = theirs(folder, 'mlkd').KD_ours(lambda v: (outputs[v][0], None), lambda v: (outputs[v][1], None), cfg)
    losses = mlkd.forward_train('weak', 'strong', y)[1]
    return dict(mlkd=figure(sum(v for k, v in losses.items() if k != 'loss_ce'), s, s2))


def of_temperature(folder):
    "CTKD: the loss, and the gradients at the logits and at the number that makes the temperature, at the full -1."
    s, t = (z.double() for z in logits_case()[:2])              # the second gradient is a difference of large numbers
    s.requires_grad_()
    learnt = theirs(folder, 'ctkd').Global_T().double()
    kl = theirs(folder, 'ctkd_kl').DistillKL()
    T = 1 + 20*torch.sigmoid(learnt(t, s, -1.))                 # t_start 1, t_end 20, decay_min -1 of their script
    return dict(ctkd=figure(kl(s, t, T), s, learnt.global_T) | dict(T=float(T)))


def of_crd(folder):
    "Two steps of CRD: the constants and the rows of the first count in the second."
    s, t = unit(51, 12, 24)*5, unit(52, 12, 16)*5
    index, places = torch.arange(12)*3 % 40, (torch.arange(12)[:, None]*7 + torch.arange(21)**2) % 40
    places[:, 0] = index
    s.requires_grad_()
    criterion = theirs(folder, 'crd').CRDLoss(
        SimpleNamespace(s_dim=24, t_dim=16, feat_dim=8, n_data=40, nce_k=20, nce_t=.07, nce_m=.5))
    fill(criterion.embed_s, 61), fill(criterion.embed_t, 62)
    criterion.contrast.memory_v1.copy_(unit(63, 40, 8)), criterion.contrast.memory_v2.copy_(unit(64, 40, 8))
    found = {}
    for step in (1, 2):
        read = s, criterion.embed_s.linear.weight, criterion.embed_t.linear.weight
        found[f'crd_{step}'] = figure(criterion(s, t, index, places.roll(0 if step == 1 else 5, 0).index_copy(
            1, torch.tensor([0]), index[:, None])).sum(), *read)
    found['crd_2']['rows'] = criterion.contrast.memory_v1[index].flatten().tolist()
    return found


def main(folder):
    stand_in('turtle', st=None)
    stand_in('mmcls')
    stand_in('mmcls.registry', MODELS=SimpleNamespace(register_module=lambda: lambda c: c))
    torch.Tensor.cuda = lambda self, *_: self                   # their code asks for a GPU, and none is needed
    commits = {p.split('/')[0]: (Path(folder)/p.split('/')[0]/'COMMIT').read_text().strip() for p in SOURCES.values()}
    with redirect_stdout(sys.stderr):                           # their bank prints
        figures = of_logits(folder) | of_two_views(folder) | of_temperature(folder) | of_crd(folder)
    lines = [f' {json.dumps(k)}: {json.dumps(v)}' for k, v in figures.items()]
    print(f'{{"sources": {json.dumps(SOURCES)},\n"commits": {json.dumps(commits)},\n"figures": {{\n'
          + ',\n'.join(lines) + '}}')


if __name__ == '__main__':
    main(*sys.argv[1:])
