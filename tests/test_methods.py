"Every method on pairs of models that nobody made for it; the traps of the systems that kdnb unifies; bad input."

import copy
import math
import shutil
import warnings

import house
import numpy as np
import pytest
import torch
import torchvision.models as tvm
from torch import nn

from kdnb.data import Data, load_data
from kdnb.losses import hint_loss, kd_loss, ofd_margin
from kdnb.methods import AT, KD, OFD, RKD, SP, FitNet, Term, known_methods, parse_method, regressor
from kdnb.models import create_model, load_model, mobilenetv2, resnet, shufflenetv1, shufflenetv2, vgg, weights_hash
from kdnb.schemes import Alone, Distill, Frozen
from kdnb.seeds import seeded
from kdnb.taps import bn_before, find_taps
from kdnb.train import Learner

EVERY = [
    k for k in {make: name for name, make in reversed(known_methods.items())}.values() if k not in ('self', 'ls')
]  # one name of each, but the two that are no pair of models
STAGELESS = [m for m in EVERY if known_methods[m]().taps in (None, 'embedding')]


def some(size, n=8, train=16):
    g = torch.Generator().manual_seed(0)

    def images(n):
        return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=g), torch.arange(n) % 10

    return Data(images(train), None, images(n), [str(i) for i in range(10)], bs=4)


def torchvision(name, **kw): return getattr(tvm, name)(weights=None, num_classes=10, **kw)


def timm(name):
    pytest.importorskip('timm')
    return create_model(f'timm/{name}', 10)


def vit(): return tvm.VisionTransformer(32, 8, 2, 4, 64, 128, num_classes=10)


def step(scheme, data):
    "One forward and backward pass; the losses. All that is trained gets a finite gradient, the teacher none."
    scheme.check(data)
    scheme.train()
    x, y, *beside = next(data.train.asking(scheme.asks).epoch(0, 0))
    losses, logits = scheme(x, y, **dict(*beside))
    sum(losses.values()).backward()
    assert all(v.isfinite() and v.dtype == torch.float32 for v in losses.values()) and logits['student'].shape == (
        4,
        10)
    assert [n for n, p in scheme.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    assert all(p.grad is None for p in scheme.teacher.model.parameters())
    return losses


# --- any model


@pytest.mark.parametrize(
    'teacher,student,size',
    [
        (lambda: torchvision('resnet18'), lambda: torchvision('mobilenet_v2'), 64),
        pytest.param(lambda: torchvision('densenet121'), lambda: resnet(20), 64, marks=pytest.mark.slow),
        (lambda: torchvision('shufflenet_v2_x1_0'), lambda: resnet(8), 64),
        (lambda: torchvision('resnet18'), lambda: torchvision('shufflenet_v2_x0_5'), 64),
        (lambda: create_model('wrn_40_2', 10), lambda: create_model('shufflenetv2_1.0', 10), 32),
        pytest.param(lambda: timm('efficientnet_lite0'), lambda: resnet(8), 64, marks=pytest.mark.slow)],
    ids=[
        'resnet18-mobilenet_v2',
        'densenet121-resnet20',
        'shufflenet_v2-resnet8',
        'resnet18-shufflenet_v2',
        'wrn_40_2-shufflenetv2',
        'timm-resnet8'])
def test_all_methods_at_once_between_nets_of_different_kinds(teacher, student, size):
    losses = step(Distill(student(), teacher(), '+'.join(EVERY), size=size), some(size))
    assert sorted(losses) == sorted(EVERY) and all(v > 0 for v in losses.values())


def resnet32x4(): return resnet(32, width=4, stem_width=32)


@pytest.mark.parametrize(
    'teacher,student',
    [
        (resnet32x4, shufflenetv1),
        (resnet32x4, shufflenetv2),
        (resnet32x4, lambda: shufflenetv2(1.0, preact=False)),
        (lambda: vgg(13), lambda: mobilenetv2(0.5)),
        (lambda: vgg(13), lambda: vgg(8)),
        pytest.param(lambda: resnet(50), lambda: mobilenetv2(0.5), marks=pytest.mark.slow),
        (lambda: shufflenetv2(0.5), shufflenetv1)],
    ids=[
        'resnet32x4-shufflenetv1',
        'resnet32x4-shufflenetv2',
        'resnet32x4-shufflenetv2_post',
        'vgg13-mobilenetv2',
        'vgg13-vgg8',
        'resnet50-mobilenetv2',
        'shufflenetv2-shufflenetv1'])
def test_all_methods_on_the_pairs_of_the_tables(teacher, student):
    losses = step(Distill(student(), teacher(), '+'.join(EVERY)), some(32))
    assert sorted(losses) == sorted(EVERY) and all(v > 0 for v in losses.values())


def test_images_of_224_pixels():
    step(
        Distill(torchvision('mobilenet_v2'), torchvision('resnet18'), 'kd+at+sp+rkd+ofd+fitnet', size=224),
        some(224, train=4))


class Pooled(nn.Module):
    "Each token is the mean of four patches, so that no cut tells the size of the map."

    def __init__(self):
        super().__init__()
        self.patches, self.mix, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 8), nn.Linear(8, 10)

    def forward(self, x):
        return self.head(self.mix(self.patches(x).flatten(2).unflatten(2, (-1, 4)).mean(3).mT).relu().mean(1))


