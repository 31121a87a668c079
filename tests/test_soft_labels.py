"Soft labels through every term; batches that are smoothed, mixed, erased and augmented, keyed by seed and epoch."

import copy
import json

import pytest
import torch
import torch.nn.functional as F

from kdnb.data import Mixing, load_data
from kdnb.losses import ce_loss
from kdnb.methods import CE, KD, Term, known_methods
from kdnb.models import plainnet, resnet
from kdnb.schemes import Alone, Distill, JointRD, Online
from kdnb.seeds import seeded
from kdnb.systems import Loading, Recipe, System, add_system, loadings, recipes, systems
from kdnb.train import Learner, fit_together, remember

ALL = dict(smoothing=.1, mixup=.8, cutmix=1., erase=.25)
STRONG = dict(ALL, augment='trivialaugment')
METHODS = {make: name for name, make in reversed(known_methods.items())}.values()


@pytest.fixture(autouse=True)
def registries_stay():
    "What a test adds to the registries is gone after it."
    before = [(registry, dict(registry)) for registry in (systems, recipes, loadings)]
    yield
    for registry, entries in before:
        registry.clear()
        registry.update(entries)


def recipe(**fields):
    "The name of a recipe with these mixtures."
    name = json.dumps(fields)
    own = Recipe(10, lr=.05, wd=5e-4, **fields)
    add_system(System(name, name, recipes={name: own}, loading={name: Loading(20)}), replace=True)
    return name


def digits(**fields):
    return load_data('digits', size=8, n_train=40, bs=20, valid=0, device='cpu', recipe=recipe(**fields))


def distill(method='kd', seed=0):
    with seeded(seed): return Distill(resnet(8), resnet(8 if method == 'self' else 14), method, size=8)


def fit(data, scheme, run=None, epochs=2, **fields):
    return Learner(scheme, data, run=run, recipe=recipe(**fields), cbs=None).fit(epochs)


def weights(learn): return torch.cat([p.detach().flatten() for p in learn.student.parameters()])


@pytest.mark.parametrize('method', METHODS)
def test_each_term_takes_one_hot_labels_as_class_numbers(method):
    scheme = Alone(resnet(8), method) if issubclass(known_methods[method], CE) else distill(method)
    data = load_data('digits', size=8, n_train=40, bs=20, valid=0, device='cpu')
    scheme.check(data)
    x, y, *beside = next(data.train.asking(scheme.asks).epoch(0, 0))
    scheme.eval()

    def losses(y):
        with seeded(0): return scheme(x, y, **dict(*beside))[0]

    hard, soft, mixed = losses(y), losses(F.one_hot(y, 10).float()), losses(.7*F.one_hot(y, 10) + .03)
    for name, loss in hard.items():
        torch.testing.assert_close(soft[name], loss, rtol=1e-4, atol=1e-6)
        assert mixed[name].isfinite()


@pytest.mark.parametrize('make', [lambda: JointRD(plainnet(8), resnet(8)), lambda: Online([resnet(8), resnet(8)])])
def test_schemes_take_soft_labels(make):
    scheme, x, y = make().settle(8).eval(), torch.rand(4, 3, 8, 8), torch.arange(4)
    hard, soft = scheme(x, y)[0], scheme(x, F.one_hot(y, 10).float())[0]
    for name, loss in hard.items(): torch.testing.assert_close(soft[name], loss, rtol=1e-4, atol=1e-6)


def test_a_term_that_cannot_take_soft_labels_says_so_before_training():
    class Indexes(Term):
        def __call__(self, s, t, y): return -s.log_softmax(1)[torch.arange(len(y)), y].mean()

    class Otherwise(Term):
        def __call__(self, s, t, y): return (s.argmax(1) - y.T).float().square().mean() + s.sum()*0

    for term, late in (Indexes, 1.), (Otherwise, 1.), (Indexes, lambda epoch, epochs: float(epoch > 3)):
        scheme = distill([KD(.9), term(lambda s, t: 0, late, taps=None, name='mine')])
        Learner(scheme, digits(), recipe=recipe(erase=.5), cbs=None)
        with pytest.raises(ValueError, match=r'mine cannot take soft labels .*mixup=0.8 makes them: take a recipe'):
            Learner(scheme, digits(mixup=.8), recipe=recipe(mixup=.8), cbs=None)


