"""Cheap convolutions: the shift against its rule, what replaces a convolution against its shapes, the nets against
the release, their taps and their names."""

import copy
import itertools

import pytest
import torch
from torch import nn

from kdnb.models import (
    Shift,
    cheapen,
    cheapnet,
    create_model,
    describe_model,
    list_models,
    load_model,
    model_name,
    num_params,
    resnet,
    save_model,
    weights_hash,
)
from kdnb.schemes import Distill
from kdnb.taps import Tapped, find_taps

def rule(x):
    "seeds.md's rule, pixel by pixel."
    B, C, H, W = x.shape
    R, out = 9 * (C // 9), torch.zeros_like(x)
    for c, h, w in itertools.product(range(C), range(H), range(W)):
        dw, dh = ((c % 3) - 1, ((c // 3) % 3) - 1) if c < R else (0, 0)
        if 0 <= h + dh < H and 0 <= w + dw < W:
            out[:, c, h, w] = x[:, c, h + dh, w + dw]
    return out


@pytest.mark.parametrize('channels', [1, 8, 9, 10, 16, 18, 32])
@pytest.mark.parametrize('size', [(1, 1), (1, 3), (2, 2), (4, 5)])
def test_the_shift_is_its_rule_forward_and_backward(channels, size):
    torch.manual_seed(channels)
    shift = Shift(channels).double()
    x, g = torch.randn(2, 2, channels, *size, dtype=torch.float64).unbind()
    for fmt in (torch.contiguous_format, torch.channels_last):
        z, r = (x.to(memory_format=fmt).clone().requires_grad_() for _ in range(2))
        out = shift(z)
        assert torch.equal(out, rule(x)) and not list(shift.parameters()) and not shift.state_dict()
        (grad,) = torch.autograd.grad(out, z, g)
        assert torch.allclose((grad * x).sum(), (g * rule(x)).sum())  # the adjoint of a linear map
        assert torch.equal(grad, torch.autograd.functional.vjp(rule_out, x, g)[1])


def rule_out(x):  # the rule without writing in place
    B, C, H, W = x.shape
    R, p = 9 * (C // 9), nn.functional.pad(x, (1, 1, 1, 1))
    at = [((c % 3), (c // 3) % 3) if c < R else (1, 1) for c in range(C)]
    return torch.stack([p[:, c, dh : dh + H, dw : dw + W] for c, (dw, dh) in enumerate(at)], 1)


def test_a_shift_follows_its_model():
    net = copy.deepcopy(nn.Sequential(Shift(9))).to(torch.float64)
    x = torch.randn(1, 9, 3, 3, dtype=torch.float64)
    assert torch.equal(net(x), rule(x))
    with torch.device('meta'):
        assert Shift(9)(torch.empty(1, 9, 3, 3)).shape == (1, 9, 3, 3)


@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(stride=2),
        dict(padding=0),
        dict(padding=2, dilation=2),
        dict(padding='same'),
        dict(stride=(2, 1)),
        dict(bias=False),
        dict(padding=1, padding_mode='reflect')])
@pytest.mark.parametrize('kind', ['shift', 'dw', 'group'])
def test_what_stands_for_a_convolution_has_its_shapes(kind, options):
    conv = nn.Conv2d(16, 24, 3, **({'padding': 1} | options))
    net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), conv)
    if kind == 'shift' and (set(options) - {'stride', 'bias'} and options.get('padding') != 'same'):
        with pytest.raises(ValueError, match="take 'dw' or 'group'"):
            cheapen(net, kind)
        return
    made = cheapen(net.double().eval(), kind)
    for size in ((7, 8), (8, 8)):
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        assert made(x).shape == net(x).shape
    assert made[0].weight.equal(net[0].weight) and made[1].point.weight.dtype == torch.float64 and not made[1].training
    assert (made[1].point.bias is None) == (conv.bias is None) and net[1] is conv


def test_the_initial_weights_keep_the_size_of_what_goes_through():
    "A depthwise 3x3 drawn by what comes out would hardly let anything through."
    torch.manual_seed(0)
    for kind in ('shift', 'dw', 'group'):
        x = torch.randn(8, 64, 16, 16)
        made = cheapen(nn.Sequential(nn.Conv2d(3, 64, 1), nn.Conv2d(64, 64, 3, padding=1, bias=False)), kind)[1]
        assert 1 < made(x).std() < 3


@pytest.mark.parametrize('size', [16, 32])
@pytest.mark.parametrize('kind', ['shift', 'dw', 'group'])
def test_a_stage_ends_in_its_last_sum(kind, size):
    net = cheapnet(20, kind)
    taps = find_taps(net, size)
    assert [r.post for r in taps] == [r.sum for r in taps] == [f'stages.{i}.2.add' for i in range(3)] and taps[
        0
    ].post == 'stem.act'
    z, f = Tapped(net.eval(), [1, 2, 3], size)(x := torch.randn(2, 3, size, size))
    stem = net.stem(x)
    assert torch.equal(f[1], net.stages[0](stem)) and torch.equal(f[3], net.stages(stem)) and torch.equal(z, net(x))


def test_a_cheapened_net_has_the_taps_it_had():
    assert [r[:6] for r in find_taps(cheapen(resnet(20), 'dw'))] == [r[:6] for r in find_taps(resnet(20))]


def test_a_cheap_student_learns_from_features():
    x, y = torch.randn(4, 3, 32, 32), torch.arange(4)
    scheme = Distill(cheapnet(8), resnet(8), 'kd+at+fitnet+sp')
    losses, _ = scheme(x, y)
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in scheme.student.parameters())


@pytest.mark.parametrize('name', [n for n in list_models() if n.startswith('cheapnet')])
def test_a_name_is_a_net_and_back(tmp_path, name):
    net = create_model(name, 7)
    assert model_name(net.call) == name and describe_model(net) == net.call
    save_model(net, tmp_path / 'net.pt')
    again = load_model(tmp_path / 'net.pt')
    assert weights_hash(again) == weights_hash(net) and again(torch.randn(2, 3, 32, 32)).shape == (2, 7)


def test_counts():
    assert [
        num_params(create_model(f'cheapnet56_{k}'))
        for k in ('shift', 'dw', 'group1', 'group2', 'group4', 'group8', 'group16')
    ] == [102_106, 119_818, 938_458, 520_282, 311_194, 206_650, 154_378]
