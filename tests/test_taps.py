"""Taps: every model family, every way of copying, moving and compiling; what is read agrees with hooks, and the model
is never changed."""

import copy
import io
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
import torchvision.models as tvm
from torch import nn

from kdnb.models import mobilenetv2, plainnet, resnet, shufflenetv1, shufflenetv2, vgg, wrn
from kdnb.schemes import Distill
from kdnb.taps import Tapped, bn_before, find_taps, tap_name

pytestmark = pytest.mark.slow

MODELS = dict(
    resnet20=lambda: resnet(20),
    wrn_16_2=lambda: wrn(16, 2),
    wrn_10_1=lambda: wrn(10, 1),
    wrn_16_2_post=lambda: wrn(16, 2, preact=False),
    plainnet18=lambda: plainnet(18),
    resnet18=tvm.resnet18,
    mobilenet_v2=tvm.mobilenet_v2,
    shufflenet_v2=tvm.shufflenet_v2_x1_0,
    densenet121=tvm.densenet121,
    vgg11=lambda: tvm.vgg11(init_weights=False, num_classes=10),
    vgg11_bn=lambda: tvm.vgg11_bn(init_weights=False, num_classes=10),
    squeezenet=tvm.squeezenet1_1,
    efficientnet=tvm.efficientnet_b0,
    our_shufflenetv1=shufflenetv1,
    our_shufflenetv2=lambda: shufflenetv2(0.5),
    our_shufflenetv2_post=lambda: shufflenetv2(0.5, preact=False),
    our_mobilenetv2=lambda: mobilenetv2(0.5),
    our_vgg8=lambda: vgg(8))
TIMM = ['resnet18', 'regnety_002', 'mobilenetv3_small_050', 'convnext_atto', 'vit_tiny_patch16_224']


def make(build):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return build()


def images(size=64): return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def by_hooks(model, xb):
    "Logits, and a copy of what each module returned, for modules that ran once and returned a tensor."
    seen, runs = {}, {}

    def hook(name):
        def note(module, args, out):
            runs[name] = runs.get(name, 0) + 1
            seen[name] = out.clone() if isinstance(out, torch.Tensor) else None

        return note

    handles = [m.register_forward_hook(hook(n)) for n, m in model.named_modules() if n]
    logits = model(xb)
    for h in handles:
        h.remove()
    return logits, {n: f for n, f in seen.items() if runs[n] == 1 and f is not None}


def agrees(model, size=64):
    "In both modes, with the same dropout: logits and every tap, bit for bit; parameters, statistics and gradients too."
    for mode in (False, True):
        plain, xb = copy.deepcopy(model.train(mode)), images(size)
        torch.manual_seed(2)
        want, features = by_hooks(plain, xb)
        tapped = Tapped(model, list(features))
        torch.manual_seed(2)
        logits, got = tapped(xb)
        assert torch.equal(logits, want)
        for name in features:
            assert torch.equal(got[name], features[name]), name
        for a, b in zip(plain.state_dict().values(), model.state_dict().values()):
            assert torch.equal(a, b)
        torch.manual_seed(3)
        r = torch.randn_like(want)
        (want * r).sum().backward()
        (logits * r).sum().backward()
        for a, b in zip(plain.parameters(), model.parameters()):
            assert (a.grad is None) == (b.grad is None) and (a.grad is None or torch.equal(a.grad, b.grad))
        model.zero_grad()


@pytest.mark.parametrize('name', MODELS)
def test_agrees_with_hooks(name):
    agrees(make(MODELS[name]))


@pytest.mark.parametrize('name', TIMM)
def test_agrees_with_hooks_on_timm(name):
    timm = pytest.importorskip('timm')
    agrees(make(lambda: timm.create_model(name)), 224 if 'vit' in name else 64)


@pytest.mark.parametrize('name', ['resnet18', 'regnety_002', 'efficientnet_b0'])
def test_find_taps_on_timm(name):
    timm = pytest.importorskip('timm')
    taps = find_taps(make(lambda: timm.create_model(name)))
    assert taps.size == 224 and taps[-1].size == (7, 7) and all(r.bn and r.sum for r in taps if r.stage)


