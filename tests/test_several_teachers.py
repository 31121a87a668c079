"Several teachers: the mean of their logits, the mean of the losses, or one a batch, drawn by the seed of the run."

import copy

import pytest
import torch

from kdnb.data import load_data
from kdnb.losses import kd_loss
from kdnb.models import resnet
from kdnb.schemes import Distill, Ensemble, Frozen, weigh
from kdnb.seeds import seeded
from kdnb.train import Learner, fit_together, remember

HOW = 'logits', 'losses', 'random'


@pytest.fixture(scope='module')
def data(): return load_data('digits', size=8, n_train=40, bs=20, valid=0, device='cpu')


def taught(combine='logits', method='kd', teachers=None):
    with seeded(1): teachers = teachers or [resnet(8), resnet(14)]
    with seeded(0): return Distill(resnet(8), teachers, method, size=8, combine=combine)


def weights(learn): return torch.cat([p.detach().flatten() for p in learn.scheme.parameters()])


def test_each_way_is_what_it_says(data):
    x, y = data.one_batch()
    one, two = resnet(8).eval(), resnet(14).eval()
    schemes = {how: taught(how, teachers=[one, two]).eval() for how in HOW}
    z = schemes['logits'].student(x)
    each = [.9*kd_loss(z, t(x)) for t in (one, two)]
    torch.testing.assert_close(schemes['logits'](x, y)[0]['kd'], .9*kd_loss(z, (one(x) + two(x))/2))
    torch.testing.assert_close(schemes['losses'](x, y)[0]['kd'], (each[0] + each[1])/2)
    for lot in range(4): torch.testing.assert_close(schemes['random'](x, y, lot=lot)[0]['kd'], each[lot % 2])
    drawn = {schemes['random'](x, y)[0]['kd'].item() for _ in range(20)}
    assert drawn == {v.item() for v in each}


FEATURES = 'fitnet', "ofd(teacher_bn='batch')", 'crd(bank=False)', 'ctkd', 'wkd', 'at+vid+kd'


@pytest.mark.parametrize('method', FEATURES)
def test_features_and_adapters_are_of_each_teacher(method, data):
    "The mean, or the drawn one, of what two schemes of one teacher say with the same adapters."
    with seeded(2): one, two, pupil = resnet(8), resnet(14, width=2), resnet(8)
    schemes = {how: Distill(pupil, [one, two], method, size=8, combine=how) for how in ('losses', 'random')}
    alone = [Distill(pupil, t, method, size=8) for t in (one, two)]
    for scheme in (*schemes.values(), *alone):
        scheme.check(data)
        scheme.eval()
    for scheme in schemes.values(): scheme.load_state_dict(schemes['losses'].state_dict())
    for k, scheme in enumerate(alone):
        for name in scheme.adapters:
            scheme.adapters_of(name).load_state_dict(schemes['losses'].adapters_of(name, k).state_dict())
    x, y = data.one_batch()
    said = [losses_of(scheme, x, y) for scheme in alone]
    assert said[0] != said[1]
    for name, value in losses_of(schemes['losses'], x, y).items():
        assert value == pytest.approx((said[0][name] + said[1][name])/2, rel=1e-5)
    for lot in range(3):
        now = losses_of(schemes['random'], x, y, lot=lot)
        for name, value in said[lot % 2].items(): assert now[name] == pytest.approx(value, rel=1e-5)


def losses_of(scheme, *batch, **more): return {name: v.item() for name, v in scheme(*batch, **more)[0].items()}


def test_each_learns_only_with_its_teacher_and_the_pairs_are_told(data):
    scheme = taught('random', 'fitnet', [resnet(14, width=2), resnet(8, width=3)])
    assert list(scheme.adapters) == ['fitnet', 'fitnet_of_2'] and len(scheme.pairs[1]) == 2
    made = [repr(scheme.adapters_of('fitnet', k)) for k in (0, 1)]
    assert 'Conv2d(32, 64' in made[0] and 'Conv2d(32, 96' in made[1]
    assert scheme.describe()['terms']['fitnet']['adapters'].count('Conv2d') == 2
    sum(scheme(*data.one_batch(), lot=1)[0].values()).backward()
    grads = [any(p.grad is not None for p in scheme.adapters_of('fitnet', k).parameters()) for k in (0, 1)]
    assert grads == [False, True]
    with pytest.raises(ValueError, match="in teacher 2, unknown tap 'stages.0.1.act2'"):
        taught('losses', "at(taps={1: 'stages.0.1.act2'})", [resnet(14), resnet(8)])


def test_teachers_with_other_classes_teach_by_features_and_no_logits(data):
    teachers = [resnet(8), resnet(8, 7)]
    assert Learner(taught('losses', 'at', teachers), data, cbs=None).fit(1).result
    for method in ('kd', 'kd+at'):
        with pytest.raises(ValueError, match='the student has 10 classes and the teacher 7'):
            Learner(taught('losses', method, teachers), data, cbs=None)