def test_a_net_without_stages_teaches_by_what_it_says_and_errors_say_so():
    teacher, data = Pooled(), some(32)
    needs_stages = {m for m in EVERY if m not in STAGELESS and m != 'ofa'}      # the stages that OFA reads are ours
    step(Distill(resnet(8), teacher, '+'.join(m for m in EVERY if m not in needs_stages)), data)
    for m in needs_stages:
        with pytest.raises(
            ValueError,
            match=(
                f"{m} finds no pair of taps.*the student has the stages 1.*the teacher has no stages: .* has tokens .* "
                "of unknown height and width.*Name pairs by hand.*kd, dkd, dist, wttm; rkd, pkt")):
            Distill(resnet(8), teacher, m).settle(32)


def test_tokens_can_be_named_by_hand_where_a_loss_takes_any_shape():
    teacher, data = vit(), some(32)
    taps = {'stages.2.0.act2': 'encoder.layers.encoder_layer_1.add_1'}
    step(Distill(resnet(8), teacher, SP(taps=taps)), data)
    with pytest.raises(
        ValueError,
        match=(
            r"at cannot compare .*'stages.2.0.act2' \(4, 64, 8, 8\) ~ 'encoder.layers.encoder_layer_1.add_1' \(4, 17, "
            r"64\).*tap a convolutional stage")):
        Distill(resnet(8), teacher, AT(taps=taps)).check(data)
    with pytest.raises(ValueError, match=r'a hint needs maps .*\(2, 17, 64\)'):
        Distill(resnet(8), teacher, FitNet(taps=taps)).settle(32)


@pytest.mark.filterwarnings('ignore')
def test_a_transformer_without_a_graph_teaches_by_what_its_classifier_reads():
    teacher, data = timm('test_vit'), some(160, train=4)
    step(Distill(resnet(8), teacher, 'kd+rkd+pkt', size=160), data)
    with pytest.raises(ValueError, match='the teacher has no stages: .* cannot be traced.*rkd, pkt'):
        Distill(resnet(8), teacher, 'at', size=160)


# --- what does not fit is told in one sentence, with its remedy


def small_vit(): return tvm.VisionTransformer(16, 4, 1, 2, 16, 16, num_classes=10)


def test_images_of_a_size_that_a_model_does_not_take():
    data, half = some(32), lambda x: nn.functional.avg_pool2d(x, 2)
    refused = r'does not run on 32x32 images \(Wrong image height! Expected 16 but got (32|another)!\): '
    with pytest.raises(ValueError, match='the student ' + refused + 'build it for that size'):
        Learner(small_vit(), data, cbs=None)
    with pytest.raises(ValueError, match='the teacher ' + refused + r'give Frozen\(teacher, prepare='):
        Distill(resnet(8), small_vit(), 'kd', size=32).check(data)
    with pytest.raises(ValueError, match='the teacher ' + refused + r'give Frozen\(teacher, prepare='):
        Distill(resnet(8), small_vit(), SP(taps={-1: 'encoder.ln'})).check(data)
    step(Distill(resnet(8), Frozen(small_vit(), prepare=half), [KD(), SP(taps={-1: 'encoder.ln'})]), data)