SIZES = dict(
    resnet20=[1, 2, 3],
    wrn_16_2=[1, 2, 3],
    wrn_10_1=[1, 2, 3],
    wrn_16_2_post=[1, 2, 3],
    plainnet18=[1, 2, 3, 4],
    resnet18=[0, 1, 2, 3, 4],
    mobilenet_v2=[1, 2, 3, 4, 5],
    shufflenet_v2=[0, 1, 2, 3],
    densenet121=[0, 1, 2, 3, 4],
    vgg11=[1, 2, 3, 4, 5],
    vgg11_bn=[1, 2, 3, 4, 5],
    our_shufflenetv1=[0, 1, 2, 3],
    our_shufflenetv2=[0, 1, 2, 3],
    our_shufflenetv2_post=[0, 1, 2, 3],
    our_mobilenetv2=[1, 2, 3, 4],
    our_vgg8=[1, 2, 3, 4])


@pytest.mark.parametrize('name', SIZES)
def test_stages(name):
    model = make(MODELS[name])
    taps = find_taps(model, 64 if name != 'resnet20' else 32)
    assert (
        taps.stages == SIZES[name]
        and [r for r in taps] == [taps[i] for i in taps.stages]
        and taps[-1] is taps[taps.stages[-1]])
    xb = images(taps.size)
    for r in taps:
        readings = [n for n in (r.sum, r.pre, r.post) if n]
        _, fs = Tapped(model.eval(), readings)(xb)
        assert fs[r.post].shape == (2, r.channels, *r.size)
        if r.pre and r.pre != r.sum:
            assert fs[r.pre].min() < 0 <= fs[r.post].min()
        if r.bn:
            assert isinstance(model.get_submodule(r.bn), nn.BatchNorm2d)


def test_the_published_readings():
    mobile, dense = find_taps(make(tvm.mobilenet_v2), 64), find_taps(make(tvm.densenet121), 64)
    assert [r.sum for r in mobile] == [
        'features.1.conv.2',
        'features.3.add',
        'features.6.add',
        'features.13.add',
        'features.17.conv.3']
    assert dense[2].sum == 'features.denseblock2.cat' and dense[2].bn == dense[2].pre == 'features.transition2.norm'
    r8 = find_taps(resnet(8))
    assert [r.bn for r in r8] == [
        'stages.0.0.bn2',
        'stages.1.0.bn2',
        'stages.2.0.bn2',
    ]  # the residual branch, not the shortcut


def test_the_published_readings_of_wide_nets():
    taps = find_taps(wrn(16, 2))
    assert [r.sum for r in taps] == [
        'stages.0.1.add',
        'stages.1.1.add',
        'stages.2.1.add',
    ]  # AT, RepDistiller: what the groups put out
    assert (
        [r.pre for r in taps] == [r.bn for r in taps] == ['stages.1.0.bn1', 'stages.2.0.bn1', 'head.bn']
    )  # OFD: through the next BatchNorm
    assert [r.post for r in taps] == ['stages.1.0.act1', 'stages.2.0.act1', 'head.act'] and taps[0].sum == 'stem.conv'
    for model in wrn(16, 2), wrn(16, 1):
        assert (
            find_taps(model)[0].pre == find_taps(model)[0].bn == 'stages.0.0.bn1'
        )  # width 1: not a cut, the shortcut goes around it
    assert [bn_before(wrn(16, 2), r.pre) for r in taps] == [r.bn for r in taps]


def test_a_plain_net_has_no_sums():
    for taps, last in (find_taps(plainnet(18)), 'bn2'), (find_taps(plainnet(50)), 'bn3'):
        assert [r.sum for r in taps] == [None] * 4  # those where stages begin are not where they end
        assert all(r.pre == r.bn and r.pre.endswith(last) for r in taps)
        assert [r.post[:8] for r in taps] == [f'stages.{i}' for i in range(4)]


READ = {
    ('od', None): 'bn1 bn1 bn',
    ('at', 'paper'): 'add add add',
    ('od', 'paper'): 'bn1 bn1 bn',
    ('kd', 'distillation'): '',
    ('at', 'distillation'): 'conv add add add',
    ('sp', 'distillation'): 'conv add add add',
    ('od', 'distillation'): 'bn1 bn1 bn1 bn',
}  # places, by the ends of their names


