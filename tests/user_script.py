"""The calls of README and tutorials in their typical form: pyright checks what comes back (`make types`).

Each function is one tutorial. They are checked, not run; `assert_type` fails where a type is unknown (Any) or another.
"""
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from typing_extensions import assert_type

from kdnb.all import *
from kdnb.experiments import Results
from kdnb.measure import Profile, attention_correlation, block_contrast, linear_cka, rescued_broken
from kdnb.methods import Method, regressor
from kdnb.models import ResNet, StagedNet, reestimate_bn
from kdnb.schemes import Pulls, joint_gate
from kdnb.show import (
    Comparison,
    map_likeness,
    minibatch_cka,
    pick_by_class,
    show_bars,
    show_curves,
    show_dark_knowledge,
    show_histograms,
    show_images,
    show_maps,
    show_matrices,
    show_points,
)
from kdnb.taps import Tail, Taps
from kdnb.text import Column, Table
from kdnb.train import Remembered, fit_together, remember

def readme() -> None:
    data: Data = load_data('digits', size=16)
    few = load_data('digits', size=16, n_train=100)
    assert_type(few, Data)
    with seeded(0): net = create_model('resnet14', data.num_classes)
    assert_type(net, nn.Module)
    teacher = Learner(net, data).fit(20)
    assert_type(teacher, Learner)
    alone = Learner(resnet(8, data.num_classes), few, seed=1).fit(60, fresh=True)
    taught = Learner(Distill(resnet(8, data.num_classes), teacher, 'kd'), few, run='taught', recipe='crd').fit(60)
    c = compare(teacher=teacher, alone=alone, taught=taught)
    assert_type(c, Comparison)
    assert_type(c.fig, Figure)
    print(f"alone {c.rows[1]['accuracy']:.1f} %, taught {c.rows[2]['accuracy']:.1f} %")
    assert_type(stamp(teacher, alone, taught), str)

def data_sets(folder: Path, x: Tensor, y: Tensor) -> None:
    for name in ('cifar100', folder, folder/'own.npz'): assert_type(load_data(name, bs=128, valid=.1), Data)
    assert_type(load_data('cinic10', n_train=1000, root=folder, device='cpu', recipe='distillation'), Data)
    own = Data((x, y), None, (x, y), classes=['cat', 'dog'], bs=32, augment='crop_flip')
    assert_type(own.num_classes, int)
    assert_type(own.classes, list[str])
    assert_type(own.size, int)
    assert_type(own.one_batch(), tuple[Tensor, Tensor])
    assert_type(own.examples(3, split='valid'), tuple[Tensor, Tensor])
    for xb, yb in own.train: assert_type(xb.float().mean() + yb.float().mean(), Tensor)
    assert_type(show_batch(own, 3), Figure)
    several = load_data('photos', labels='labels.csv')
    assert_type(several.multi_label, bool)
    learn = Learner(Distill(resnet(8, several.num_classes), folder/'teacher', 'bkd'), several, cbs=[EarlyStop()]).fit(5)
    assert_type(learn.validate('test')['student'], float)
    assert_type(predict(folder/'run', folder/'photo.jpg', which='ema').records(), list[dict[str, object]])
    assert_type(sweep('resnet8', method='ls', recipe=Recipe(5, lr=.05, wd=5e-4)), Results)

def models(folder: Path) -> None:
    assert_type(resnet(8, 100, width=.5), ResNet)
    assert_type(wrn(28, 4, preact=True), ResNet)
    assert_type(plainnet(18, 100), ResNet)
    assert_type(cheapnet(56, 'shift', groups=4), ResNet)
    for net in (shufflenetv2(1.0), mobilenetv2(.5), vgg(8)): assert_type(net, StagedNet)
    assert_type(list_models('wrn*'), list[str])
    model = create_model('torchvision/resnet18', 10, weights=None)
    save_model(model, folder/'net.pt')
    assert_type(load_model(folder/'net.pt', which='best', model=model), nn.Module)
    grown = grow(reducenet(20, expansion=1), expansion=1)
    assert_type(shrink(grown, inherit=True, refit=None), nn.Module)
    assert_type(reestimate_bn(cheapen(model, 'group', groups=8), [torch.rand(8, 3, 32, 32)]), nn.Module)
    assert_type(fuse(model), nn.Module)
    cost = profile(model, 32, bs=1)
    assert_type(cost, Profile)
    assert_type(cost.params, int)
    assert_type(cost.macs, int)
    assert_type(cost.latency.median, float)

def taps(model: nn.Module, x: Tensor) -> None:
    found = find_taps(model, 32)
    assert_type(found, Taps)
    for row in found: assert_type(row.stage, int)
    names = [row.post for row in found if row.stage]
    logits, features = Tapped(model.eval(), names, size=32)(x)
    assert_type(logits, Tensor)
    assert_type(features, dict[str | int, Tensor])
    end = tail(model, found[1].sum)
    assert_type(end, Tail)
    with torch.no_grad(), evaluating(resnet(8)) as net: assert_type(net, ResNet)

def losses(s: Tensor, t: Tensor, y: Tensor, bn: nn.BatchNorm2d) -> None:
    assert_type(kd_loss(s, t, T=4.), Tensor)
    assert_type(dkd_loss(s, t, y, alpha=1., beta=8., T=4.), Tensor)
    for loss in (hint_loss, at_loss, nst_loss, sp_loss, rkd_distance_loss, rkd_angle_loss, pkt_loss):
        assert_type(loss(s, t), Tensor)
    assert_type(dist_loss(s, t, beta=1., gamma=1., T=1.) + wttm_loss(s, t, T=4.), Tensor)
    assert_type(ofd_loss(s, t, ofd_margin(bn)), Tensor)
    assert_type(attention_map(s, p=2), Tensor)
    assert_type(standardize_logits(s), Tensor)
    assert_type(block_contrast(similarity_matrix(s), y), float)
    assert_type(attention_correlation(s, t), tuple[float, float])
    assert_type(linear_cka(s, t), float)
    assert_type(regressor(s, t), nn.Module)