def grey():
    return nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


@pytest.mark.parametrize('method', ['kd', 'at'])
def test_a_net_for_grey_images(method):
    data, one = some(32), 'takes 1 channel, the images have 3: '
    for scheme in (lambda: Alone(grey()), lambda: Distill(grey(), resnet(8), method)):
        with pytest.raises(ValueError, match='the student ' + one + 'build its first convolution'):
            scheme().check(data)
    with pytest.raises(ValueError, match='the teacher ' + one + r'give Frozen\(teacher, prepare=lambda'):
        Distill(resnet(8), grey(), method).check(data)
    step(Distill(resnet(8), Frozen(grey(), prepare=lambda x: x.mean(1, keepdim=True)), method), data)


def test_whose_place_it_is_that_is_not_there():
    for taps, who in (
        ({'stages.9': 1}, 'student'),
        ({1: 'stages.9'}, 'teacher'),
        ({4: 1}, 'student'),
        ({1: 4}, 'teacher')):
        with pytest.raises(ValueError, match=f"in the {who}, (unknown tap 'stages.9'|there is no stage 4)"):
            Distill(resnet(8), resnet(8), AT(taps=taps)).settle(32)

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = resnet(8)

        def forward(self, x): return self.net(x), x

    with pytest.raises(TypeError, match='the teacher returns a tuple, not logits'):
        Distill(resnet(8), Pair(), 'kd').check(some(32))


def test_images_of_another_size_are_told_before_their_mean(digits):
    teacher, other = (
        Learner(resnet(8), digits, cbs=None).fit(1),
        load_data('digits', size=32, n_train=100, device='cpu'))
    with pytest.raises(ValueError, match=r'images of another size \(16, now 32\)'):
        Distill(resnet(8), teacher, 'kd', size=32).check(other)
    seen = digits.describe() | {'mean': [0.123456789] * 3}
    (scheme := Distill(resnet(8), resnet(8), size=16)).trained_on = [seen]
    with pytest.raises(
        ValueError, match=r'another mean \(\[0.1235, 0.1235, 0.1235\], now \[0.\d{1,4}, 0.\d{1,4}, 0.\d{1,4}\]\)'):
        scheme.check(digits)


# --- what a scheme says of itself


def test_a_scheme_shows_its_method_its_teacher_and_its_pairs():
    shown = repr(Distill(resnet(8), resnet(14), 'kd+at+rkd', size=32)).split('\n')
    assert [line.strip() for line in shown[1:6]] == [
        'CE(1) + KD(0.9, T=4) + AT(1000, p=2) + RKD(1, distance=25, angle=50)',
        *(f"at: 'stages.{i}.0.act2' ~ 'stages.{i}.1.act2'" for i in range(3)),
        "rkd: 'embedding' ~ 'embedding'"]
    assert '(teacher): Frozen(ResNet)' in shown[6] and 'Frozen(MobileNetV2)' in repr(
        Frozen(torchvision('mobilenet_v2')))


def test_which_stages_are_paired_is_said_where_their_numbers_differ(capsys):
    Distill(resnet(8), torchvision('resnet18'), 'at', size=64)
    assert (
        capsys.readouterr().out
        == 'the student has 3 stages and the teacher 4: the last 3 are paired, 64x64 ~ 8x8, 32x32 ~ 4x4, 16x16 ~ 2x2\n')
    one = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    Distill(one, resnet(8), 'at', size=32)
    assert (
        capsys.readouterr().out == 'the student has 1 stage and the teacher 3: the last ones are paired, 16x16 ~ 8x8\n')
    Distill(resnet(8), one, 'at', size=32)
    assert (
        capsys.readouterr().out == 'the student has 3 stages and the teacher 1: the last ones are paired, 8x8 ~ 16x16\n'
    )