@pytest.mark.parametrize('method, weights', READ)
@pytest.mark.parametrize('pair', [((10, 2), (16, 4)), ((10, 1), (10, 2))], ids=['10-2 from 16-4', '10-1 from 10-2'])
def test_wide_pairs_are_taught(method, weights, pair):
    scheme = make(lambda: Distill(wrn(*pair[0], 100), wrn(*pair[1], 100), method, weights=weights, size=32))
    for i in 0, 1:
        assert ' '.join(p[i].rpartition('.')[2] for p in scheme.pairs[-1]) == READ[method, weights]
    losses, _ = scheme(images(32), torch.tensor([3, 4]))
    sum(losses.values()).backward()
    assert all(v.isfinite() and v > 0 for v in losses.values()) and all(
        p.grad is not None for p in scheme.parameters() if p.requires_grad)


def reading(model, taps, which):
    return list(Tapped(model.eval(), [getattr(r, which) for r in taps])(images(32))[1].values())


def outputs(model, *modules): return list(Tapped(model.eval(), modules)(images(32))[1].values())


def all_equal(a, b): return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b))


def shuffled(fs): return [nn.ChannelShuffle(2)(f) for f in fs]


@pytest.mark.parametrize('build', [shufflenetv1, lambda: shufflenetv2(1.0, preact=False)], ids=['v1', 'v2'])
def test_shufflenets_are_read_after_the_activation(build):  # RepDistiller's taps: the outputs of the stages
    taps = find_taps(model := make(build))
    ends = outputs(model, 'stem', 'stages.0', 'stages.1')
    assert all_equal(reading(model, list(taps)[:3], 'post'), ends) and all(f.min() == 0 for f in ends)
    assert [r.sum for r in taps] == (
        ['stem.bn', 'stages.0.3.join', 'stages.1.7.join', 'stages.2.3.join']
        if build is shufflenetv1
        else ['stem.bn', 'stages.0.3.cat', 'stages.1.7.cat', 'stages.2.3.cat'])
    assert taps[3].post == ('stages.2.3.act' if build is shufflenetv1 else 'head.act')


# PkuDavidGuan's taps: the raw outputs of the stages, and the last batch norm
def test_shufflenetv2_is_read_before_the_activation():
    taps = find_taps(model := make(shufflenetv2))
    ends = outputs(model, 'stem', 'stages.0', 'stages.1', 'stages.2')
    pre, post = reading(model, taps, 'pre'), reading(model, taps, 'post')
    assert all_equal(pre[:3], ends[:3]) and all(f.min() < 0 for f in ends) and all_equal([f.relu() for f in pre], post)
    assert all_equal(shuffled(reading(model, list(taps)[1:], 'sum')), ends[1:])
    assert [r.pre for r in taps] == ['stem.bn', 'stages.0.3.shuffle', 'stages.1.7.shuffle', 'head.bn'] and [
        r.bn for r in taps
    ] == ['stem.bn', None, None, 'head.bn']


def test_mobilenetv2_is_read_where_it_is_narrow():  # RepDistiller's taps
    taps = find_taps(model := make(lambda: mobilenetv2(0.5)))
    ends = outputs(model, 'stages.1', 'stages.2', 'stages.4', 'stages.6')
    assert (
        all_equal(reading(model, taps, 'sum'), ends)
        and [f.shape[1:] for f in ends] == [(12, 16, 16), (16, 8, 8), (48, 4, 4), (160, 2, 2)]
        and all(f.min() < 0 for f in ends))
    assert taps[0].post == 'stem.act'


@pytest.mark.parametrize('depth', [8, 13])
def test_vgg_is_read_before_it_is_pooled(depth):
    taps = find_taps(model := make(lambda: vgg(depth)))
    assert all_equal(reading(model, taps, 'post'), outputs(model, 'stages.0', 'stages.1', 'stages.2', 'stages.4')) and [
        r.size[0] for r in taps
    ] == [32, 16, 8, 4]
    assert find_taps(model, 64).stages == [1, 2, 3, 4]


class PreAct(nn.Module):
    "The shortcut carries the rectified x only because the ReLU writes in place."

    def __init__(self):
        super().__init__()
        self.bn, self.act, self.conv, self.fc = (
            nn.BatchNorm2d(3),
            nn.ReLU(inplace=True),
            nn.Conv2d(3, 3, 3, padding=1),
            nn.Linear(3, 5))

    def forward(self, x):
        y = self.bn(x)
        out = self.conv(self.act(y))
        out += y
        return self.fc(out.mean((2, 3)))


