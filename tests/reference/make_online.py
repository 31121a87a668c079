"""Compute what the authors' code of DML, ONE and DOT gives: `python tests/reference/make_online.py FOLDER`.

FOLDER holds checkouts named owner+name, each with its commit in a file COMMIT. DML is written in TensorFlow: the source
of its loss runs with PyTorch's functions under TensorFlow's names. ONE's net and KL are their files; their two lines
that add up the losses are taken out of a script that no Python since 3.7 reads. DOT's optimiser is their file.
"""
import ast
import importlib.util
import json
import re
import sys
from pathlib import Path
from textwrap import dedent
from types import ModuleType, SimpleNamespace

import torch
from dot_steps import dot_case, dot_losses
from fixed import fill, logits_case, numbers
from make_logits import figure
from torch import nn

SOURCES = dict(
    dml='YingZhangDUT+Deep-Mutual-Learning/train_models.py', one='Lan1991Xu+ONE_NeurIPS2018/models/cifar/resnet.py',
    one_kl='Lan1991Xu+ONE_NeurIPS2018/loss/kl_loss.py', one_sum='Lan1991Xu+ONE_NeurIPS2018/cifar_one.py',
    one_ramp='Lan1991Xu+ONE_NeurIPS2018/utils/ramps.py', dot='megvii-research+mdistiller/mdistiller/engine/dot.py')


def theirs(folder: str, of: str) -> ModuleType:
    "One of their files, as a module."
    path = Path(folder)/SOURCES[of]
    spec = importlib.util.spec_from_file_location(f'{of}_of_theirs', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def of_dml(folder):
    "The loss of each of two nets: its cross-entropy and the KL that their function makes of both."
    source = (Path(folder)/SOURCES['dml']).read_text()
    kl = next(n for n in ast.parse(source).body if getattr(n, 'name', '') == 'kl_loss_compute')
    tf = SimpleNamespace(
        nn=SimpleNamespace(softmax=lambda z: z.softmax(-1)), log=torch.log, reduce_mean=torch.mean,
        reduce_sum=torch.sum)
    names = dict(tf=tf)
    exec(compile(ast.Module([kl], []), 'theirs', 'exec'), names)
    s, t, y, *_ = logits_case()
    s.requires_grad_(), t.requires_grad_()
    return {f'dml_{i}': figure(nn.functional.cross_entropy(own, y) + names['kl_loss_compute'](own, other), own)
            for i, (own, other) in enumerate([(s, t), (t, s)], 1)}


def of_one(folder):
    "The whole loss of their net of eight layers, with gradients at a shared layer, the gate and two classifiers."
    net = fill(theirs(folder, 'one').one_resnet(depth=8, num_classes=10), 71)
    source = (Path(folder)/SOURCES['one_sum']).read_text()
    lines = re.search(r'        loss_cross = .*?(?=\n        prec1_t)', source, re.S)[0]
    weight = theirs(folder, 'one_ramp').sigmoid_rampup(40, 80)
    outputs = dict(zip(['outputs1', 'outputs2', 'outputs3', 'outputs4'], net(numbers(72, 12, 3, 32, 32)), strict=True))
    names = outputs | dict(criterion=nn.CrossEntropyLoss(), criterion_kl=theirs(folder, 'one_kl').KLLoss(),
                           consistency_weight=weight, targets=logits_case()[2])
    exec(dedent(lines), names)
    read = net.conv1.weight, net.control_v1.weight, net.classfier3_1.weight, net.classfier3_3.weight
    return dict(one=figure(names['loss_cross'] + names['loss_kl'], *read) | dict(weight=weight))


def of_dot(folder):
    "Parameters after six steps, the last three at a tenth of the rate."
    import torch.optim.optimizer as optimizer
    optimizer.required = None
    sys.modules.setdefault('torch.optim._functional', ModuleType('torch.optim._functional'))
    params = dot_case()
    opt = theirs(folder, 'dot').DistillationOrientedTrainer(params, .05, .825, .975, weight_decay=5e-4)
    for step in range(6):
        opt.param_groups[0]['lr'] = .05 if step < 3 else .005
        task, kd = dot_losses(params, step)
        opt.zero_grad(set_to_none=True)
        kd.backward(retain_graph=True)
        opt.step_kd()
        opt.zero_grad(set_to_none=True)
        task.backward()
        opt.step()
    return dict(dot=[p.detach().flatten().tolist() for p in params])


def main(folder):
    torch.Tensor.cuda = lambda self, *_: self                   # their code asks for a GPU, and none is needed
    commits = {p.split('/')[0]: (Path(folder)/p.split('/')[0]/'COMMIT').read_text().strip() for p in SOURCES.values()}
    figures = of_dml(folder) | of_one(folder) | of_dot(folder)
    lines = [f' {json.dumps(k)}: {json.dumps(v)}' for k, v in figures.items()]
    print(f'{{"sources": {json.dumps(SOURCES)},\n"commits": {json.dumps(commits)},\n"figures": {{\n'
          + ',\n'.join(lines) + '}}')


if __name__ == '__main__':
    main(*sys.argv[1:])