def test_the_stages_of_a_net_are_looked_for_once(monkeypatch):
    from kdnb.schemes import places

    asked, find = [], places.find_taps
    monkeypatch.setattr(places, 'find_taps', lambda model, size: asked.append(model) or find(model, size))
    Distill(s := resnet(8), t := resnet(14), 'at+nst+sp+fitnet+ofd', size=32)
    assert len(asked) == 2 and asked[0] is s and asked[1].model is t


# --- OFD


@pytest.mark.parametrize(
    'teacher,bns',
    [
        (lambda: resnet(14), ['stages.0.1.bn2', 'stages.1.1.bn2', 'stages.2.1.bn2']),
        (lambda: torchvision('resnet18'), ['layer1.1.bn2', 'layer2.1.bn2', 'layer3.1.bn2', 'layer4.1.bn2']),
        (
            lambda: torchvision('mobilenet_v2'),
            [
                'features.2.conv.0.1',
                'features.4.conv.0.1',
                'features.7.conv.0.1',
                'features.14.conv.0.1',
                'features.18.1']),
        (lambda: torchvision('shufflenet_v2_x1_0'), ['stage2.3.branch2.6', 'stage3.7.branch2.6', 'conv5.1'])],
    ids=['ours', 'resnet18', 'mobilenet_v2', 'shufflenet_v2'])
def test_margins_are_those_of_the_batchnorm_in_front_of_the_activation(teacher, bns, tmp_path):
    teacher = teacher()
    for m in teacher.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias)
    taps = [r for r in find_taps(teacher, 64) if r.stage]
    assert [bn_before(teacher, r.pre) for r in taps] == [r.bn for r in taps] == bns[-len(taps) :]
    by_hand = {r.pre: r.pre for r in taps}  # the teacher teaches its like
    scheme = Distill(copy.deepcopy(teacher), teacher, OFD(taps=by_hand), size=64)
    for margin, bn in zip(scheme.method[1].margins, bns[-len(taps) :]):
        assert torch.equal(margin, ofd_margin(teacher.get_submodule(bn))) and margin.max() < 0


def test_margins_are_computed_after_the_teacher_is_loaded(tmp_path):
    data = load_data('digits', size=16, n_train=100, bs=50, device='cpu')
    trained = Learner(resnet(8), data, run=tmp_path / 't', cbs=None).fit(2)
    margins = Distill(resnet(8), tmp_path / 't', 'ofd', size=16).method[1].margins
    fresh = Distill(resnet(8), resnet(8), 'ofd', size=16).method[1].margins
    for k, (m, f) in enumerate(zip(margins, fresh)):
        assert torch.equal(m, ofd_margin(trained.student.stages[k][-1].bn2)) and not torch.equal(m, f)


@pytest.mark.parametrize('bn', ['running', 'batch'])
def test_a_teacher_on_batch_statistics_is_read_and_never_written(bn):
    data, teacher = some(32), resnet(8, width=2)
    with torch.no_grad():
        teacher.train()(data.one_batch()[0])  # statistics of its own
    scheme, before = Distill(resnet(8), teacher, OFD(teacher_bn=bn) + KD()), weights_hash(teacher.eval())
    scheme.check(data)
    scheme.train()
    x, y = data.one_batch()
    for _ in range(2):
        scheme(x, y)
    assert weights_hash(teacher) == before and not any(m.training for m in teacher.modules())
    as_it_trains = copy.deepcopy(teacher).train()(x)
    assert torch.allclose(scheme.teacher(x)[0], as_it_trains, atol=1e-5) == (bn == 'batch')
    assert scheme.describe()['terms']['ofd']['teacher_bn'] == bn and f"teacher_bn='{bn}'" in repr(scheme.method)


# --- traps: what was broken in the systems that kdnb unifies


@pytest.fixture(scope='module')
def digits(): return load_data('digits', size=16, n_train=100, bs=50, device='cpu')