@pytest.mark.parametrize('how', ['losses', 'random'])
@pytest.mark.parametrize('method', ['fitnet', 'crd(k=20)'])
def test_features_resumed_bit_for_bit(how, method, data, tmp_path, monkeypatch):
    resumed(how, data, tmp_path, monkeypatch, method)


@pytest.mark.parametrize('how', HOW)
def test_resumed_bit_for_bit_identified_and_copied(how, data, tmp_path, monkeypatch):
    whole, again = resumed(how, data, tmp_path, monkeypatch)
    assert 'from resnet8 and resnet14' in repr(again)
    assert all(p.grad is None for p in again.scheme.teacher.model.parameters())
    other = taught('losses' if how != 'losses' else 'random')
    with pytest.raises(ValueError, match='combine'): Learner(other, data, run=tmp_path/'run', cbs=None).fit(2)
    with seeded(1): teachers = [resnet(14), resnet(8)]
    with pytest.raises(ValueError, match='teacher'):
        Learner(taught(how, teachers=teachers), data, run=tmp_path/'run', cbs=None).fit(2)


def resumed(how, data, tmp_path, monkeypatch, method='kd'):
    "A whole training, and one that was broken off after an epoch and went on; they end alike."
    import kdnb.train.loop as loop
    plain, seen = loop.close_epoch, []

    def close(learn, trained):
        plain(learn, trained)
        seen.append(1)
        if len(seen) == 1: raise KeyboardInterrupt

    whole = Learner(copy.deepcopy(taught(how, method)), data, cbs=None).fit(2)
    monkeypatch.setattr(loop, 'close_epoch', close)
    with pytest.raises(KeyboardInterrupt): Learner(taught(how, method), data, run=tmp_path/'run', cbs=None).fit(2)
    monkeypatch.undo()
    again = Learner(taught(how, method), data, run=tmp_path/'run', cbs=None).fit(2)
    assert torch.equal(weights(whole), weights(again))
    for a, b in zip(whole.scheme.state_dict().values(), again.scheme.state_dict().values(), strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))
    return whole, again


def test_a_group_draws_the_same_teacher_as_each_alone(data):
    alone = [Learner(taught(how), data, cbs=None).fit(1) for how in ('losses', 'random')]
    group = fit_together([Learner(taught(how), data, cbs=None) for how in ('losses', 'random')], 1, cbs=None)
    for a, b in zip(alone, group): assert torch.equal(weights(a), weights(b))


def test_the_mean_is_remembered_and_nothing_else(data, tmp_path):
    with seeded(1): teachers = [resnet(8), resnet(14)]
    known = remember(teachers, data, views=1, root=tmp_path)
    x, _, more = next(known.recall(data.train, 0, 0))
    mean = sum(t(x) for t in teachers)/2
    assert (more['taught'][0] - mean).abs().max() < 1e-2
    assert Learner(Distill(resnet(8), known, 'kd'), data, cbs=None).fit(1).result
    with pytest.raises(ValueError, match="the mean of the teachers' logits is what is remembered: leave combine="):
        Distill(resnet(8), known, 'kd', combine='random')


def test_mistakes_are_one_sentence_before_training(data):
    with pytest.raises(TypeError, match='the teachers have 10 and 7 classes: take teachers for the same ones'):
        taught(teachers=[resnet(8), resnet(8, 7)])(*data.one_batch())
    for how in HOW:
        with pytest.raises(ValueError, match='the student has 10 classes and the teacher 7'):
            Learner(taught(how, teachers=[resnet(8), resnet(8, 7)]), data, cbs=None)
    with pytest.raises(ValueError, match='wkd reads places inside a teacher'):      # the classifier of one
        taught(method='wkd')
    with pytest.raises(ValueError, match="at reads places inside a teacher, and the mean of several teachers' logits"):
        taught(method='kd+at')
    with pytest.raises(ValueError, match="combine='losses' is for several teachers: give a list of them"):
        taught('losses', teachers=resnet(8))
    with pytest.raises(ValueError, match='did you mean logits'): taught('logit')
    with pytest.raises(ValueError, match='several teachers are two or more, not 1'): taught(teachers=[resnet(8)])
    data_1 = load_data('digits', size=8, n_train=40, bs=20, valid=0, split_seed=1, device='cpu')
    other = Learner(resnet(8), data_1, cbs=None).fit(1)
    with pytest.raises(ValueError, match='the teacher was trained with split_seed=1, this data has 0'):
        Learner(taught(teachers=[resnet(14), other]), data, cbs=None)


def test_each_teacher_has_its_own_images():
    half = Frozen(resnet(8), prepare=lambda x: x/2)
    whole = Frozen(resnet(14))
    x = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(Frozen([half, whole])(x)[0], (half(x)[0] + whole(x)[0])/2)
    assert isinstance(Frozen([half, whole]).model, Ensemble)
    pulls = weigh(taught('losses', teachers=[half, whole]), (x, torch.arange(4)))
    assert [row['term'] for row in pulls] == ['ce', 'kd']
