"What a scheme asks for beside images and labels: the number of each image, and a second view of it."

import copy

import pytest
import torch

from kdnb.data import load_data
from kdnb.losses import asked_by
from kdnb.methods import CE, KD, Term
from kdnb.models import resnet
from kdnb.schemes import Alone, Distill, Scheme, weigh
from kdnb.seeds import seeded
from kdnb.systems import Loading, Recipe, System, add_system, loadings, recipes, systems
from kdnb.train import Learner, fit_together, remember

@pytest.fixture(autouse=True)
def registries_stay():
    "What a test adds to the registries is gone after it."
    before = [(registry, dict(registry)) for registry in (systems, recipes, loadings)]
    yield
    for registry, entries in before:
        registry.clear()
        registry.update(entries)


@pytest.fixture(scope='module')
def data(): return load_data('digits', size=8, n_train=40, bs=20, valid=0, device='cpu', augment='crop')


class Bank(Term):
    "Remembers what the student said to each image, in a buffer, and asks for the same again."
    asks = ('index',)

    def __init__(self): super().__init__(lambda s, t: 0, 1., taps=-1, name='bank')

    def connect(self, fs, ft):
        bank = torch.nn.Identity()
        bank.register_buffer('said', torch.zeros(40, fs[0].shape[1]))
        self.bank = [bank]                      # a list, so out of reach of the scheme
        return bank

    def through(self, adapters, fs, ft):
        self.bank = [adapters]
        return [f.mean((2, 3)) for f in fs]

    def __call__(self, s, t, y, index):
        assert index.dtype == torch.int64
        said = self.bank[0].said
        loss = (s[0] - said[index]).square().mean()
        with torch.no_grad(): said[index] = s[0].detach().to(said.dtype)
        return loss


def agree(s, t, view): return (s - view[1].detach()).square().mean()


def taught(method, seed=0):
    with seeded(seed): return Distill(resnet(8), resnet(14), method, size=8)


def weights(learn): return torch.cat([p.detach().flatten().double() for p in learn.scheme.state_dict().values()])


def stopped_after(monkeypatch, epochs):
    import kdnb.train.loop as loop
    plain, seen = loop.close_epoch, []

    def close(learn, trained):
        plain(learn, trained)
        seen.append(1)
        if len(seen) == epochs: raise KeyboardInterrupt

    monkeypatch.setattr(loop, 'close_epoch', close)


def test_the_numbers_are_those_of_the_images_in_train(data):
    seen = []

    def look(s, t, index):
        seen.append(index)
        return s.sum()*0

    learn = Learner(taught([CE(), Term(look, taps=None)]), data, cbs=None)
    seen.clear()
    learn.fit(2)
    assert [sorted(torch.cat(seen[k:k + 2]).tolist()) for k in (0, 2)] == [list(range(40))]*2
    batches = [*learn.train.epoch(0, 0)]
    for _, y, more in batches: assert torch.equal(data.train.y[more['index']], y)
    assert torch.equal(torch.cat(seen[:2]), torch.cat([more['index'] for *_, more in batches]))


def test_both_models_see_the_second_view_and_images_are_those_without(data):
    learn = Learner(taught([CE(), Term(agree, taps=None)]), data, cbs=None)
    for (x, y), (xa, ya, more) in zip(data.train.epoch(0, 0), learn.train.epoch(0, 0)):
        assert torch.equal(x, xa) and torch.equal(y, ya) and [*more] == ['view']
    scheme = learn.scheme.eval()
    said = scheme(x, y, view=more['view'])[0]['agree']
    torch.testing.assert_close(said, (scheme.student(x) - scheme.teacher(more['view'])[0]).square().mean())


