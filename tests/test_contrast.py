"""CRD in a run: its bank goes on exactly, costs little, learns from the numbers of the images, and is never shipped."""
import time

import pytest
import torch

from kdnb.data import load_data
from kdnb.methods import CRD, Contrast
from kdnb.models import create_model, resnet
from kdnb.schemes import Distill, weigh
from kdnb.seeds import seeded
from kdnb.train import Callback, Learner

@pytest.fixture(scope='module')
def data(): return load_data('digits', size=8, n_train=100, bs=20, device='cpu')


@pytest.fixture(scope='module')
def teacher(): return resnet(14)


def learner(data, teacher, method='wttm+crd(k=50)', run=None, cbs=None):
    with seeded(0): return Learner(Distill(resnet(8), teacher, method, size=8), data, run=run, cbs=cbs)


class Break(Callback):
    def after_epoch(self, learn):
        if learn.epoch == 2: raise KeyboardInterrupt


def test_a_run_goes_on_with_its_bank(data, teacher, tmp_path):
    whole = learner(data, teacher).fit(3)
    with pytest.raises(KeyboardInterrupt): learner(data, teacher, run=tmp_path/'run', cbs=[Break()]).fit(3)
    again = learner(data, teacher, run=tmp_path/'run').fit(3)
    one, other = whole.scheme.state_dict(), again.scheme.state_dict()
    assert [k for k in one if not torch.equal(one[k], other[k])] == []
    rows = [k for k in one if k.endswith(('students', 'teachers'))]
    assert len(rows) == 2 and all(one[k].shape == (100, 128) for k in rows)
    assert {*again.student.state_dict()} == {*resnet(8).state_dict()}


def test_both_projections_are_trained_and_every_image_is_written(data, teacher):
    learn = learner(data, teacher)
    contrast = learn.scheme.adapters['crd'][0]
    before = {k: v.clone() for k, v in contrast.state_dict().items()}
    learn.fit(1)
    for name, v in contrast.state_dict().items():
        changed = (v != before[name]).flatten(1).any(1) if v.ndim > 1 else v != before[name]
        assert changed.all(), name


def test_no_hidden_state_is_left_by_weighing(data, teacher):
    learn = learner(data, teacher).fit(1)
    contrast = learn.scheme.adapters['crd'][0]
    before = contrast.students.clone()
    assert weigh(learn.scheme, next(learn.train.epoch(0, 0)))[-1]['gradient'] > 0
    assert contrast.students.equal(before)


def test_bad_input_is_told_before_training(data, teacher):
    with pytest.raises(ValueError, match='k of negatives must be a number from 1 up'): CRD(k=0)
    with pytest.raises(ValueError, match='asks for the index of each image'):
        Distill(resnet(8), teacher, 'crd', size=8)(torch.rand(4, 3, 8, 8), torch.arange(4))
    with pytest.raises(ValueError, match='two classes or more'): Contrast(4, 4).hold(torch.zeros(9, dtype=torch.long))


def test_within_a_batch_it_needs_no_numbers(data, teacher):
    scheme = Distill(resnet(8), teacher, 'crd(bank=False)', size=8)
    assert scheme.asks == () and scheme.method[-1].batchwise
    losses, _ = scheme(torch.rand(6, 3, 8, 8), torch.arange(6) % 3)
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in scheme.adapters.parameters())


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_features_give_float32_losses(dtype):
    contrast = Contrast(6, 10, k=64).hold(torch.arange(40) % 4)
    s, t = torch.randn(8, 6), torch.randn(8, 10)
    y = torch.arange(8) % 4
    for loss in (lambda s, t: contrast(s, t, torch.arange(8)), lambda s, t: contrast.in_batch(s, t, y)):
        with torch.autocast('cpu', dtype), seeded(0): half = loss(s.to(dtype), t.to(dtype))
        contrast.Z.zero_()
        contrast.hold(torch.arange(40) % 4)
        with seeded(0): full = loss(s, t)
        assert half.dtype == torch.float32 and half.item() == pytest.approx(full.item(), rel=2e-2)


@pytest.mark.slow
def test_a_bank_of_50000_costs_less_than_a_tenth_of_a_step():
    """Time a step of resnet32x4 to resnet8x4 with 64 images, and CRD with all that it does, its backward pass too."""
    with seeded(0): student, teacher = create_model('resnet8x4', 100), create_model('resnet32x4', 100)
    scheme = Distill(student, teacher, 'kd', size=32).train()
    x, y, index = torch.rand(64, 3, 32, 32), torch.arange(64), torch.randint(50_000, (64,))
    contrast = Contrast(64, 64).hold(torch.arange(50_000) % 100).train()
    s, t = torch.randn(64, 64, requires_grad=True), torch.randn(64, 64)

    def seconds(work):
        times = []
        for _ in range(3):
            start = time.process_time()
            work()
            times.append(time.process_time() - start)
        return min(times)

    step = seconds(lambda: sum(scheme(x, y)[0].values()).backward())
    bank = seconds(lambda: contrast(s, t, index).backward())
    assert bank < .1*step, f'{bank:.3f} s of {step:.3f} s'
