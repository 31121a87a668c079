"A patient and consistent teacher: recipe and weights `funmatch`, on made-up images."

import pytest
import torch

from kdnb.data import Data
from kdnb.models import resnet, weights_hash
from kdnb.schemes import Distill
from kdnb.seeds import seeded
from kdnb.train import Callback, Learner

class Kill(Callback):
    "Plays a process that ends in the second epoch."
    def after_batch(self, learn):
        if learn.epoch == 1 and len(learn.tally.steps) == 2: raise SystemError('killed')


@pytest.fixture(scope='module')
def made_up():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randint(0, 256, (60, 3, 12, 12), dtype=torch.uint8, generator=g), torch.arange(60) % 5
    return Data((x, y), (x[:20], y[:20]), (x[:30], y[:30]), range(5), bs=15, device='cpu')


def learner(data, cbs=None, **how):
    with seeded(0): student, teacher = resnet(8, 5), resnet(14, 5)
    scheme = Distill(student, teacher, 'kd', weights='funmatch')
    return Learner(scheme, data, recipe='funmatch', cbs=cbs, **how)


def test_both_models_see_the_same_mixed_image_and_no_label(made_up):
    learn, seen = learner(made_up), dict(student=[], teacher=[])
    for who, model in (('student', learn.student), ('teacher', learn.scheme.teacher.model)):
        model.register_forward_pre_hook(lambda m, x, who=who: seen[who].append(x[0].clone()))
    x, y = next(iter(learn.mixing.batches(learn.train.epoch(0, 0), learn.train, 5, 0, 0)))[:2]
    learn.scheme.begin_epoch(0, 2)
    losses, _ = learn.scheme.train()(x, y)
    assert torch.equal(seen['student'][0], x) and torch.equal(seen['teacher'][0], x)
    plain = next(iter(learn.train.epoch(0, 0)))
    assert not torch.allclose(x, plain[0]), 'two images are mixed'
    assert y.shape == (15, 5) and torch.allclose(y.sum(1), torch.ones(15))
    other, _ = learn.scheme(x, y.roll(1, 1))
    assert losses['ce'] == 0 and losses['kd'] == other['kd'] > 0, 'labels count for nothing'


def test_two_epochs_go_on_bit_for_bit(made_up, tmp_path):
    whole = learner(made_up).fit(2)
    with pytest.raises(SystemError): learner(made_up, run=tmp_path/'run', cbs=[Kill()]).fit(2)
    cut = learner(made_up, run=tmp_path/'run').fit(2)
    assert [r['kd'] for r in whole.history] == [r['kd'] for r in cut.history]
    assert weights_hash(whole.student) == weights_hash(cut.student) and whole.history[1]['kd'] < whole.history[0]['kd']
    assert cut.reduced.startswith('REDUCED: 2 of 1200 epochs')