@pytest.mark.parametrize(
    'method', ['fn', 'od', "fn(taps=1)+od(teacher_bn='batch')", 'review', 'ce(after(1, .5)) + fn(until(100, .5))'])
def test_methods_that_never_ran_take_a_step(digits, method):
    with seeded(0):
        student, teacher = resnet(8), resnet(8, width=2)
    before, taught = weights_hash(student), weights_hash(teacher)
    adapters = (scheme := Distill(student, teacher, method, size=16)).adapters
    was = [p.clone() for p in adapters.parameters()]  # statistics of batch norms move without an optimiser
    learn = Learner(scheme, digits, cbs=None).fit(2)
    assert (
        weights_hash(student) != before
        and weights_hash(teacher) == taught
        and was
        and not any(map(torch.equal, was, adapters.parameters())))
    assert all(math.isfinite(v) for row in learn.history for v in row.values() if isinstance(v, float))


def test_another_trial_is_another_student(digits):
    def trial(seed):
        with seeded(seed):
            scheme = Distill(resnet(8), teacher, 'kd', size=16)
        return weights_hash(scheme.student), Learner(scheme, digits, seed=seed, cbs=None).fit(1).student

    with seeded(7):
        teacher = resnet(8)
    (init, a), (other_init, b), (same_init, c) = trial(0), trial(1), trial(0)
    assert (
        init != other_init
        and weights_hash(a) != weights_hash(b)
        and (init, weights_hash(a)) == (same_init, weights_hash(c)))


def test_self_needs_a_twin(digits, tmp_path):
    def alone(seed):
        with seeded(seed):
            return Learner(resnet(8), digits, run=tmp_path / str(seed), seed=seed, cbs=None).fit(1)

    alone(0)
    alone(1)
    with seeded(0):
        student = resnet(8)
    Learner(Distill(student, tmp_path / '1', 'self', size=16), digits, cbs=None).fit(1)
    with pytest.raises(ValueError, match='built like the student'):
        Distill(resnet(14), tmp_path / '1', 'self', size=16)
    with pytest.raises(ValueError, match='very weights'):
        Distill(load_model(tmp_path / '1', 'last'), tmp_path / '1', 'self', size=16)


def test_shuffling_is_the_same_for_the_same_seed_and_leaves_the_rest_alone(digits):
    def run(method):
        with seeded(0):
            scheme = Distill(resnet(8), teacher, method, size=16)
        return weights_hash(Learner(scheme, digits, cbs=None).fit(1).student)

    with seeded(7):
        teacher = resnet(8)
    assert run('kd_shuffled') == run('kd_shuffled') != run('kd')


# --- what the sources say, number by number


@pytest.mark.parametrize(
    'system,method,ce,says',
    [
        ('kdpytorch', 'kd', 0.1, dict(weight=0.9, T=4.0)),
        ('kdpytorch', 'fn', 1, dict(weight=100, taps=2)),
        ('kdpytorch', 'at', 1, dict(weight=1000 / 2, taps='stages', p=2)),
        ('kdpytorch', 'nst', 1, dict(weight=50 / 2, taps='stages')),
        ('kdpytorch', 'rkd', 1, dict(weight=1, distance=25, angle=50, taps='embedding')),
        ('kdpytorch', 'sp', 1, dict(weight=3000, taps=-1)),
        ('kdpytorch', 'od', 1, dict(weight=1 / 1000, teacher_bn='batch', reading='pre', taps='stages')),
        ('distillation', 'kd', 0.8, dict(weight=1 - 0.8, T=16)),
        ('distillation', 'at', 1, dict(weight=60 / 2, p=None, reading='sum', taps=[0, 1, 2, 3])),
        ('distillation', 'sp', 1, dict(weight=3000, reading='sum', taps=[0, 1, 2, 3])),
        ('distillation', 'margin_relu', 1, dict(weight=1e-3, teacher_bn='running', reading='pre', taps=[0, 1, 2, 3])),
        ('crd', 'kd', 0.1, dict(weight=0.9, T=4.0)),
        ('crd', 'fitnet', 1, dict(weight=100, taps=2)),
        ('crd', 'at', 1, dict(weight=1000, p=2)),
        ('crd', 'nst', 1, dict(weight=50)),
        ('crd', 'sp', 1, dict(weight=3000, taps=-1)),
        ('crd', 'rkd', 1, dict(weight=1, distance=25, angle=50)),
        ('crd', 'pkt', 1, dict(weight=3e4, taps='embedding')),
        ('crd', 'ofd', 1, dict(weight=1e-3)),
        ('crd', 'dkd', 1, dict(alpha=1, beta=8, T=4)),
        ('crd', 'dist', 1, dict(weight=2, beta=1, gamma=1, T=4)),
        ('paper', 'at', 1, dict(weight=1000, p=2, reading='sum')),
        ('paper', 'rkd', 1, dict(distance=1, angle=2)),
        ('paper', 'ofd', 1, dict(weight=1e-3, teacher_bn='batch'))])