class Alias(nn.Module):
    "`+=` is seen through every name of the tensor."

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 5)

    def forward(self, x):
        y = self.conv(x)
        z = y
        z += 1
        z *= 2
        z.sub_(0.5)
        torch.neg_(z)
        F.relu(z, inplace=True)
        return self.fc((y + z).mean((2, 3)))


class Standardised(nn.Module):
    "The weight is computed from a parameter in forward."

    def __init__(self):
        super().__init__()
        self.weight, self.scale, self.fc = nn.Parameter(torch.randn(3, 3, 3, 3)), torch.tensor(2.0), nn.Linear(3, 5)

    def forward(self, x):
        self.last = y = F.conv2d(x, self.weight / self.weight.std()) * self.scale
        return self.fc(F.dropout(y.relu(), 0.5, self.training).mean((2, 3)))


@pytest.mark.parametrize('build', [PreAct, Alias, Standardised])
def test_writes_in_place(build):
    model = make(build)
    agrees(model, 8)
    names = [n for n in Tapped(model, []).model.state_dict()]  # nothing was added to the model
    assert names == list(make(build).state_dict()) and not hasattr(model, 'last')


@pytest.mark.parametrize('name', ['conv', 'add', 'mul', 'sub_', 'neg_', 'relu'])
def test_each_place_before_it_is_written_over(name):
    model, xb = make(Alias), images(8)
    y = model.conv(xb)
    want = dict(
        conv=y,
        add=y + 1,
        mul=(y + 1) * 2,
        sub_=(y + 1) * 2 - 0.5,
        neg_=0.5 - (y + 1) * 2,
        relu=(0.5 - (y + 1) * 2).relu())
    logits, got = Tapped(model, [name])(xb)
    assert torch.equal(got[name], want[name]) and torch.equal(logits, model(xb))


def test_a_write_through_a_view_is_refused():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            y = self.conv(x)
            y.view(2, -1).relu_()
            return y.mean((2, 3))

    with pytest.raises(ValueError, match='through a view of it'):
        Tapped(Net(), ['conv'])


class Block(nn.Module):
    "Writes as a statement, and returns what it wrote over."

    def __init__(self, write, c, d):
        super().__init__()
        self.conv, self.act, self.write = nn.Conv2d(c, d, 3, 2, 1), nn.ReLU(inplace=True), write

    def forward(self, x):
        x = self.conv(x)
        self.write(self.act, x)
        return x


class Statements(nn.Module):
    "One in a block, one beside it."

    def __init__(self, write):
        super().__init__()
        self.block, self.conv, self.fc = Block(write, 3, 4), Block(write, 4, 4).conv, nn.Linear(4, 5)
        self.write, self.act = write, nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.conv(self.block(x))
        self.write(self.act, x)
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize(
    'write',
    [
        lambda act, x: F.relu(x, inplace=True),
        lambda act, x: x.relu_(),
        lambda act, x: torch.relu_(x),
        lambda act, x: act(x)],
    ids=['inplace', 'relu_', 'torch.relu_', 'module'])
def test_a_write_whose_result_nobody_takes(write):
    model = make(lambda: Statements(write))
    agrees(model, 16)
    taps, xb = find_taps(model, 16), images(16)
    assert [r.pre for r in taps] == ['block.conv', 'conv'] and all('relu' in r.post or 'act' in r.post for r in taps)
    logits, features = Tapped(model, [1, 2, 'block', 'block.conv'], size=16)(xb)
    assert (
        torch.equal(logits, model(xb))
        and all(features[i].min() == 0 for i in (1, 2))
        and features['block.conv'].min() < 0)
    assert torch.equal(features[1], features['block']) and torch.equal(features[1], features['block.conv'].relu())
    assert torch.equal(model.fc(features[2].mean((2, 3))), logits)


@pytest.fixture
def tapped(): return Tapped(make(lambda: resnet(8)), [1, 'stages.1', 'embedding']).eval()


def same(a, b, xb):
    (la, fa), (lb, fb) = a(xb), b(xb)
    return torch.equal(la, lb) and list(fa) == list(fb) and all(torch.equal(fa[n], fb[n]) for n in fa)


