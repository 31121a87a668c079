"A scheme is built, then settled at the size of its images: by its learner, by its first batch, or by hand."
import copy
import json

import pytest
import torch
import torchvision.models as tvm
from torch import nn

from kdnb.all import (
    Data,
    Distill,
    Frozen,
    JointRD,
    Learner,
    Online,
    find_taps,
    load_data,
    plainnet,
    resnet,
    seeded,
    weigh,
)

@pytest.fixture(scope='module')
def digits(): return load_data('digits', size=8, n_train=60, bs=20, device='cpu')


def some(size, n=8):
    "Random images of a size."
    g = torch.Generator().manual_seed(0)

    def images(n):
        return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=g), torch.arange(n) % 10

    return Data(images(n), None, images(n), [str(i) for i in range(10)], bs=4)


def batch(h, w=None): return torch.randn(4, 3, h, w or h), torch.arange(4)


def step(scheme, data):
    "Check, and one backward pass that reaches all that is trained."
    scheme.check(data)
    losses, _ = scheme.train()(*data.one_batch())
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in scheme.parameters())


BUILDS = {
    'fitnet': lambda **k: Distill(resnet(8), resnet(8, width=2), 'kd+fitnet', **k),
    'ofd': lambda **k: Distill(resnet(8), resnet(8, width=2), 'ofd', **k),
    'joint': lambda **k: JointRD(plainnet(8), resnet(8), **k),
    'joint-learns': lambda **k: JointRD(plainnet(8), resnet(8), train_teacher=True, **k),
    'online': lambda **k: Online([resnet(8), resnet(8, width=2)], **k),
}
WITHOUT_ADAPTERS = {
    'at': lambda **k: Distill(resnet(8), resnet(14), 'kd+at', **k),
    'peers': lambda **k: Online([resnet(8), resnet(8)], teacher='peers', **k),
    'no-feature-loss': lambda **k: JointRD(plainnet(8), resnet(8), weight=0, **k),
}
ALL = BUILDS | WITHOUT_ADAPTERS


def test_adapters_are_built_for_the_images_that_the_learner_brings():
    scheme = Distill(resnet(20), tvm.densenet121(num_classes=10), 'fitnet')     # for 32 pixels: (8, 512, 20, 20)
    step(scheme, some(64))
    assert scheme.size == 64


def test_a_transformer_for_its_own_size_teaches_by_its_embedding():
    def vit(): return tvm.VisionTransformer(64, 16, 1, 2, 16, 16, num_classes=10)

    step(Distill(resnet(8), vit(), 'rkd+pkt'), some(64))
    step(Distill(vit(), resnet(8), 'kd+rkd'), some(64))


@pytest.mark.parametrize('name', ALL)
def test_the_random_weights_do_not_depend_on_when_they_are_drawn(name):
    with seeded(3):
        early = ALL[name](size=8)
    with seeded(3):
        late = ALL[name]()
    torch.rand(7)
    before = torch.get_rng_state()
    late.settle(8)
    assert torch.equal(torch.get_rng_state(), before) and late.size == early.size == 8
    assert repr(early) == repr(late) and early.describe() == late.describe()
    for (k, v), (n, w) in zip(early.state_dict().items(), late.state_dict().items(), strict=True):
        assert k == n and torch.equal(v, w), k
    assert [n for n, _ in early.named_parameters()] == [n for n, _ in late.named_parameters()]


@pytest.mark.parametrize('name', BUILDS)
def test_an_optimiser_that_would_miss_adapters_is_refused(name):
    scheme = BUILDS[name]()
    for ask in (lambda: torch.optim.SGD(scheme.parameters(), 0.1), lambda: scheme.param_groups(5e-4),
                lambda: [*scheme.named_parameters()]):
        with pytest.raises(RuntimeError, match=r'call settle\(size\) before its parameters are listed'):
            ask()
    scheme.double().float().train().eval()                      # none of these lists them
    scheme(*batch(16))
    assert scheme.size == 16 and len([*scheme.parameters()]) > 0


@pytest.mark.parametrize('name', ALL)
def test_the_first_batch_of_a_loop_of_ones_own_settles_it(name):
    scheme = ALL[name]()
    assert 'settle' in repr(scheme) or name not in ('fitnet', 'ofd', 'at')
    if name in WITHOUT_ADAPTERS:
        opt = torch.optim.SGD(scheme.parameters(), 0.1)
        n = len(opt.param_groups[0]['params'])
    first = scheme(*batch(16))[0]
    assert scheme.size == 16 and all(v.isfinite() for v in first.values())
    if name in WITHOUT_ADAPTERS:
        assert n == len([*scheme.parameters()])
    scheme(*batch(16))