def test_the_weights_are_those_of_the_source(system, method, ce, says):
    labels, term = parse_method(method, system)
    found = {k: term.options.get(k, getattr(term, k, None)) for k in says}
    assert labels.weight == ce and all(
        found[k] == (pytest.approx(v) if isinstance(v, float) else v) for k, v in says.items()
    ), found


def test_warm_ups_are_twenty_of_240_epochs():
    for m in ('dkd', 'review'):
        term = parse_method(m, 'crd')[1]
        assert [round(term.weight_at(e, 240) / term.weight_at(239, 240), 6) for e in (0, 9, 18, 19, 20)] == [
            0.05,
            0.5,
            0.95,
            1,
            1]
    assert parse_method('review', 'crd')[1].weight_at(239, 240) == 5


@pytest.mark.parametrize('method,images', [('kd+at+sp', 9), ('kd+ofd', 108)])
def test_only_who_measures_reads_many_images_before_the_training(digits, method, images):
    seen, teacher = [], resnet(8)
    scheme = Distill(resnet(8), teacher, method, size=16)
    teacher.stem.conv.register_forward_pre_hook(lambda m, args: seen.append(len(args[0])))
    scheme.check(digits)
    assert sum(seen) == images  # one or all hundred, and eight to try every term


# --- a term that drowns the labels


def test_a_term_that_starts_far_above_the_labels_is_told(digits):
    teacher = resnet(8, width=2)
    with pytest.warns(
        UserWarning, match=r'fitnet starts at .* times the cross-entropy \(2\.\d+\).*weigh\(scheme, batch\)'):
        Learner(Distill(resnet(8), teacher, 'fitnet(1e4)', size=16), digits, lr=1e-6, cbs=None).fit(1)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        Learner(Distill(resnet(8), teacher, 'kd+at+sp', size=16), digits, cbs=None).fit(1)


# --- bad input


@pytest.mark.parametrize(
    'method,says',
    [
        ('kdd', 'did you mean kd'),
        ('at(power=2)', "at has no option 'power': it has weight, taps, p, reading"),
        ('at(p=.5)', 'a number from 1 up'),
        ('kd(T=-1)', 'above 0'),
        ('kd(.5', 'is not a method'),
        ('kd*2', 'is not a method'),
        ('kd-at', 'is not a method'),
        ('rkd(distance=-1)', 'from 0 up'),
        ("ofd(teacher_bn='train')", 'did you mean running'),
        ('dkd(beta=None)', 'beta must be a number'),
        ('ls(smoothing=2)', 'between 0 and 1'),
        ('fitnet(until(100, 3))', 'from 0 to 1'),
        ('fitnet(slope(100))', 'not a number'),
        ('kd(nan)', 'not a number|is not'),
        ('fitnet(taps=7)', 'there is no stage 7: this model has 1, 2, 3'),
        ("at(taps={'stages.9': 'stages.0'})", 'stages.9'),
        ("at(taps='stagez')", 'stagez'),
        ("at(reading='raw')", 'sum, pre, post')])
def test_a_wrong_method_is_one_clear_sentence(method, says):
    with pytest.raises(ValueError, match=says) as e:
        Distill(resnet(8), resnet(14), method).settle(32)
    assert '\n' not in str(e.value)


