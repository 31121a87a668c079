"""The further methods on logits in a run: they go on exactly, two of them train or change something of their own."""
import pytest
import torch

from kdnb.data import load_data
from kdnb.methods import WKD, LearntTemperature
from kdnb.models import resnet
from kdnb.schemes import Distill
from kdnb.seeds import seeded
from kdnb.train import Callback, Learner

NEW = 'nkd', 'rld', 'wkd', 'ctkd', 'mlkd', 'hard', 'wttm(45, T=10, weighted=False)', 'dkd(standardize=True)'


@pytest.fixture(scope='module')
def data(): return load_data('digits', size=8, n_train=100, bs=20, device='cpu')


def learner(data, method, run=None, cbs=None):
    with seeded(0): return Learner(Distill(resnet(8), resnet(14), method, size=8), data, run=run, cbs=cbs)


class Break(Callback):
    def after_epoch(self, learn):
        if learn.epoch == 1: raise KeyboardInterrupt


@pytest.mark.parametrize('method', NEW)
def test_a_run_goes_on_exactly(data, method, tmp_path):
    whole = learner(data, method).fit(2)
    with pytest.raises(KeyboardInterrupt): learner(data, method, tmp_path/'run', [Break()]).fit(2)
    again = learner(data, method, tmp_path/'run').fit(2)
    one, other = whole.scheme.state_dict(), again.scheme.state_dict()
    assert [k for k in one if not torch.equal(one[k], other[k])] == []


@pytest.mark.parametrize('method', [*NEW, 'crd', 'crd(bank=False)'])
def test_ten_steps_on_one_batch_fall(data, method):
    learn = learner(data, method)
    x, y, *beside = next(learn.train.epoch(0, 0))
    opt = torch.optim.SGD(learn.student.parameters(), 1e-3)
    learn.scheme.begin_epoch(20, 240)
    learn.scheme.eval()                                         # batch statistics and banks stay as they are
    values = []
    for _ in range(10):
        with seeded(0): loss = sum(learn.scheme(x, y, **dict(*beside))[0].values())
        opt.zero_grad()
        loss.backward()
        opt.step()
        values.append(loss.item())
    assert values == sorted(values, reverse=True) and values[-1] < values[0]


def test_the_temperature_is_trained_against_the_student(data):
    learn = learner(data, 'ctkd').fit(2)
    learnt = learn.scheme.adapters['ctkd']
    assert isinstance(learnt, LearntTemperature) and learnt.number.item() != 1 and learnt.share == 1
    assert 'number' not in learn.student.state_dict()


def test_the_distance_falls_at_the_end_of_a_run(data):
    scheme = learner(data, 'wkd').scheme
    gammas = []
    for epoch in (0, 149, 194, 239):
        scheme.begin_epoch(epoch, 240)
        gammas.append(scheme.method[-1].now.item())
    assert gammas == pytest.approx([600, 600, 300, 0], abs=1e-3)


def test_a_teacher_without_a_linear_classifier_is_told_before_training():
    teacher = torch.nn.Sequential(torch.nn.Conv2d(3, 10, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    with pytest.raises(ValueError, match='WKD needs a linear classifier, and the teacher .Sequential. has none'):
        Distill(resnet(8), teacher, 'wkd')


def test_options_out_of_range_are_told():
    for make in (lambda: WKD(start=1.5), lambda: WKD(T=0), lambda: WKD(gamma=-1)):
        with pytest.raises(ValueError): make()
