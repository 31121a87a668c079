"""What the model notebooks cannot show: the published counts in one table, every net under the knife, a compiled
model, wrong arguments."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kdnb.models import (
    TwoBranch,
    built_by,
    create_model,
    grow,
    mobilenetv2,
    num_params,
    plainnet,
    reducenet,
    reestimate_bn,
    resnet,
    shrink,
    shufflenetv1,
    shufflenetv2,
    vgg,
    wrn,
)

pytestmark = pytest.mark.slow

@pytest.mark.parametrize(
    'build,args,params',
    [
        (shufflenetv2, (0.5,), 356_018),
        (shufflenetv2, (1,), 1_268_646),
        (shufflenetv2, (1.5,), 2_492_466),
        (shufflenetv2, (2,), 5_366_566),  # PkuDavidGuan, 10 classes
        (shufflenetv2, (1, 100, False), 1_355_528),
        (shufflenetv1, (100,), 949_258),
        (mobilenetv2, (0.5, 100), 812_836),  # RepDistiller, 100 classes
        (mobilenetv2, (1, 100), 2_351_972 + 32 * 32 + 2 * 32),  # torchvision's, and the first block's 1x1
        (vgg, (8, 100), 3_965_028),
        (vgg, (11, 100), 9_277_284),
        (vgg, (13, 100), 9_462_180),
        (vgg, (16, 100), 14_774_436),
        (vgg, (19, 100), 20_086_692)])
def test_the_published_numbers_of_parameters(build, args, params):
    with torch.device('meta'):
        model = build(*args)
    assert num_params(model) == params
    assert model(torch.empty(2, 3, 32, 32, device='meta')).shape == (2, model.call['num_classes'])


SMALL = dict(
    shufflenetv1=lambda: shufflenetv1(7),
    shufflenetv2=lambda: shufflenetv2(0.5, 7),
    shufflenetv2_post=lambda: shufflenetv2(0.5, 7, preact=False),
    mobilenetv2=lambda: mobilenetv2(0.5, 7),
    vgg8=lambda: vgg(8, 7))


@pytest.mark.parametrize('name', SMALL)
def test_fits_eight_random_pictures(name):
    torch.manual_seed(0)
    model, xb, yb = SMALL[name](), torch.randn(8, 3, 32, 32), torch.arange(8) % 7
    gentle = name in ('shufflenetv1', 'mobilenetv2')                       # at .02 their loss is chaotic
    opt = torch.optim.SGD(model.parameters(), lr=0.005 if gentle else 0.02, momentum=0.9)
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(model(xb), yb)
        opt.zero_grad()
        loss.backward()
        opt.step()
    assert loss < 0.1 and all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize('name', SMALL)
def test_a_copy_in_another_memory_format_says_the_same(name):
    torch.manual_seed(0)
    model, xb = SMALL[name]().eval(), torch.randn(2, 3, 64, 64)
    want = model(xb)
    again = copy.deepcopy(model).to(memory_format=torch.channels_last)
    torch.testing.assert_close(again(xb.to(memory_format=torch.channels_last)), want, rtol=1e-4, atol=1e-5)


def test_a_compiled_shufflenet_says_the_same():
    torch.manual_seed(0)
    model, xb = shufflenetv2(0.5).eval(), torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(torch.compile(model, backend='aot_eager', fullgraph=True)(xb), model(xb))


@pytest.mark.parametrize(
    'build,args,says',
    [
        (shufflenetv2, (3,), 'has no ratio 3: it has 0.5, 1, 1.5, 2'),
        (shufflenetv2, (None,), 'no ratio None'),
        (shufflenetv2, ([1],), r'no ratio \[1\]'),
        (shufflenetv2, (True,), 'no ratio True'),
        (mobilenetv2, (0,), 'from 1/16 up'),
        (mobilenetv2, (-1,), 'from 1/16 up'),
        (mobilenetv2, (0.01,), 'from 1/16 up'),
        (mobilenetv2, (float('nan'),), 'is a number'),
        (mobilenetv2, ('.5',), 'is a number'),
        (vgg, (12,), 'no VGG has depth 12: there is 8, 11, 13, 16, 19'),
        (vgg, (8.0,), 'no VGG has depth 8.0'),
        (vgg, ([8],), 'no VGG has depth'),
        (shufflenetv1, (0,), 'at least 1 class'),
        (vgg, (8, 2.5), 'at least 1 class')])
def test_a_wrong_argument_is_one_clear_sentence(build, args, says):
    with pytest.raises(ValueError, match=says) as e:
        build(*args)
    assert '\n' not in str(e.value)


# --- the networks of the papers: parameters to the unit, multiply-accumulates (torch's counter halved) in millions
# for 32 x 32 pixels, 100 classes

COUNTED = [
    (wrn, (28, 4, 100), 5_872_180, 845.6),
    (wrn, (16, 2, 100), 703_284, 101.1),
    (wrn, (16, 4, 100), 2_772_020, 392.6),
    (wrn, (28, 2, 100), 1_479_220, 214.4),
    (wrn, (40, 2, 100), 2_255_156, 327.6),
    (wrn, (40, 1, 100), 569_780, None),
    (wrn, (28, 4, 100, False), 5_873_076, 845.6),
    (wrn, (16, 2, 100, False), 703_732, 101.1),
    (wrn, (16, 4, 100, False), 2_772_916, 392.6),
    (wrn, (40, 2, 100, False), 2_255_604, 327.6),
    (plainnet, (18, 100), 11_220_132, None),
    (plainnet, (34, 100), 21_328_292, None),
    (plainnet, (50, 100), 23_688_356, None),
    (plainnet, (20, 100), 278_324, None),
    (plainnet, (56, 100), 861_620, None),
    (plainnet, (20, 100, 'cifar', True), 279_668, None)]


@pytest.mark.parametrize(
    'build, args, params, macs',
    COUNTED,
    ids=lambda v: getattr(v, '__name__', None) or ('-'.join(map(str, v)) if isinstance(v, tuple) else None))
def test_parameters_and_macs(build, args, params, macs):
    model = build(*args)
    assert sum(p.numel() for p in model.parameters()) == params
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, 3, 32, 32))
    assert macs is None or round(counter.get_total_flops() / 2e6, 1) == macs


@pytest.mark.parametrize('depth', [18, 34, 50, 20])
@pytest.mark.parametrize('stem', ['cifar', 'imagenet'])
def test_a_plain_student_takes_the_teachers_weights(depth, stem):
    student, teacher = plainnet(depth, 7, stem), resnet(depth, 7, stem=stem)
    missing, unused = student.load_state_dict(teacher.state_dict(), strict=False)
    assert missing == [] and {n.rsplit('.', 2)[0] for n in unused} == ({'stages.0.0.short'} if depth == 50 else set())

    def ends(model):
        x, shapes = torch.randn(2, 3, 64, 64), []
        for part in (model.stem, *model.stages):
            x = part(x)
            shapes.append(x.shape)
        return shapes

    assert ends(student) == ends(teacher)


# --- surgery


def same(a, b): return a.keys() == b.keys() and all(a[k].equal(b[k]) for k in a)


def grown_at(model): return [n for n, m in model.named_modules() if isinstance(m, TwoBranch)]


def sequential():  # no class of its own: each 3x3 but the first
    def unit(ni, nf, stride): return nn.Sequential(nn.Conv2d(ni, nf, 3, stride, 1), nn.BatchNorm2d(nf), nn.ReLU())

    return nn.Sequential(
        unit(3, 8, 1), unit(8, 8, 1), unit(8, 16, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 7))


def vgg11():  # without its 120 million parameters at the end
    model = create_model('torchvision/vgg11_bn', 7)
    model.avgpool, model.classifier = nn.Identity(), nn.Linear(512, 7)
    return model


class Unit(nn.Module):  # one convolution: not a block, but part of one
    def __init__(self, ni, nf):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(ni, nf, 3, padding=1), nn.BatchNorm2d(nf)

    def forward(self, x): return self.norm(self.conv(x)).relu()


class Pair(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.a, self.b = Unit(n, n), Unit(n, n)

    def forward(self, x): return x + self.b(self.a(x))


class Net(nn.Module):  # blocks are attributes, two levels down
    def __init__(self):
        super().__init__()
        self.body = nn.ModuleDict({'stem': Unit(3, 8), 'one': Pair(8), 'two': Pair(8)})
        self.fc = nn.Linear(8, 7)

    def forward(self, x):
        for m in self.body.values():
            x = m(x)
        return self.fc(x.mean((2, 3)))


NETS = {
    'resnet(20)': (lambda: resnet(20, 7), 9),
    'resnet(50)': (lambda: resnet(50, 7), 16),
    'sequential': (sequential, 2),
    'net': (Net, 2),
    'vgg': (vgg11, 7),
    **{
        n: (lambda n=n: create_model(f'torchvision/{n}', 7), k)
        for n, k in [
            ('resnet18', 8),
            ('resnet50', 16),
            ('resnext50_32x4d', 16),
            ('mobilenet_v2', 17),
            ('mobilenet_v3_small', 3),
            ('densenet121', 58),
            ('shufflenet_v2_x0_5', 16)]}}


@pytest.mark.parametrize('form', ['shared', 'readme'])
@pytest.mark.parametrize('name', NETS)
def test_grown_trained_and_cut(name, form):
    build, places = NETS[name]
    plain = build()
    before = copy.deepcopy(plain.state_dict())
    if 'densenet' in name and form == 'readme':
        with pytest.raises(ValueError, match="take form='shared'"):
            grow(plain, form=form)
        return
    grown = grow(plain, form=form)
    assert len(grown_at(grown)) == places and built_by(grown) is None
    assert same(shrink(grown).state_dict(), before)  # nothing but the branches is new
    opt = torch.optim.SGD(grown.parameters(), lr=0.01)
    nn.functional.cross_entropy(grown(torch.randn(4, 3, 32, 32)), torch.arange(4)).backward()
    for m in grown.modules():
        if isinstance(m, TwoBranch):
            assert all(p.grad is not None and p.grad.isfinite().all() for p in m.parameters())
    nn.utils.clip_grad_norm_(
        grown.parameters(), 1.0
    )  # a deep net's last batch norms see 4 numbers here: gradients are huge
    opt.step()
    assert same(plain.state_dict(), before)  # and nothing is shared with the model that was given
    cut = shrink(pickle.loads(pickle.dumps(copy.deepcopy(grown))))
    assert repr(cut) == repr(plain) and vars(cut).keys() - {'made'} == vars(plain).keys()
    plain.load_state_dict(cut.state_dict(), strict=True)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert plain.eval()(x).equal(cut.eval()(x))
    assert any(not p.equal(before[n]) for n, p in cut.named_parameters())


def test_the_branch_keeps_groups_stride_and_dilation():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.Conv2d(8, 12, 3, (2, 1), (2, 3), (1, 2), groups=4, padding_mode='reflect'),
        nn.BatchNorm2d(12))
    grown = grow(net, expansion=3)
    assert grown[1].branch.conv1.weight.shape == (36, 2, 3, 3) and grown[1].branch.conv1.padding_mode == 'reflect'
    assert grown(torch.randn(2, 3, 9, 11)).shape == net(torch.randn(2, 3, 9, 11)).shape


def test_where_and_in_which_number_type_the_branch_is():
    net = resnet(8).double().eval().to('meta')
    assert {(p.dtype, p.device.type) for p in grow(net).parameters()} == {(torch.float64, 'meta')}
    assert not any(m.training for form in ('shared', 'readme') for m in grow(net, form=form).modules())
    net.train().stages[0][0].bn1.eval()
    for form in 'shared', 'readme':
        assert [m.training for m in shrink(grow(net, form=form)).modules()] == [m.training for m in net.modules()]


def test_a_convolution_in_two_places_is_grown_in_both():
    conv = nn.Conv2d(8, 8, 3, padding=1)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), conv, nn.BatchNorm2d(8), conv, nn.BatchNorm2d(8))
    grown = grow(net)
    assert grown[1] is grown[3] and isinstance(grown[1], TwoBranch)
    cut = shrink(grown)
    assert cut[1] is cut[3] and same(cut.state_dict(), net.state_dict())
    assert (again := shrink(grown, refit=[torch.randn(4, 3, 8, 8)]))[1] is again[3]


@pytest.mark.parametrize('by', ['no ReLU', 'a ReLU that lets all pass'])
@pytest.mark.parametrize(
    'kind',
    [
        dict(),
        dict(groups=3),
        dict(groups=12),
        dict(groups=12, stride=2, bias=False),
        dict(groups=3, dilation=(2, 1), padding=(2, 1)),
        dict(padding_mode='reflect')])
def test_a_branch_that_is_linear_is_refitted_without_loss(kind, by):
    net = nn.Sequential(nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 3, **dict(padding=1) | kind), nn.BatchNorm2d(12))
    grown, x = grow(net), torch.randn(20, 3, 9, 9)
    b, n = grown[1].branch, 12 // kind.get('groups', 1)
    with torch.no_grad():
        b.conv2.weight.mul_(
            torch.block_diag(*[torch.ones(n, n)] * (12 // n))[..., None, None]
        )  # the branch's 1x1 mixes groups, which no convolution of groups can
    if by == 'no ReLU':
        b.act1 = nn.Identity()
    else:
        nn.init.constant_(b.bn1.bias, 100.0)
    cut = shrink(reestimate_bn(grown, [x]), refit=[x])
    with torch.no_grad():
        y, z, plain = (m.eval()[:2](x) for m in (grown, cut, shrink(grown)))

    def off(a):
        d = a - y
        return (d - d.mean((0, 2, 3), keepdim=True)).norm() / y.norm()  # a constant is the batch norm's business

    assert off(z) < 0.005 < 0.1 < off(plain)
    if cut[1].bias is not None:
        assert (z - y).norm() < 0.005 * y.norm()
    torch.testing.assert_close(cut(x), grown(x), atol=0.03, rtol=0.03)


@pytest.mark.parametrize('name', ['sequential', 'net', 'mobilenet_v3_small', 'shufflenet_v2_x0_5'])
def test_any_net_is_refitted_and_its_teacher_left_as_it_was(name):
    grown = grow(NETS[name][0]())
    next(m for m in grown.modules() if isinstance(m, nn.BatchNorm2d)).eval()
    xs, before, modes = (
        [torch.randn(4, 3, 32, 32) for _ in range(2)],
        copy.deepcopy(grown.state_dict()),
        [m.training for m in grown.modules()])
    cut = shrink(grown, refit=xs)
    assert (
        same(grown.state_dict(), before)
        and modes == [m.training for m in grown.modules()]
        and not any(m._forward_hooks or m._forward_pre_hooks for n in (grown, cut) for m in n.modules()))
    plain = shrink(grown)
    assert (
        repr(cut) == repr(plain)
        and [m.training for m in cut.modules()] == [m.training for m in plain.modules()]
        and (cut.made, plain.made) == ('refitted', 'shrunk'))
    moved = {n for n, p in cut.named_parameters() if not p.equal(plain.get_parameter(n))}
    assert moved >= {f'{n}.weight' for n in grown_at(grown)} and moved <= {
        f'{n}.{k}' for n in grown_at(grown) for k in ('weight', 'bias')}
    assert all(v.isfinite().all() for v in cut.state_dict().values()) and cut.eval()(xs[0]).isfinite().all()


def test_a_net_without_batch_norms_and_with_dead_inputs_is_refitted():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(4 * 25, 3))
    nn.init.constant_(net[0].bias, -100.0)  # nothing but zeros from here on
    assert shrink(grow(net), refit=[torch.randn(6, 3, 9, 9)])(torch.randn(2, 3, 9, 9)).isfinite().all()


def test_a_student_of_a_student_is_not_called_cut_before_it_is():
    cut = shrink(reducenet(8))
    assert (
        not hasattr(grow(cut), 'made')
        and not hasattr(shrink(grow(cut), inherit=False), 'made')
        and shrink(grow(cut)).made == 'shrunk')


def test_a_convolution_with_a_forward_of_its_own_is_left_alone():
    class Padded(nn.Conv2d):
        def forward(self, x): return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))

    with pytest.raises(ValueError, match='nothing to grow'):
        grow(nn.Sequential(nn.Conv2d(3, 8, 3), Padded(8, 8, 3)))


def test_teacher_and_student_begin_as_torch_s_layers_do_from_the_seed():
    torch.manual_seed(1)
    teacher = reducenet(20)
    torch.manual_seed(1)
    assert same(reducenet(20).state_dict(), teacher.state_dict())
    for net in (teacher, shrink(teacher)):
        for conv in (m for m in net.modules() if isinstance(m, nn.Conv2d)):      # uniform, as released
            bound = conv.weight[0].numel()**-.5
            assert bound*.8 < conv.weight.abs().max() <= bound
    torch.manual_seed(1)
    fresh = shrink(teacher, inherit=False)
    torch.manual_seed(1)
    assert same(shrink(teacher, inherit=False).state_dict(), fresh.state_dict())
    assert not same(fresh.state_dict(), shrink(teacher).state_dict())


def test_calls():
    plain = resnet(20, 7, 2)
    assert plain.call['builder'] == 'resnet' == shrink(grow(plain)).call['builder']
    assert not hasattr(grow(plain), 'call') and not hasattr(shrink(grow(Net())), 'call')
    assert reducenet(20, 7, 4, 2).call == dict(builder='reducenet', depth=20, num_classes=7, expansion=4, width=2)
    assert shrink(reducenet(20, 7, 4, 2)).call == plain.call


def test_inherit_false_keeps_nothing():
    for model in resnet(8), Net():
        for p in model.parameters():
            nn.init.constant_(p, 5)
        for b in model.buffers():
            b.fill_(5)
        fresh = shrink(grow(model), inherit=False)
        assert not any((v == 5).any() for v in fresh.state_dict().values()) and repr(fresh) == repr(model)
