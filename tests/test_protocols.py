"What the sources compute, beside `test_reference.py`: defaults, first weights, and the mode that a teacher is read in."
import copy

import pytest
import torch
import torch.nn.functional as F

from kdnb.all import Distill, JointRD, parse_method, plainnet, reducenet, resnet
from kdnb.methods import connector
from kdnb.models import num_params
from kdnb.schemes import parse_scheme
from kdnb.systems import find_preset
from kdnb.taps import Tapped

@pytest.mark.parametrize('weights', [None, 'crd', 'paper'])
def test_dist_weighs_2_beside_the_labels(weights):
    assert repr(parse_method('dist', weights)) == 'CE(1) + DIST(2, beta=1, gamma=1, T=4)'


@pytest.mark.parametrize('word', ['fitnet', 'at', 'nst', 'sp', 'rkd', 'pkt', 'ofd', 'review'])
def test_each_feature_method_takes_a_reading(word):
    "One word, or the student's and the teacher's; what is shown can be typed."
    for reading in 'sum', ['sum', 'pre']:
        method = parse_method(f'{word}(taps=1, reading={reading!r})')
        assert method[-1].reading == reading
        assert repr(parse_method(repr(method))) == repr(method)
    assert Distill(resnet(8), resnet(14), f"{word}(taps=1, reading=['post', 'sum'])", size=32).pairs[-1] == [
        ('stages.0.0.act2', 'stages.0.1.add')]
    for wrong in "'pst'", "['post']", "['post', 'pst']":
        with pytest.raises(ValueError, match='reading'):
            parse_method(f'{word}(reading={wrong})')


def test_reviewkd_has_the_pooled_level_and_the_teacher_before_the_activation():
    "The number of parameters is what mdistiller prints for this pair."
    nets = resnet(20, 100), resnet(56, 100)
    usual, by_hand = (Distill(*nets, words, size=32) for words in ('review', "review(taps=[1, 2, 3, 'embedding'])"))
    assert usual.pairs == by_hand.pairs
    assert usual.pairs[-1] == [
        ('stages.0.2.act2', 'stages.0.8.add'), ('stages.1.2.act2', 'stages.1.8.add'),
        ('stages.2.2.act2', 'stages.2.8.add'), ('embedding', 'embedding')]
    assert num_params(usual.adapters) == 114_278
    losses, _ = usual(torch.randn(4, 3, 32, 32), torch.arange(4))
    losses['review'].backward()
    assert all(p.grad is not None for p in usual.adapters.parameters())


def test_connectors_begin_as_their_authors_do():
    torch.manual_seed(0)
    conv, bn = connector(torch.rand(2, 32, 4, 4), torch.rand(2, 512, 4, 4))
    assert conv.weight.std().item() == pytest.approx((2/512)**.5, rel=.03)
    assert conv.weight.abs().max() > 3*(2/512)**.5, 'a normal distribution, and no uniform one'
    assert bn.weight.eq(1).all() and bn.bias.eq(0).all()
    joint = JointRD(plainnet(20), resnet(14), size=32)
    assert all(c[0].weight.std().item() == pytest.approx((2/64)**.5, rel=.06) for c in joint.connectors)


def test_reducenet_begins_as_torch_does():
    for name, p in reducenet(20).named_parameters():
        if p.ndim == 4:
            assert p.abs().max() <= p[0].numel()**-.5, name


def test_reducenet_weighs_kd_by_the_number_of_classes():
    "Their .7 T^2 times a mean over images and classes."
    s, t = torch.randn(2, 8, 100)
    theirs = .7*5**2*F.kl_div((s/5).log_softmax(1), (t/5).softmax(1), reduction='sum')/(8*100)
    kd = parse_method(find_preset('reducenet-cifar100').methods['kd'])[1]
    assert (kd.weight*kd(s, t, None)).item() == pytest.approx(theirs.item(), rel=1e-4)


def test_a_teacher_that_learns_is_read_in_train_mode():
    teacher, x, y = resnet(14), torch.randn(8, 3, 32, 32), torch.arange(8)
    twin = copy.deepcopy(teacher)
    both = JointRD(plainnet(20), teacher, train_teacher=True, size=32)
    z, features = Tapped(twin.train(), [both.last])(x)
    losses, _ = both(x, y)
    student = Tapped(copy.deepcopy(both.student), [both.pairs[-1][0]])(x)[1][both.pairs[-1][0]]
    expected = both.weight*both.ofd([copy.deepcopy(both.connectors[-1])(student)], [features[both.last]], y)/3
    assert losses['ofd'].item() == pytest.approx(expected.item(), rel=1e-3)
    assert losses['teacher_ce'].item() == pytest.approx(F.cross_entropy(z, y).item(), rel=1e-5)
    losses['ofd'].backward()
    assert all(p.grad is None for p in teacher.parameters()), 'its feature takes no gradient'
    assert all(torch.equal(a, b) for a, b in zip(teacher.buffers(), twin.buffers(), strict=True)), 'noted once'


def test_the_way_in_which_a_teacher_is_read_belongs_to_a_run():
    "A run that read it in eval mode, as before, is another run."
    made, options = parse_scheme('jointrd(train_teacher=True)')
    assert made(plainnet(8), resnet(8), size=32, **options).describe()['teacher_features'] == 'in train mode'
    assert 'teacher_features' not in JointRD(plainnet(8), resnet(8), size=32).describe()


def test_at_of_distillation_keeps_the_right_formula_and_says_so():
    source = find_preset('cifar100-wrn').published[0]
    assert source.scores['at'][0] == 73.1 and 'its AT divides each map by the norms of all images' in source.note
    torch.manual_seed(0)
    s, t = torch.randn(2, 9, 4, 6, 6)

    def unit(f):
        f = f.sum(1).flatten(1)
        return f/f.norm(dim=1, keepdim=True)

    at = parse_method('at', 'distillation')[1]
    assert at([s], [t], None).item() == pytest.approx((unit(s) - unit(t)).pow(2).mean().item(), rel=1e-4)
