"""What the five systems do, by hand from their code: schedules, pixels, losses on whole networks, parameters."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdnb.cli import kdnb_train
from kdnb.data import known_sources, load_data
from kdnb.models import create_model, num_params, plainnet, resnet, wrn
from kdnb.schemes import Alone, Distill, Frozen, JointRD, Online
from kdnb.seeds import seeded
from kdnb.taps import Tapped
from kdnb.train import Run, make_optimiser, pick_recipe

# --- the learning rate of each epoch


def steps(lr, gamma, *drops): return lambda e: lr * gamma ** sum(e >= d for d in drops)


SCHEDULES = dict(  # epochs, learning rate, weight decay, Nesterov
    crd=(240, steps(0.05, 0.1, 150, 180, 210), 5e-4, False),
    reducenet=(200, lambda e: 0.1 * (1 + math.cos(math.pi * e / 200)) / 2, 1e-4, True),
    kdpytorch=(200, steps(0.1, 0.1, 100, 150), 5e-4, False),
    distillation=(200, steps(0.1, 0.2, 60, 120, 160), 5e-4, True),
    jointrd=(200, steps(0.1, 0.1, 100, 150), 5e-4, True),
    cheapconv=(300, steps(0.1, 0.1, 150, 225), 2e-4, False),
    cinic10=(140, steps(0.01, 0.1, 100, 120), 5e-4, True),
    imagenet=(100, steps(0.1, 0.1, 30, 60, 90), 1e-4, False),
    jointrd_imagenet=(120, steps(0.2, 0.1, 30, 60, 90), 1e-4, True))


@pytest.mark.parametrize('name', SCHEDULES)
def test_the_learning_rate_of_each_epoch(name):
    epochs, lr, wd, nesterov = SCHEDULES[name]
    opt, schedule = make_optimiser(Alone(nn.Linear(2, 2)), recipe := pick_recipe(name), epochs)
    found = []
    for _ in range(epochs):
        found.append(opt.param_groups[0]['lr'])
        opt.step()
        schedule.step()
    assert recipe.epochs == epochs and found == pytest.approx([lr(e) for e in range(epochs)], rel=1e-9, abs=1e-12)
    assert [{k: g[k] for k in ('momentum', 'dampening', 'weight_decay', 'nesterov')} for g in opt.param_groups] == [
        dict(momentum=0.9, dampening=0, weight_decay=wd, nesterov=nesterov)]


def test_a_recipe_typed_reaches_the_optimiser_and_the_data(quiet):
    assert (
        kdnb_train(
            '--data digits --size 8 --n-train 200 --recipe reducenet --student resnet8 --epochs 1 --device cpu --amp '
            'off --run typed'.split())
        == 0)
    config = Run('typed').json('config.json')
    assert (config['recipe'], config['data']['recipe'], config['data']['bs']) == ('reducenet', 'reducenet', 128)
    assert {k: config['optimiser'][k] for k in ('lr', 'wd', 'nesterov', 'drops')} == dict(
        lr=0.1, wd=1e-4, nesterov=True, drops=None)


# --- pixels

CIFAR10, CIFAR100, CRD = (
    ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)))
MISPRINT, BYTES, RAW = (
    ((0.4814, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    ((125.3 / 255, 123 / 255, 113.9 / 255), (63 / 255, 62.1 / 255, 66.7 / 255)),
    ((0, 0, 0), (1, 1, 1)))
CINIC, IMAGENET, OD = (
    ((0.4789, 0.4723, 0.4304), (0.2421, 0.2383, 0.2587)),
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)))
PIXELS = [  # recipe, data, batch size, padding, mean and deviation
    ('crd', 'cifar100', 64, 'constant', CRD),
    ('reducenet', 'cifar10', 128, 'constant', RAW),
    ('reducenet', 'cifar100', 128, 'constant', RAW),
    ('kdpytorch', 'cifar10', 64, 'constant', MISPRINT),
    ('kdpytorch', 'cifar100', 64, 'constant', MISPRINT),
    ('distillation', 'cifar10', 128, 'reflect', BYTES),
    ('distillation', 'cifar100', 128, 'reflect', BYTES),
    ('jointrd', 'cifar10', 128, 'constant', CIFAR10),
    ('jointrd', 'cifar100', 128, 'constant', CIFAR100),
    ('cheapconv', 'cifar10', 128, 'constant', OD),
    ('cinic10', 'cinic10', 96, None, CINIC),
    ('jointrd_imagenet', 'imagenet', 512, None, IMAGENET),
    ('imagenet', 'imagenet', 256, None, IMAGENET)]


@pytest.mark.parametrize('recipe, name, bs, padding, stats', PIXELS, ids=[f'{r}-{n}' for r, n, *_ in PIXELS])
def test_what_a_network_sees(recipe, name, bs, padding, stats, monkeypatch):
    "Padded as bytes, cut, flipped, then normalised; a test image is normalised and nothing else."
    g = torch.Generator().manual_seed(0)
    x, y, at = (
        torch.randint(0, 256, (n := max(bs, 130), 3, 32, 32), dtype=torch.uint8, generator=g),
        torch.arange(n) % 10,
        [torch.tensor(v).view(3, 1, 1) for v in stats])
    images = replace(known_sources[name], load=lambda root: ((x, y), None, (x[:9], y[:9]), range(10)))
    monkeypatch.setitem(known_sources, name, images)
    data = load_data(name, recipe=recipe, valid=0, size=32, augment='auto' if padding else None, device='cpu')

    def seen(im): return (im.float() / 255 - at[0]) / at[1]

    assert data.bs == bs and data.train.bs == bs and torch.allclose(data.test.normalise(x[:9]), seen(x[:9]), atol=1e-5)
    if padding is None: return
    xb, yb = data.one_batch()
    windows = F.pad(x.float(), (4, 4, 4, 4), mode=padding).unfold(2, 32, 1).unfold(3, 32, 1)  # (n, 3, 9, 9, 32, 32)
    flipped, windows_seen = [], set()
    for im, label in zip(xb[:12], yb):
        both = torch.stack([im, im.flip(2)]) * at[1] + at[0]  # as it is, and flipped back
        off = torch.stack(
            [(windows[label::10].permute(0, 2, 3, 1, 4, 5) - b * 255).abs().amax((3, 4, 5)) for b in both])
        ((how, _, oy, ox),) = (off < 0.01).nonzero().tolist()  # one window of one image of its class
        flipped.append(how)
        windows_seen |= {(oy, ox)}
    assert 0 < sum(flipped) < 12 and len(windows_seen) > 5 and {0, 8} <= {o for w in windows_seen for o in w}


# --- losses on whole networks, of unequal depth and width

C = 7


def ce(z, y): return F.cross_entropy(z, y)


def kl(s, t, T):
    return T * T * (F.softmax(t / T, 1) * (F.log_softmax(t / T, 1) - F.log_softmax(s / T, 1))).sum(1).mean()


def square_maps(f): return F.normalize(f.pow(2).mean(1).flatten(1))


def plain_maps(f): return F.normalize(f.sum(1).flatten(1))


def gram(f): return F.normalize(f.flatten(1) @ f.flatten(1).T)


def kernel(a, b):
    return (
        torch.einsum('bip,bjp->bij', F.normalize(a.flatten(2), dim=2), F.normalize(b.flatten(2), dim=2)) ** 2
    ).mean()


def distances(e):
    d = (e[:, None] - e[None]).pow(2).sum(2).clamp(min=1e-12).sqrt() * (1 - torch.eye(len(e)))
    return d / d[d > 0].mean()


def angles(e):
    d = F.normalize(e[None] - e[:, None], dim=2)
    return d @ d.mT


def margin(bn):
    g, b = bn.weight.detach().abs(), bn.bias.detach()
    phi = 0.5 * (1 + torch.erf(-b / g / 2**0.5))
    return torch.where(phi > 0.001, b - g * torch.exp(-((b / g) ** 2) / 2) / (2 * math.pi) ** 0.5 / phi, -3 * g)


def partial(s, t, m):
    m = m.view(1, -1, 1, 1).expand_as(t)
    return (
        (s - m) ** 2 * ((t <= m) & (s > m)) + (s - t) ** 2 * ((m < t) & (t <= 0) & (s > t)) + (s - t) ** 2 * (t > 0)
    ).sum()


def alive(model):  # batch norms that have something to say
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, -1.5, 1.5)
            nn.init.normal_(m.bias)
            nn.init.normal_(m.running_mean)
            nn.init.uniform_(m.running_var, 0.5, 2)
    return model


def residual(net, x):  # what a ResNet says, its stages before the ReLU and after it, and the embedding
    x, sums = net.stem(x), []
    for stage in net.stages:
        for b in stage:
            total = b.bn2(b.conv2(F.relu(b.bn1(b.conv1(x))))) + b.short(x)
            x = F.relu(total)
        sums.append(total)
    e = x.mean((2, 3))
    return net.head.fc(e), sums, [F.relu(f) for f in sums], e


def preact(net, x):  # what a pre-activation WRN says, its stem and stages raw, and each through the next batch norm
    x = net.stem.conv(x)
    raw = [x]
    for stage in net.stages:
        for b in stage:
            a = F.relu(b.bn1(x))
            x = b.conv2(F.relu(b.bn2(b.conv1(a)))) + (b.short(a) if b.short else x)
        raw.append(x)
    nexts = [s[0].bn1 for s in net.stages] + [net.head.bn]
    return net.head.fc(F.relu(net.head.bn(x)).mean((2, 3))), raw, nexts


def asked(scheme):  # the sum of its losses, and its parts as they were before
    torch.manual_seed(3)
    x, y = torch.randn(5, 3, 32, 32), torch.arange(5)
    scheme.settle(32)
    student, teacher, adapters = (
        copy.deepcopy(scheme.student).train(),
        copy.deepcopy(scheme.teacher.model),
        copy.deepcopy(getattr(scheme, 'adapters', None)))
    losses = scheme.train()(x, y)[0]
    return sum(losses.values()).item(), student, teacher, adapters, x, y


@pytest.fixture(scope='module')
def residuals():
    with seeded(0):
        return alive(resnet(8, C)), alive(resnet(14, C, width=2))


@pytest.mark.parametrize('method', ['kd', 'fn', 'at', 'nst', 'rkd', 'sp', 'od'])
def test_knowledge_distillation_with_pytorch(residuals, method):
    "Its seven, with its weights; OD reads a teacher on batch statistics, and margins from its trained batch norms."
    student, teacher = copy.deepcopy(residuals)
    found, student, teacher, adapters, x, y = asked(Distill(student, teacher, method, 'kdpytorch'))
    z, pre, post, e = residual(student, x)
    with torch.no_grad():
        zt, pre_t, post_t, et = residual(teacher.train(method == 'od'), x)
    pairs = list(zip(post, post_t))
    want = {
        'kd': lambda: 0.1 * ce(z, y) + 0.9 * kl(z, zt, 4),
        'fn': lambda: ce(z, y) + 100 * (adapters['fitnet'][0].train()(post[1]) - post_t[1]).pow(2).mean(),
        'at': lambda: ce(z, y) + 1000 / 2 * sum((square_maps(s) - square_maps(t)).pow(2).mean() for s, t in pairs),
        'nst': lambda: ce(z, y) + 50 / 2 * sum(kernel(t, t) + kernel(s, s) - 2 * kernel(s, t) for s, t in pairs),
        'rkd': lambda: (
            ce(z, y) + 25 * F.smooth_l1_loss(distances(e), distances(et)) + 50 * F.smooth_l1_loss(angles(e), angles(et))
        ),
        'sp': lambda: ce(z, y) + 3000 * (gram(post_t[2]) - gram(post[2])).pow(2).sum() / 25,
        'od': lambda: (
            ce(z, y)
            + 1
            / 1000
            / 5
            * sum(
                2.0 ** (k - 2)
                * partial(adapters['ofd'][k].train()(pre[k]), pre_t[k], margin(teacher.stages[k][-1].bn2))
                for k in range(3))),
    }[method]()
    assert found == pytest.approx(want.item(), rel=1e-4)


@pytest.mark.parametrize('method', ['kd', 'at', 'sp', 'margin_ReLU'])
def test_distillation(method):
    """Its four on its networks: four places, the stem among them; margins read through the next batch norm, once."""
    with seeded(0):
        student, teacher = alive(wrn(10, 1, C)), alive(wrn(16, 2, C))
    scheme = Distill(student, teacher, method, 'distillation')
    found, student, teacher, adapters, x, y = asked(scheme)
    z, raw, nexts = preact(student, x)
    with torch.no_grad():
        zt, raw_t, nexts_t = preact(teacher.eval(), x)

    def entropy(p): return -(p * p.log()).sum(1).mean()

    want = {
        'kd': lambda: (
            0.8 * ce(z, y)
            + 0.2
            * 16**2
            * (-(F.softmax(zt / 16, 1) * F.log_softmax(z / 16, 1)).sum(1).mean() - entropy(F.softmax(zt / 16, 1)))
        ),  # theirs is a cross-entropy: the entropy has no gradient
        'at': lambda: (
            ce(z, y) + 60 / 2 * sum((plain_maps(s) - plain_maps(t)).pow(2).mean() for s, t in zip(raw, raw_t))),
        'sp': lambda: ce(z, y) + 3000 / 25 * sum((gram(s) - gram(t)).pow(2).sum() for s, t in zip(raw, raw_t)),
        'margin_ReLU': lambda: (
            ce(z, y)
            + 1e-3
            / 5
            * sum(
                2.0 ** (k - 3)
                * partial(
                    adapters['ofd'][k].train()(copy.deepcopy(nexts[k])(raw[k])),
                    nexts_t[k](raw_t[k]),
                    margin(nexts_t[k]))
                for k in range(4))),
    }[method]()
    assert found == pytest.approx(want.item(), rel=1e-4)
    assert all(
        m.num_batches_tracked == 1 for m in scheme.student.modules() if isinstance(m, nn.BatchNorm2d)
    )  # theirs: two updates a step
    assert not any(p.requires_grad for p in scheme.teacher.model.parameters())


def test_reducenet_after_the_cut():
    "0.7 T^2 KLDivLoss, averaged over images and classes, and 0.3 CE, at T = 5, for the ten classes of CIFAR-10."
    with seeded(0):
        student, teacher = alive(resnet(8, 10)), alive(resnet(14, 10))
    found, student, teacher, _, x, y = asked(Distill(student, teacher, 'kd', 'reducenet'))
    with torch.no_grad():
        z, zt = student(x), teacher.eval()(x)
    assert found == pytest.approx(
        (
            0.7 * 25 * F.kl_div(F.log_softmax(z / 5, 1), F.softmax(zt / 5, 1), reduction='none').mean() + 0.3 * ce(z, y)
        ).item(),
        rel=1e-4)


@pytest.mark.parametrize('epoch, m', [(0, 1.0), (30, 0.75), (60, 0.5), (150, 0.5)])
def test_jointrd_in_an_epoch(epoch, m):
    """Student heads and teacher tails, each with its cross-entropy and its distance from the teacher's last feature.

    A quarter each (here a third), the mixed ones times the gate.
    """
    with seeded(0):
        scheme = JointRD(alive(plainnet(14, C)), alive(resnet(20, C)), size=32)
    scheme.begin_epoch(epoch, 200)
    student, teacher, connectors = (
        copy.deepcopy(scheme.student).train(),
        copy.deepcopy(scheme.teacher.model).eval(),
        copy.deepcopy(scheme.connectors).train())
    x, y = torch.randn(5, 3, 32, 32), torch.arange(5)
    found = sum(scheme.train()(x, y)[0].values()).item()

    def plain(stage, x, whole):  # its last sum or, where it has none, its last batch norm's
        for b in stage:
            f = b.bn2(b.conv2(F.relu(b.bn1(b.conv1(x))))) + (b.short(x) if whole(b) else 0)
            x = F.relu(f)
        return f

    f, cuts = student.stem(x), []
    for i, stage in enumerate(student.stages):
        f = plain(stage, F.relu(f), lambda b, i=i, stage=stage: i > 0 and b is stage[0])
        cuts.append(f)
    with torch.no_grad():
        target = residual(teacher, x)[1][2]
    ends = []
    for k in (0, 1):
        f = cuts[k]
        for stage in teacher.stages[k + 1 :]:
            f = plain(stage, F.relu(f), lambda b: True)
        ends.append(f)
    heads = [teacher.head.fc(F.relu(f).mean((2, 3))) for f in ends] + [student.head.fc(F.relu(cuts[2]).mean((2, 3)))]
    share = [m / 3, m / 3, 1 / 3]
    D = [partial(c(f), target, margin(teacher.stages[2][-1].bn2)) / 5 for c, f in zip(connectors, [*ends, cuts[2]])]
    assert found == pytest.approx(sum(w * (ce(z, y) + 1e-3 * d) for w, z, d in zip(share, heads, D)).item(), rel=1e-4)


@pytest.mark.parametrize('n', [2, 4, 5])
def test_cheap_students_and_their_joint_teacher(n):
    "Any number of them; nothing is detached, and the divergence is averaged over the classes too."
    with seeded(0):
        scheme = Online([create_model('cheapnet8_dw', C) for _ in range(n)], T=3.0, size=32)
    nets, head, x, y = (
        copy.deepcopy(list(scheme.students)),
        copy.deepcopy(scheme.head),
        torch.randn(5, 3, 32, 32),
        torch.arange(5))
    found = sum(scheme.train()(x, y)[0].values())
    found.backward()
    maps = [net.train().stages(net.stem(x)) for net in nets]
    zs, f = [net.head.fc(f.mean((2, 3))) for net, f in zip(nets, maps)], torch.cat(maps, 1)
    zt = head.fc(F.relu(head.bn(f)).mean((2, 3)))
    want = ce(zt, y) + sum(
        ce(z, y) + 9 * F.kl_div(F.log_softmax(z / 3, 1), F.softmax(zt / 3, 1), reduction='none').mean() for z in zs)
    want.backward()
    assert found.item() == pytest.approx(want.item(), rel=1e-4)
    for mine, theirs in zip([scheme.head, *scheme.students], [head, *nets]):
        for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-2, atol=1e-4)


# --- parameters


@pytest.mark.parametrize(
    'name, classes, params',
    [
        ('reduce20', 10, 412_058),
        ('reduce56w4', 10, 21_017_162),
        ('reduce20e4', 10, 828_794),
        ('resnet20', 100, 278_324),
        ('resnet32', 100, 472_756),
        ('resnet44', 100, 667_188),
        ('resnet56', 100, 861_620),
        ('resnet110', 100, 1_736_564),
        ('wideresnet-16-4', 100, 2_772_916),
        ('wrn-28-4', 100, 5_872_180),
        ('shufflenetV2-1.5', 10, 2_492_466),
        ('resnet18', 100, 11_220_132),
        ('resnet34', 100, 21_328_292),
        ('resnet50', 100, 23_705_252),
        ('plainnet50', 100, 23_705_252 - 16_896),
        ('cheapnet56_shift', 10, 102_106)])
def test_a_name_is_their_network(name, classes, params):
    with torch.device('meta'):
        assert num_params(create_model(name, classes)) == params


@pytest.mark.parametrize(
    'name, fan',
    [
        ('resnet20', 'out'),
        ('wideresnet_16_2', 'out'),
        ('wrn_16_2', 'out'),
        ('resnet18', 'out'),
        ('plainnet18', 'out'),
        ('cheapnet20_dw', 'in'),
        ('cheapnet20_shift', 'in')])
def test_how_their_convolutions_begin(name, fan):
    """N(0, 2/fan), by what comes out or goes in, of the large ones; the wide nets' classifier has a bias of 0."""
    with seeded(0):
        net = create_model(name)
    large = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.weight.numel() > 2000]
    assert len({m.in_channels == m.out_channels for m in large}) == 2  # else the two are one
    for m in large:
        assert m.weight.std().item() == pytest.approx(
            (2 / (m.kernel_size[0] ** 2 * (m.out_channels if fan == 'out' else m.in_channels))) ** 0.5, rel=0.08)
    if name == 'wrn_16_2':
        assert net.head.fc.bias.abs().max() == 0


def test_the_five_places_of_their_shufflenet():
    "The stem keeps 32 pixels, each stage halves them, and the last convolution sees 4x4."
    places = ['stem.bn', 'stages.0.3.shuffle', 'stages.1.7.shuffle', 'stages.2.3.shuffle', 'head.bn']
    with torch.no_grad():
        _, read = Tapped(create_model('shufflenetV2-1.0').eval(), places)(torch.zeros(1, 3, 32, 32))
    assert [tuple(read[p].shape[1:]) for p in places] == [
        (24, 32, 32),
        (116, 16, 16),
        (232, 8, 8),
        (464, 4, 4),
        (1024, 4, 4)]


def test_what_is_trained_beside_the_students():
    with torch.device('meta'):
        assert num_params(Online([create_model('cheapnet20_shift') for _ in range(4)], size=32).head) == 3_082
    with torch.no_grad():
        assert num_params(JointRD(plainnet(18, 100), resnet(18, 100), size=32).connectors) == 1_052_672


def test_a_teacher_has_nothing_that_could_be_trained():
    teacher = resnet(8)
    assert not any(p.requires_grad for p in Frozen(teacher).model.parameters()) and not any(
        p.requires_grad for p in teacher.parameters())