def test_resumed_bit_for_bit_and_keyed_by_seed_and_epoch(monkeypatch, tmp_path):
    data = digits(**STRONG)
    whole = fit(data, distill('kd+dkd+kd_shuffled'), epochs=2, **STRONG)
    import kdnb.train.loop as loop
    plain, seen = loop.close_epoch, []

    def stop_after_one(learn, trained):
        plain(learn, trained)
        seen.append(learn.epoch)
        if len(seen) == 1: raise KeyboardInterrupt

    monkeypatch.setattr(loop, 'close_epoch', stop_after_one)
    scheme = distill('kd+dkd+kd_shuffled')
    with pytest.raises(KeyboardInterrupt): fit(data, scheme, run=tmp_path/'run', epochs=2, **STRONG)
    monkeypatch.undo()
    again = fit(data, distill('kd+dkd+kd_shuffled'), run=tmp_path/'run', epochs=2, **STRONG)
    assert torch.equal(weights(whole), weights(again))
    assert [r['loss'] for r in whole.history] == [r['loss'] for r in again.history]
    assert not torch.equal(weights(whole), weights(fit(data, scheme, epochs=2)))


def test_a_group_sees_the_same_mixture_as_each_alone():
    data, teacher = digits(**ALL), resnet(14)

    def made(method):
        with seeded(0): scheme = Distill(resnet(8), teacher, method, size=8)
        return Learner(scheme, data, recipe=recipe(**ALL), cbs=None)

    alone = [made(m).fit(1) for m in ('kd', 'dkd')]
    both = fit_together([made(m) for m in ('kd', 'dkd')], 1, cbs=None)
    for a, b in zip(alone, both): assert torch.equal(weights(a), weights(b))
    mixed = made('kd'), Learner(distill(), data, recipe=recipe(mixup=.2), cbs=None)
    with pytest.raises(ValueError, match='different mixtures'): fit_together(mixed, 1)


def test_the_teacher_sees_the_mixed_image():
    seen = []

    class Spy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = resnet(8)

        def forward(self, x):
            seen.append(x.detach().clone())
            return self.net(x)

    scheme = Distill(Spy(), Spy(), 'kd', size=8)
    learn = Learner(scheme, digits(mixup=1.), recipe=recipe(mixup=1.), cbs=None)
    seen.clear()
    learn.fit(1)
    pairs = [(a, b) for a, b in zip(seen, seen[1:]) if len(a) == len(b) == 20 and torch.equal(a, b)]
    raw = [x for x, _ in learn.data.train.epoch(0, 0)]
    assert len(pairs) == 2 and all(not torch.equal(a, x) for (a, _), x in zip(pairs, raw))


def test_training_accuracy_counts_the_most_probable_label():
    learn = fit(digits(mixup=.8), Alone(resnet(8)), mixup=.8)
    epoch = [*learn.mixing.batches(learn.train.epoch(0, 1), learn.train, 10, 0, 1)]
    assert all(y.shape == (20, 10) and y.dtype == torch.float32 for _, y in epoch)
    assert 0 <= learn.history[1]['train_acc'] <= 100


def test_remembered_logits_refuse_other_images_and_take_smoothed_labels(tmp_path):
    data = digits(smoothing=.1)
    known = remember(resnet(14), data, views=1, root=tmp_path)
    with pytest.raises(ValueError, match='what was remembered is said of other images than mixup=0.8 makes'):
        Learner(Distill(resnet(8), known, 'kd'), data, recipe=recipe(mixup=.8), cbs=None)
    fit(data, Distill(resnet(8), known, 'kd'), epochs=1, smoothing=.1)


def test_smoothing_is_that_of_pytorch():
    x, y = torch.randn(8, 10), torch.arange(8)
    soft = Mixing(smoothing=.1).mix(load_data('digits', size=8, device='cpu').train, 10, (x, y), 0)[1]
    torch.testing.assert_close(ce_loss(x, soft), F.cross_entropy(x, y, label_smoothing=.1))


def test_streamed_images_are_mixed_as_held_ones(tmp_path):
    from PIL import Image
    g = torch.Generator().manual_seed(0)
    for split in 'train', 'test':
        for c in 'ab':
            folder = tmp_path/'set'/split/c
            folder.mkdir(parents=True)
            for i in range(8):
                pixels = torch.randint(0, 256, (16, 16, 3), dtype=torch.uint8, generator=g).numpy()
                Image.fromarray(pixels).save(folder/f'{i}.png')
    name = recipe(**STRONG)
    found = []
    for stream in False, True:
        data = load_data(tmp_path/'set', bs=4, size=8, augment='crop_flip', valid=0, stream=stream, device='cpu',
                         workers=0, recipe=name)
        found.append([*Mixing(**STRONG).batches(data.train.epoch(0, 1), data.train, 2, 0, 1)])
    for (x, y), (xs, ys) in zip(*found):
        torch.testing.assert_close(x, xs)
        torch.testing.assert_close(y, ys)


def test_a_deep_copy_and_a_repeat_are_the_same(tmp_path):
    data, scheme = digits(**ALL), distill()
    again = copy.deepcopy(scheme)
    assert torch.equal(weights(fit(data, scheme, epochs=1, **ALL)), weights(fit(data, again, epochs=1, **ALL)))