def test_owns_the_very_model(tapped):
    model = tapped.model
    assert list(tapped.state_dict()) == ['model.' + n for n in model.state_dict()] and len(
        list(tapped.parameters())
    ) == len(list(model.parameters()))
    with torch.no_grad():
        model.head.fc.bias += 1
    assert torch.equal(tapped(images(32))[0], model(images(32)))
    model.load_state_dict(make(lambda: resnet(8)).state_dict())
    assert torch.equal(tapped(images(32))[0], model(images(32)))


def test_modes(tapped):
    assert not tapped.training and not tapped.model.training
    for mode in (True, False):
        tapped.train(mode)
        assert tapped.model.stem.bn.training is mode
        assert torch.equal(tapped(images(32))[0], copy.deepcopy(tapped.model)(images(32)))
    tapped.model.train()  # even behind its back
    assert torch.equal(tapped(images(32))[0], copy.deepcopy(tapped.model)(images(32)))


@pytest.mark.parametrize('how', ['deepcopy', 'pickle', 'torch.save'])
@pytest.mark.parametrize('mode', [False, True])
def test_copies(tapped, how, mode):
    tapped.train(mode)
    if how == 'deepcopy':
        other = copy.deepcopy(tapped)
    if how == 'pickle':
        other = pickle.loads(pickle.dumps(tapped))
    if how == 'torch.save':
        f = io.BytesIO()
        torch.save(tapped, f)
        f.seek(0)
        other = torch.load(f, weights_only=False)
    assert (
        other.training is mode and all(m.training is mode for m in other.modules()) and other.model is not tapped.model)
    assert same(tapped, other, images(32))
    with torch.no_grad():
        other.model.head.fc.weight.zero_()
    assert tapped.model.head.fc.weight.abs().sum() > 0


def test_to_and_double(tapped):
    logits, features = tapped.double()(images(32).double())
    assert {f.dtype for f in features.values()} | {logits.dtype} == {torch.float64}
    assert tapped.to(torch.float32)(images(32))[0].dtype == torch.float32
    assert tapped.to(memory_format=torch.channels_last)(images(32))[1][1].shape == (2, 16, 32, 32)


@pytest.mark.parametrize('mode', [False, True])
def test_compile(tapped, mode):
    fast = torch.compile(
        copy.deepcopy(tapped).train(mode), backend='aot_eager'
    )  # a fresh copy: its reader is made while compiling
    (want, fw), (got, fg) = tapped.train(mode)(images(32)), fast(images(32))
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(fg, fw)


def test_compile_whole(tapped):
    want = tapped(images(32))
    torch.testing.assert_close(torch.compile(tapped, fullgraph=True, backend='aot_eager')(images(32)), want)


def test_compile_whole_after_a_change_of_mode(tapped):
    fast = torch.compile(copy.deepcopy(tapped).train().eval(), fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(fast(images(32)), tapped(images(32)))


@pytest.mark.gpu
def test_cuda(tapped):
    want, got = tapped(images(32)), tapped.cuda()(images(32).cuda())
    torch.testing.assert_close(got[0].cpu(), want[0], rtol=1e-2, atol=1e-2)
    assert {f.device.type for f in got[1].values()} == {'cuda'} and len(find_taps(tapped.model)) == 3


def test_gradient_reaches_the_student_through_its_taps():
    student, teacher = (
        Tapped(make(lambda: resnet(8)), [2]),
        Tapped(make(lambda: resnet(14)), [2]).eval().requires_grad_(False))
    (student(images(32))[1][2] - teacher(images(32))[1][2]).pow(2).mean().backward()
    reached = {
        n.split('.')[0] if 'stages' not in n else n[:8]
        for n, p in student.model.named_parameters()
        if p.grad is not None and p.grad.abs().sum() > 0}
    assert reached == {'stem', 'stages.0', 'stages.1'} and all(p.grad is None for p in teacher.parameters())


def test_a_tap_is_on_the_way_to_the_logits():
    logits, features = Tapped(make(tvm.resnet18), ['bn1', 'relu'])(images())
    for f in features.values():
        assert torch.autograd.grad(logits.sum(), f, retain_graph=True)[0].abs().sum() > 0


def test_find_taps_leaves_no_trace():
    model = make(tvm.densenet121)
    model.features.denseblock1.eval()
    before, modes, rng = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()], torch.get_rng_state()
    find_taps(model, 64)
    Tapped(model, [1, -1], size=64)
    assert torch.equal(rng, torch.get_rng_state()) and modes == [m.training for m in model.modules()]
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values()))