def test_a_memory_and_a_view_resume_bit_for_bit(data, tmp_path, monkeypatch):
    def made(run=None): return Learner(taught([CE(), Bank(), Term(agree, taps=[1, 2])]), data, run=run, cbs=None)

    whole = made().fit(2)
    stopped_after(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt): made(tmp_path/'run').fit(2)
    monkeypatch.undo()
    again = made(tmp_path/'run').fit(2)
    assert torch.equal(weights(whole), weights(again)) and whole.scheme.adapters['bank'].said.abs().sum() > 0


def test_a_group_brings_each_what_it_asks_for(data):
    teacher = resnet(14)

    def made(method):
        with seeded(0): scheme = Distill(resnet(8), teacher, method, size=8)
        return Learner(scheme, data, cbs=None)

    methods = 'kd', [CE(), Bank()], [CE(), Term(agree, taps=None)]
    alone = [made(copy.deepcopy(m)).fit(1) for m in methods]
    group = fit_together([made(copy.deepcopy(m)) for m in methods], 1, cbs=None)
    for a, b in zip(alone, group): torch.testing.assert_close(weights(a), weights(b), rtol=1e-5, atol=1e-5)


def test_remembered_logits_know_the_numbers_and_refuse_a_second_view(data, tmp_path):
    known = remember(resnet(14), data, views=1, root=tmp_path)
    seen = []

    def look(s, t, index):
        seen.append(index)
        return (s - t).square().mean()

    Learner(Distill(resnet(8), known, [KD(.9), Term(look, taps=None)]), data, cbs=None).fit(1)
    assert sorted(torch.cat(seen[-2:]).tolist()) == list(range(40))
    with pytest.raises(ValueError, match='agree asks for a second view of each image, and one alone is remembered'):
        Distill(resnet(8), known, [KD(.9), Term(agree, taps=None)])


def test_a_batch_without_what_is_asked_for_is_refused_in_a_loop_of_your_own(data):
    x, y = data.one_batch()
    with pytest.raises(ValueError, match='look asks for the index of each image, and this batch has none: give the'):
        taught([CE(), Term(lambda s, t, index: s.sum(), taps=None, name='look')])(x, y)
    scheme = taught([CE(), Term(agree, taps=None)])
    with pytest.raises(ValueError, match='agree asks for the view of each image'): scheme(x, y)
    assert scheme(x, y, view=x)[0]['agree'] > 0
    assert [row['term'] for row in weigh(scheme, (x, y, dict(view=x)))] == ['ce', 'agree']


def test_an_argument_with_a_default_asks_for_nothing_and_own_schemes_ask_by_name(data):
    class Own(Scheme):
        def __init__(self, student):
            super().__init__()
            self.student = student

        def forward(self, x, y, view, index):
            z = self.student(x)
            return {'same': (z - self.student(view)).square().mean() + 0*index.sum()}, {'student': z}

    assert asked_by(lambda s, t, index=0: 0) == () and Own(resnet(8)).asks == ('index', 'view')
    assert Learner(Own(resnet(8)), data, cbs=None).fit(1).history[0]['same'] > 0
    assert Alone(resnet(8)).asks == () == taught('kd+at').asks


def test_the_second_view_is_the_strong_one(data):
    own = Recipe(10, lr=.05, wd=5e-4, erase=1., mixup=1.)
    add_system(System('strong', 'strong', recipes={'strong': own}, loading={'strong': Loading(20)}), replace=True)
    learn = Learner(taught([CE(), Term(agree, taps=None)]), data, recipe='strong', cbs=None)
    x, y, more = next(learn.mixing.batches(learn.train.epoch(0, 0), learn.train, 10, 0, 0))
    holes = [(v == 0).all(1).flatten(1).any(1).float().mean() for v in (x, more['view'])]
    plain, labels, _ = next(learn.train.epoch(0, 0))
    kept = (y.max(1).values - y.topk(2).values[:, 1]).abs()
    assert y.shape == (20, 10) and not torch.equal(x, plain) and kept.min() >= 0 and holes[0] <= holes[1]
    assert learn.fit(1).history[0]['agree'] > 0
