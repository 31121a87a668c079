"""What a model costs: torchvision's counts, a profiler's memory, models without a graph; the model is left alone."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
import torchvision.models as tvm
from torch import nn

from bench.timing import peak_memory
from kdnb.measure import Latency, cost, measure_latency, profile
from kdnb.models import create_model, list_models, num_params

pytestmark = pytest.mark.slow

@pytest.fixture(autouse=True)
def in_no_time(monkeypatch):
    monkeypatch.setattr(cost, 'measure_latency', lambda model, x: measure_latency(model, x, warm=0, least=2, seconds=0))


def make(name, num_classes=1000):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return create_model(name, num_classes)


def adds_up(p):  # the rows are the whole
    assert (sum(r.params for r in p.layers), sum(r.macs for r in p.layers), p.note) == (p.params, p.macs, '')
    assert all(r.live >= 0 for r in p.layers)       # a view of the image needs nothing beside it
    assert 0 < p.live_bytes <= p.peak_bytes
    assert str(p.layers[-1].shape[-1]) in repr(p) and '<table' in p._repr_html_()
    assert p.latency.lowest <= p.latency.median <= p.latency.highest
    return p


@pytest.mark.parametrize('name', list_models())
def test_every_listed_model(name):
    model = make(name, 100)
    p = adds_up(profile(model))
    assert p.params == num_params(model) and p.layers[-1].shape == (1, 100) and len(p.layers.by_block()) <= 24


@pytest.mark.parametrize(
    'name',
    [
        'resnet18',
        'resnet50',
        'mobilenet_v2',
        'densenet121',
        'squeezenet1_1',
        'shufflenet_v2_x1_0',
        'efficientnet_b0',
        'googlenet',
        'regnet_y_400mf',
        'vit_b_16'])
def test_torchvision_counts_the_same(name):
    told = tvm.get_model_weights(name)['IMAGENET1K_V1'].meta  # billions of multiply-accumulates, three decimals
    p = adds_up(profile(make(f'torchvision/{name}'), size=224))
    assert (p.params, round(p.macs / 1e9, 3)) == (told['num_params'], told['_ops'])


def test_resnet18_to_the_unit():
    p = profile(tvm.resnet18(), size=224)
    assert (p.params, p.macs) == (11_689_512, 1_814_073_344)


@pytest.mark.parametrize('name', ['vit_tiny_patch16_224', 'convnext_atto', 'mobilenetv3_small_050'])
def test_timm(name):
    pytest.importorskip('timm')
    assert '3x224x224' in adds_up(profile(make(f'timm/{name}'))).about


def test_by_hand():
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, groups=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 8, 3, groups=4),
        nn.Flatten(),
        nn.Linear(8 * 4 * 4, 10))
    p = adds_up(profile(net, size=8, bs=3))
    assert [r.macs for r in p.layers] == [4 * 36 * 9, 0, 8 * 16 * 9, 0, 8 * 16 * 10]
    assert [r.params for r in p.layers] == [4 * 9 + 4, 0, 8 * 9 + 8, 0, 8 * 16 * 10 + 10]
    a, b, c = 3 * 4 * 36 * 4, 3 * 8 * 16 * 4, 3 * 10 * 4
    assert [r.bytes for r in p.layers] == [a, a, b, b, c] and [r.live for r in p.layers] == [a, a, a + b, b, b + c]
    assert p.peak_bytes == a + b and p.layers[0].shape == (3, 4, 6, 6)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.unused = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.Linear(2, 2)

    def forward(self, x):
        y = self.a(x)
        y += self.a(y[:, :, :4])[:, :, :1]  # a view, then in place
        return F.linear(y.mean((2, 3)), self.a.weight[0, :, :, 0])


def test_shared_views_and_in_place():
    p = profile(Tied(), size=8)
    conv = 3 * 64 * 27
    assert [r.macs for r in p.layers if r.kind == 'conv2d'] == [conv, conv // 2] and p.macs == conv + conv // 2 + 9
    assert p.params == 81 + 6 and sum(r.params for r in p.layers) == 81  # once; and what never runs has no row
    assert p.live_bytes == p.peak_bytes == 3 * 64 * 4 + 3 * 32 * 4


def test_attention_is_counted_though_it_is_fused():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.head = (
                nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2),
                nn.Linear(32, 10))

        def forward(self, x): return self.head(self.encoder(x.mean(1)).mean(1))

    p = adds_up(profile(Tokens()))  # 32 tokens of 32 numbers
    assert p.macs == 2 * (4 * 32 * 32 * 32 + 2 * 32 * 32 * 32 + 2 * 32 * 32 * 64) + 32 * 10


def test_half_the_numbers_half_the_bytes():
    a, b = (profile(make('resnet8').to(dtype)) for dtype in (torch.float32, torch.float64))
    assert (b.macs, b.live_bytes) == (a.macs, 2 * a.live_bytes) and 'float64' in b.about


@pytest.mark.parametrize('name, more', [('resnet8', 1.02), ('resnet20', 1.02), ('torchvision/mobilenet_v2', 1.2)])
def test_a_profiler_sees_the_same_memory(name, more):
    model = make(name).eval()
    x = torch.randn(32, 3, 32, 32)
    with torch.no_grad():
        model(x)
        seen = peak_memory(lambda: model(x))  # with what the kernels take for themselves
    p = profile(model, size=32, bs=32)
    assert p.peak_bytes <= seen <= more * p.peak_bytes


def test_the_profiler_agrees_to_the_byte_where_no_kernel_needs_more():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn, self.act, self.pool, self.head = (
                nn.BatchNorm2d(3),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Linear(6 * 16, 10))

        def forward(self, x):
            y = self.act(self.bn(x)) + x
            z = torch.cat([y, x.exp()], 1)
            return self.head(self.pool(z).flatten(1))

    model, x = Net().eval(), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert peak_memory(lambda: model(x)) == profile(model, size=8, bs=2).peak_bytes


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.Dropout(0.5),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(4 * 36, 10))
    model[1].eval()
    model[0].weight.requires_grad_(False)
    state, modes, grads = (
        copy.deepcopy(model.state_dict()),
        [m.training for m in model.modules()],
        [q.requires_grad for q in model.parameters()])
    before, fast = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()
    profile(model, size=8, bs=2)
    assert torch.equal(torch.get_rng_state(), before) and torch.backends.mha.get_fastpath_enabled() == fast
    assert all(torch.equal(a, b) for a, b in zip(state.values(), model.state_dict().values()))
    assert [m.training for m in model.modules()] == modes and [q.requires_grad for q in model.parameters()] == grads
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules()) and all(
        q.grad is None for q in model.parameters())


class Moody(nn.Module):
    def __init__(self):
        super().__init__()
        self.sunny, self.rainy, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x): return self.head((self.sunny if x.mean() > 9 else self.rainy)(x).mean((2, 3)))


def test_a_model_that_cannot_be_traced():
    model = Moody()
    p = profile(model, size=8, bs=2)
    assert (
        p.live_bytes is None
        and all(r.live is None for r in p.layers)
        and 'cannot be traced' in p.note
        and p.note in repr(p))
    assert (
        [r.name for r in p.layers] == ['rainy', 'head'] and p.macs == 4 * 36 * 27 + 8 and p.params == num_params(model))
    assert p.peak_bytes == 2 * 4 * 36 * 4 + 2 * 4 * 4 and not any(
        m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize(
    'call, error, words',
    [
        (lambda: profile('resnet20'), TypeError, 'create_model'),
        (lambda: profile(make('resnet8'), bs=0), ValueError, 'bs must be'),
        (lambda: profile(make('resnet8'), size=0), ValueError, 'size must be'),
        (lambda: profile(make('resnet8'), bs=True), ValueError, 'bs must be'),
        (lambda: profile(tvm.vit_b_32(), size=32), ValueError, 'give its size='),
        (lambda: profile(tvm.densenet121(), size=16), ValueError, 'give its size='),
        (lambda: profile(torch.compile(make('resnet8'))), ValueError, 'before torch.compile'),
        (lambda: profile(make('resnet8').to('meta')), ValueError, "model.to('cpu')")])
def test_wrong_input(call, error, words):
    with pytest.raises(error) as e:
        call()
    assert words in str(e.value) and '\n' not in str(e.value)


def test_latency_is_of_what_runs():
    took = measure_latency(lambda x: torch.randn(50, 50) @ torch.randn(50, 50), torch.zeros(1), seconds=0.05)
    assert isinstance(took, Latency) and took.repeats >= 10 and 0 < took.lowest <= took.median <= took.highest


@pytest.mark.gpu
def test_on_a_gpu():
    model = make('resnet20')
    here, there = profile(model, bs=64), adds_up(profile(model.cuda(), bs=64))
    assert (there.params, there.macs) == (here.params, here.macs) and torch.cuda.get_device_name() in there.about
    assert there.live_bytes == pytest.approx(here.live_bytes, rel=0.02)
    assert next(model.parameters()).is_cuda and model.training