def own_loss(s: Tensor, t: Tensor) -> Tensor: return (s - t).square().mean()

def methods(student: nn.Module, teacher: Learner, data: Data) -> None:
    assert_type(parse_method('kd(T=16, weight=.8)+at'), Method)
    assert_type(CE(.1) + KD(.9, T=4), Method)
    terms = (FitNet(100, taps=2), AT(1000), NST(50), RKD(1, distance=25, angle=50), SP(3000, taps=-1), DKD(1), DIST(1),
             OFD(1e-3, teacher_bn='batch'), Term(own_loss, 1., taps=-1, batchwise=True), 'kd+at', CE(.1) + KD(.9))
    for term in terms: assert_type(Distill(student, teacher, term, weights='crd', size=data.size), Distill)
    scheme = Distill(student, teacher, KD(T=4.), size=data.size)
    pulls = weigh(scheme.to(data.device), data.one_batch())
    assert_type(pulls, Pulls)
    assert_type(scheme.method, Method)
    for teaching in (teacher.student, 'runs/teacher', Path('runs/teacher')): Distill(student, teaching, 'at')

def other_schemes(teacher: Learner, data: Data) -> None:
    plain = JointRD(plainnet(18, 10), teacher, fade_to=.5, ramp=60, weight=1e-3, train_teacher=False)
    assert_type(Learner(plain, data, recipe='jointrd').fit(1), Learner)
    assert_type(joint_gate(3, 200), float)
    team = Online([resnet(8), resnet(8)], T=4, weight=None)
    assert_type([num_params(s) for s in team.students], list[int])
    assert_type(Learner(team, data).fit(1).students, list[nn.Module])
    assert_type(Learner(Alone(resnet(8), 'ls'), data, cbs=None).fit(1), Learner)
    words = remember(teacher.student, data, views=1)
    assert_type(words, Remembered)
    both = [Learner(Distill(resnet(8), words, m), data, run=m) for m in ('kd', 'dkd')]
    assert_type(fit_together(both, 20), list[Learner])

def training(learn: Learner) -> None:
    assert_type(learn.validate('test'), dict[str, float])
    assert_type(learn.student, nn.Module)
    assert_type(learn.history, list[dict[str, float]])
    assert learn.result
    assert_type(learn.result['last']['test_acc'], float)
    logits, y = predict(learn.student, learn.data.test)
    assert_type(logits, Tensor)
    for score in (accuracy, calibration_error, agreement):
        assert_type(score(logits, y if score is not agreement else logits), float)
    assert_type(rescued_broken(logits, logits, y), dict[str, Tensor])
    d = paired_difference({0: 71.2, 1: 71.5}, {0: 70.1, 1: 70.3})
    assert d
    assert_type(d['mean'], float)

def pictures(models: dict[str, Learner], data: Data) -> None:
    x, y = data.examples(200)
    assert_type(show_history(models), Figure)
    assert_type(show_attention(models, x, data, n=5, stage=2), Figure)
    assert_type(show_similarity(models, x, y), Figure)
    assert_type(show_logits(models, x, y, data=data), Figure)
    assert_type(show_cka(models, x), Figure)
    assert_type(show_dark_knowledge(models, data, T=4.), Figure)
    assert_type(show_tradeoff('runs/*', 'latency', data), Figure)
    gate = {'the gate': {'this run': dict(enumerate([1., .5]))}}
    assert_type(show_curves(gate, x='epoch', marks={'the gate': {'end': 1}}), Figure)
    assert_type(show_bars({'test': {'alone': {'seed 0': 43.1}}}, y='accuracy, %', log=True), Figure)
    assert_type(show_histograms({'logits': {'teacher': x, 'alone': [1., 2.]}}, x='value'), Figure)
    assert_type(show_images({'stage 1': {'teacher': x[0, 0], 'alone': x[1, 0] > 0}}, labels=['silent', 'loud']), Figure)
    assert_type(explore(models['taught']).draw(3, stage=-1, T=4.), Figure)
    assert_type(compare(data, teacher=models['teacher'], taught=models['taught']), Comparison)

def pictures_of_tensors(images: Tensor, f: Tensor, g: Tensor, data: Data) -> None:
    at = pick_by_class(data.test.y.cpu(), data.classes)
    assert_type(at, Tensor)
    assert_type(data.test.normalise(data.test.labelled(at)[0]), Tensor)
    maps = {'stage 2': {'teacher': f[:, 0]}, 'minus': {'taught': g[:, 0] - f[:, 0]}}
    assert_type(show_maps(images, maps, data, ['rescued']), Figure)
    assert_type(show_matrices({'similarity': {'teacher': similarity_matrix(f)}}, data.classes), Figure)
    pairs = {'two classes': f > 1, 'one class': f <= 1}
    assert_type(show_points(f, {'alone': g, 'taught': f}, pairs, "teacher's", "student's"), Figure)
    assert_type(minibatch_cka(f, g), float)
    assert_type(map_likeness(f, g), float)
    assert_type(Table(['', Column('test', '.2f', '%')], [['alone', 59.2], ['taught', None]], notes=['n = 1']), Table)

def experiments() -> None:
    runs = load_results('runs/grid-*')
    assert_type(runs, Results)
    assert_type(str(runs.table().markdown()), str)
    assert_type(show_grid(runs), Figure)
    swept = sweep('resnet8', 'resnet14', ['kd', 'at'], seeds=3, epochs=2, data='digits', dry_run=True)
    assert_type(swept, Results)