def test_channels_device_and_dtype_are_the_models_own():
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)
    ).double()
    net(torch.zeros(1, 1, 8, 8).double())
    assert find_taps(net, 8)[-1].post == '3'


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.act, self.fc = (
            nn.Conv2d(3, 4, 3),
            nn.Conv2d(3, 4, 3),
            nn.ReLU(inplace=True),
            nn.Linear(4, 5))

    def forward(self, x): return self.fc(self.act((self.a if x.mean() > 0 else self.b)(x)).mean((2, 3)))


def test_hooks_where_there_is_no_graph():
    model, xb = make(Untraceable), images(8).abs()
    with pytest.warns(UserWarning, match='hooks') as warned:
        tapped = Tapped(model, ['act'])
    assert len(warned) == 1
    logits, features = tapped(xb)
    assert (
        torch.equal(logits, model(xb))
        and torch.equal(features['act'], model.a(xb).relu())
        and not model.act._forward_hooks)
    with torch.inference_mode():
        assert torch.equal(tapped(xb)[1]['act'], features['act'])


class Ends(nn.Module):
    "Untraceable, and ends as told."

    def __init__(self, *ends):
        super().__init__()
        self.body, self.ends = Untraceable(), nn.Sequential(*ends)

    def forward(self, x): return self.ends(self.body(x))


@pytest.mark.filterwarnings('ignore')
def test_what_the_classifier_reads_where_there_is_no_graph():
    model, xb = make(Untraceable), images(8).abs()
    for tapped in Tapped(model, ['embedding', 'act']), Tapped(Ends().eval(), ['embedding']):
        logits, features = tapped(xb)
        net = getattr(tapped.model, 'body', tapped.model)
        assert torch.equal(logits, tapped.model(xb)) and torch.equal(net.fc(features['embedding']), logits)
    with pytest.raises(RuntimeError, match='ran twice'):
        Tapped(Ends(Twice()), ['embedding'])(xb)
    with pytest.raises(RuntimeError, match='does not make the logits'):
        Tapped(Ends(nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 4, 5), nn.Flatten()), ['embedding'])(xb)
    with pytest.raises(RuntimeError, match="'embedding' was written over"):
        Tapped(WritesAfter(), ['embedding'])(xb)
    model.fc = nn.Identity()
    with pytest.raises(ValueError, match='no linear classifier'):
        Tapped(model, ['embedding'])


class WritesAfter(Untraceable):
    def forward(self, x):
        e = self.act((self.a if x.mean() > 0 else self.b)(x)).mean((2, 3))
        z = self.fc(e)
        with torch.no_grad():
            e += 1
        return z


@pytest.mark.filterwarnings('ignore')
def test_what_the_classifier_of_timms_transformer_reads():
    timm = pytest.importorskip('timm')
    model, xb = make(lambda: timm.create_model('test_vit', num_classes=10)).eval(), images(160)
    logits, features = Tapped(model, ['embedding'])(xb)
    assert torch.equal(model.head(features['embedding']), logits) and torch.equal(logits, model(xb))


class HalfFrozen(nn.Module):
    "A graph does not hold `with torch.no_grad()`: the gradient would flow where the model stops it."

    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 5)

    def forward(self, x):
        with torch.no_grad():
            x = self.a(x)
        return self.fc(self.b(x).mean((2, 3)))


def test_gradients_that_forward_switches_off():
    with pytest.warns(UserWarning, match='gradients off'), torch.no_grad():
        tapped = Tapped(make(HalfFrozen), ['b'])
    logits, features = tapped(images(8))
    logits.sum().backward()
    assert tapped.model.a.weight.grad is None and features['b'].requires_grad