def test_images_need_not_be_square_in_a_loop_of_ones_own():
    scheme = Distill(resnet(8), resnet(8, width=2), 'at+fitnet')
    scheme(*batch(16, 24))
    assert scheme.size == (16, 24) and [r.size for r in find_taps(scheme.student, (16, 24))][0] == (16, 24)


def test_a_settled_scheme_refuses_data_of_another_size(digits):
    with pytest.raises(ValueError, match='settled at 16x16 pixels and the images have 8x8: build it anew'):
        Learner(BUILDS['fitnet'](size=16), digits, cbs=None)
    Learner(Distill(resnet(8), resnet(8), 'kd', size=16), digits, cbs=None)     # nothing in it depends on the size
    for size in (0, '32', 2.5):
        with pytest.raises(ValueError, match='size must be a whole number'):
            BUILDS['fitnet'](size=size)


def test_it_waits_as_one_that_says_so():
    scheme = BUILDS['fitnet']()
    assert 'places: at the size of the images, see settle' in repr(scheme)
    with pytest.raises(RuntimeError, match=r'the pairs of this Distill are known with the size'):
        scheme.describe()
    assert not hasattr(scheme, 'no_decay')
    twin = copy.deepcopy(scheme).settle(8)
    assert all(map(torch.equal, twin.state_dict().values(), scheme.settle(8).state_dict().values()))


def test_a_run_is_the_same_with_and_without_a_size(digits, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('KDNB_RUNS', str(tmp_path))

    def learner(run, **size):
        with seeded(1):
            return Learner(BUILDS['fitnet'](**size), digits, run=run, amp='off', cbs=())

    given = learner('given', size=8).fit(1)
    found = learner('found').fit(1)
    assert json.loads((tmp_path/'given/config.json').read_text())['terms'] == json.loads(
        (tmp_path/'found/config.json').read_text())['terms']
    assert [r['loss'] for r in given.history] == [r['loss'] for r in found.history]
    again = learner('given').fit(1)
    assert 'finished, loaded' in capsys.readouterr().out
    assert torch.equal(again.scheme.adapters['fitnet'][0][0].weight, given.scheme.adapters['fitnet'][0][0].weight)


@pytest.mark.slow
def test_a_compiled_scheme_is_settled_by_its_first_batch():
    scheme = Distill(resnet(8), resnet(14), 'kd+at')
    with seeded(0):
        x, y = batch(16)
    plain = copy.deepcopy(scheme)(x, y)[0]
    compiled = torch.compile(scheme, backend='eager')
    for _ in range(2):
        assert {k: v.item() for k, v in compiled(x, y)[0].items()} == pytest.approx(
            {k: v.item() for k, v in plain.items()}, rel=1e-4)


def test_weighing_settles_it():
    scheme = BUILDS['fitnet']()
    assert [row['term'] for row in weigh(scheme, batch(16))] == ['ce', 'kd', 'fitnet'] and scheme.size == 16


def test_a_teacher_is_asked_for_what_the_terms_read_only(digits):
    other, images = resnet(14, 7), lambda: nn.Sequential(*resnet(14).children())[:-1]
    for teacher in other, images():
        step(Distill(resnet(8), teacher, 'at+sp+fitnet'), digits)
    with pytest.raises(ValueError, match='the student has 10 classes and the teacher 7: .* or a method that reads no'):
        Learner(Distill(resnet(8), other, 'kd+at'), digits, cbs=None)
    with pytest.raises(ValueError, match="in the teacher, .* has no 'embedding': name the tap"):
        Distill(resnet(8), images(), 'rkd')
    silent = Distill(resnet(8), other, 'ls')
    silent.teacher.forward = None
    Learner(silent, digits, cbs=None)                                           # no term reads it


def test_places_behind_prepare(digits):
    twice = Frozen(resnet(14), prepare=lambda x: nn.functional.interpolate(x, scale_factor=2))
    assert [r.size for r in find_taps(twice, 8)] == [(16, 16), (8, 8), (4, 4)]
    assert find_taps(twice).size == 32 and find_taps(Frozen(resnet(14)), 16).size == 16
    step(Distill(resnet(8), twice, 'fitnet'), digits)
