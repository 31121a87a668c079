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


def weights(learn): return torch.cat([p.detach().flatten() for p in learn.student.parameters()])


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


@pytest.mark.parametrize('how', HOW)
def test_resumed_bit_for_bit_identified_and_copied(how, data, tmp_path, monkeypatch):
    import kdnb.train.loop as loop
    plain, seen = loop.close_epoch, []

    def close(learn, trained):
        plain(learn, trained)
        seen.append(1)
        if len(seen) == 1: raise KeyboardInterrupt

    whole = Learner(copy.deepcopy(taught(how)), data, cbs=None).fit(2)
    monkeypatch.setattr(loop, 'close_epoch', close)
    with pytest.raises(KeyboardInterrupt): Learner(taught(how), data, run=tmp_path/'run', cbs=None).fit(2)
    monkeypatch.undo()
    again = Learner(taught(how), data, run=tmp_path/'run', cbs=None).fit(2)
    assert torch.equal(weights(whole), weights(again)) and 'from resnet8 and resnet14' in repr(again)
    assert all(p.grad is None for p in again.scheme.teacher.model.parameters())
    other = taught('losses' if how != 'losses' else 'random')
    with pytest.raises(ValueError, match='combine'): Learner(other, data, run=tmp_path/'run', cbs=None).fit(2)
    with seeded(1): teachers = [resnet(14), resnet(8)]
    with pytest.raises(ValueError, match='teacher'):
        Learner(taught(how, teachers=teachers), data, run=tmp_path/'run', cbs=None).fit(2)


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
    with pytest.raises(ValueError, match='at reads places inside a teacher, and of several teachers the logits alone'):
        taught(method='kd+at')
    with pytest.raises(ValueError, match="combine='losses' is for several teachers: give a list of them"):
        taught('losses', teachers=resnet(8))
    with pytest.raises(ValueError, match='did you mean logits'): taught('logit')
    with pytest.raises(ValueError, match='several teachers are two or more, not 1'): taught(teachers=[resnet(8)])
    data_1 = load_data('digits', size=8, n_train=40, valid=0, split_seed=1, device='cpu')
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