def test_a_method_without_its_need():
    data = some(32)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 16), nn.ReLU(), nn.Linear(16, 10))
    with pytest.raises(ValueError, match='the teacher has no stages'):
        Distill(resnet(8), flat, 'at').settle(32)
    step(Distill(resnet(8), flat, 'rkd+pkt+kd'), data)
    linear = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    with pytest.raises(ValueError, match="has no 'pre': it has post"):
        Distill(resnet(8), linear, 'ofd').settle(32)  # no activation at all
    with pytest.raises(ValueError, match="teacher_bn='batch' needs a teacher with BatchNorm"):
        Distill(resnet(8), linear, OFD(taps={-1: '1'}, teacher_bn='batch'))
    with pytest.raises(ValueError, match="has no nst: it has kd, at, sp, ofd"):
        Distill(resnet(8), resnet(8), 'nst', weights='distillation')
    with pytest.raises(ValueError, match="unknown system 'rep'"):
        Distill(resnet(8), resnet(8), 'at', weights='rep')


@pytest.mark.parametrize('method', ['at', 'sp', 'od'])
def test_the_distillation_systems_words_on_its_shufflenets(method):
    "Its places 0, 1, 2, 3, raw, on a net whose stem joins nothing."
    scheme = Distill(create_model('shufflenetv2_0.5'), create_model('shufflenetv2_1.0'), method, 'distillation')
    images = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8), torch.arange(16) % 10
    data = Data(images, None, images, range(10), bs=8, device='cpu')
    scheme.check(data)
    losses, _ = scheme(*data.one_batch())
    sum(losses.values()).backward()
    assert all(v.isfinite() and v > 0 for v in losses.values())


# --- names


MEAN = '''"""A method that an added notebook would export."""
from ..losses import hint_loss
from .term import Term, method

__all__ = ['Mean']

@method('mean', 'average')
class Mean(Term):
    """Compares means."""

    def __init__(self, weight=1., taps=-1):
        super().__init__(lambda s, t: hint_loss(s.mean(1), t.mean(1)), weight, taps, name='mean')
'''


def test_one_more_module_is_one_more_method(tmp_path):
    "No other file is touched: its names are known to `parse_method`, and its class is handed on by the package."
    shutil.copytree(house.ROOT / 'kdnb', tmp_path / 'kdnb', ignore=shutil.ignore_patterns('__pycache__'))
    (tmp_path / 'kdnb' / 'methods' / 'mean.py').write_text(MEAN, encoding='utf-8')
    program = """if 1:
        import json, kdnb.methods
        from kdnb.methods import Mean, known_methods, parse_method
        words = repr(parse_method('kd+average(2)'))
        print(json.dumps([kdnb.__file__, words, known_methods['mean'] is Mean is kdnb.methods.Mean]))"""
    at, words, same = house.fresh(program, folder=tmp_path, PYTHONPATH=str(tmp_path))
    assert at.startswith(str(tmp_path))
    assert (words, same) == ('CE(1) + KD(0.9, T=4) + Mean(2)', True)


def test_functions_of_kdnb_are_called_in_config_json_what_version_0_1_0_called_them():
    assert Term(kd_loss, taps=None).describe()['loss'] == 'kd_loss#5773d86ce3f904ec'
    described = Term(hint_loss, 3, taps=[1, 2], adapt=regressor).describe()
    assert described == dict(
        name='hint', taps='[1, 2]', reading='post', weight=3, loss='hint_loss#5895a0aaf52cb359',
        adapt='regressor#3ef8cb58125a77e7')


def test_numbers_of_numpy_and_of_tensors_are_numbers():
    terms = KD(np.float32(0.5), T=torch.tensor(4)), RKD(distance=np.int64(1)), AT(p=torch.tensor(2.0))
    assert [repr(t) for t in terms] == [
        'KD(0.5, T=4)', 'RKD(1, distance=1, angle=50)', 'AT(1000, p=2)']
    assert all(type(v) in (int, float) for t in terms for v in (t.weight, *t.options.values()))