@pytest.mark.filterwarnings('ignore')
def test_hooks_fail_aloud():
    model, xb = make(Untraceable), images(8).abs()
    with pytest.raises(RuntimeError, match="'b' did not run"):
        Tapped(model, ['b'])(xb)
    with pytest.raises(RuntimeError, match="'a' was written over in place"):
        Tapped(model, ['a'])(xb)
    with pytest.raises(RuntimeError, match='ran twice'):
        Tapped(nn.Sequential(model, Twice()), ['1.fc'])(xb)
    assert all(not m._forward_hooks for m in model.modules())
    with pytest.raises(ValueError, match='did you mean'):
        Tapped(model, ['acts'])
    with pytest.raises(ValueError, match='cannot be traced'):
        find_taps(model)
    with pytest.raises(ValueError, match='cannot be traced'):
        Tapped(model, [1])


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 5)

    def forward(self, x): return self.fc(self.fc(x)) if x.sum() == x.sum() else x


def test_errors():
    model = make(lambda: resnet(8))
    with pytest.raises(ValueError, match='tap first, compile after'):
        Tapped(torch.compile(model), ['stem'])
    with pytest.raises(ValueError, match='tap first, compile after'):
        find_taps(torch.compile(model))
    with pytest.raises(TypeError, match='nn.Module'):
        Tapped(lambda x: x, [1])
    with pytest.raises(TypeError, match="not a str: a name is made into one by create_model"):
        find_taps('resnet18')
    for size in 0, -1, 32.0, '32', True:
        with pytest.raises(ValueError, match='size must be a whole number from 1 up'):
            find_taps(model, size)
    with pytest.raises(ValueError, match='unknown reading'):
        tap_name(model, 1, 'raw')
    with pytest.raises(ValueError, match='did you mean stages.2'):
        Tapped(model, ['stages.3'])
    with pytest.raises(ValueError, match='there is no stage 4'):
        Tapped(model, [4])
    with pytest.raises(ValueError, match='give a larger size'):
        find_taps(model, 1)
    assert (
        tap_name(make(tvm.shufflenet_v2_x1_0), 1, 'pre', size=64) == 'stage2.3.branch2.6'
    )  # of the last branch: all activations lie in branches


def test_a_transformer_of_another_size():
    vit = make(lambda: tvm.VisionTransformer(16, 4, 1, 2, 16, 16, num_classes=10))
    with pytest.raises(
        ValueError,
        match=r'does not run on 32x32 pixels \(Wrong image height! Expected 16 but got another!\): give its size='):
        find_taps(vit, 32)
    assert find_taps(vit)[1].sum == 'encoder.layers.encoder_layer_0.add_1:4x4'      # at its own size


def test_auxiliary_heads_are_left_aside_in_train_mode():
    model = make(lambda: tvm.googlenet(init_weights=False, dropout=0, dropout_aux=0))
    tapped = Tapped(model, ['inception3b', 'embedding']).eval()
    assert torch.equal(tapped(images())[0], model(images()))
    for names in (['inception3b', 'embedding'], []):
        z, features = Tapped(model, names).train()(x := images(224))
        assert torch.allclose(z, model(x).logits, atol=1e-5) and all(f.requires_grad for f in features.values())
    assert torch.allclose(model.fc(Tapped(model, ['embedding'])(x)[1]['embedding']), model(x).logits, atol=1e-5)
    assert Tapped(make(lambda: tvm.googlenet(aux_logits=False, init_weights=False)), ['inception3b']).train()(images())[
        0
    ].shape == (2, 1000)


def test_no_names_is_the_model():
    model, xb = make(Untraceable), images(8)
    logits, features = Tapped(model)(xb)
    assert torch.equal(logits, model(xb)) and features == {}


# --- older torches


class Older:
    "The nodes of a graph as torch up to 2.11 gives them: turned round they are iterable, and not an iterator."

    def __init__(self, nodes, back=False):
        self.nodes, self.back = nodes, back

    def __len__(self): return len(self.nodes)

    def __iter__(self): return iter([*self.nodes][::-1] if self.back else [*self.nodes])

    def __reversed__(self): return Older(self.nodes, not self.back)


def test_nodes_that_are_no_iterator_when_turned_round(monkeypatch):
    nodes = torch.fx.Graph.nodes.fget
    monkeypatch.setattr(torch.fx.Graph, 'nodes', property(lambda graph: Older(nodes(graph))))
    assert [r.stage for r in find_taps(make(lambda: resnet(8)))] == [1, 2, 3]
