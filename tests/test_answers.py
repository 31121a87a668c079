"What a model answers: student and teacher pass one check, in eval and in train mode."
from collections import OrderedDict
from typing import NamedTuple

import pytest
import torch
import torchvision.models as tvm
from torch import Tensor, nn

from kdnb.all import Alone, Data, Distill, Frozen, JointRD, Learner, Online, load_data, plainnet, predict, resnet
from kdnb.schemes import ask_logits

class Output(OrderedDict):
    "As transformers' outputs: a dict whose entries are attributes too."
    def __getattr__(self, name):
        if name in self: return self[name]
        raise AttributeError(name)


class Pair(NamedTuple):
    logits: Tensor
    aux: Tensor


class Says(nn.Module):
    "A net that puts its answer into something, in eval or in train mode or in both."
    def __init__(self, kind, modes=(False, True), depth=8):
        super().__init__()
        self.net, self.kind, self.modes = resnet(depth), kind, modes

    def forward(self, x):
        z = self.net(x)
        return self.kind(z) if self.training in self.modes else z


UNDERSTOOD = {
    'output': lambda z: Output(logits=z),
    'dict': lambda z: {'logits': z},
    'only': lambda z: {'out': z},
    'several': lambda z: {'aux': z/2, 'logits': z},
    'named': lambda z: Pair(z, z/2),
}
NOT_UNDERSTOOD = {
    'tuple': (lambda z: (z, z), 'a tuple'),
    'list': (lambda z: [z], 'a list'),
    'none': (lambda z: None, 'a NoneType'),
    'unnamed': (lambda z: {'out': z, 'aux': z}, 'a dict'),
    'maps': (lambda z: z[..., None, None], r'a tensor of shape \(\d, 10, 1, 1\)'),
}


@pytest.fixture(scope='module')
def digits(): return load_data('digits', size=8, n_train=60, bs=20, device='cpu')


@pytest.mark.parametrize('kind', UNDERSTOOD)
@pytest.mark.filterwarnings('ignore')
def test_an_answer_with_logits_learns_and_teaches(kind, digits):
    def net(**k): return Says(UNDERSTOOD[kind], **k)

    plain = Learner(Alone(resnet(8)), digits, cbs=None)
    said = Learner(net(), digits, cbs=None)
    said.student.net.load_state_dict(plain.student.state_dict())
    x, y = digits.examples(8, 'train')
    assert torch.equal(plain.scheme.eval()(x, y)[0]['ce'], said.scheme.eval()(x, y)[0]['ce'])
    assert torch.equal(predict(said.student, digits.test)[0], predict(plain.student, digits.test)[0])
    for model in (Distill(net(), net(depth=14), 'kd+rkd'), Distill(resnet(8), net(), 'kd'),
                  Online([net(), resnet(8)], teacher='peers')):
        learn = Learner(model, digits, cbs=None).fit(1)
        assert learn.result['last']['test_acc'] >= 0


@pytest.mark.parametrize('kind', NOT_UNDERSTOOD)
@pytest.mark.filterwarnings('ignore')
def test_what_is_not_understood_gets_one_sentence_on_both_sides(kind, digits):
    make, what = NOT_UNDERSTOOD[kind]
    told = what + r', not logits \(B, C\): wrap it in a module that returns the logits alone$'
    for scheme, who in (
        (Alone(Says(make)), 'the student'),
        (Distill(Says(make), resnet(8), 'kd'), 'the student'),
        (Distill(resnet(8), Says(make), 'kd'), 'the teacher'),
        (JointRD(plainnet(8), Says(make), weight=0), None),
        (Online([Says(make), resnet(8)], teacher='peers'), None)):
        with pytest.raises((TypeError, ValueError), match=f'^{who} returns {told}' if who else None):
            Learner(scheme, digits, cbs=None)
    for scheme in Alone(Says(make, [True])), Distill(Says(make, [True]), resnet(8), 'kd'):
        with pytest.raises(TypeError, match=f'^in train mode the student returns {told}'):
            Learner(scheme, digits, cbs=None)
    Learner(Distill(resnet(8), Says(make, [True]), 'kd'), digits, cbs=None)     # a teacher is never in train mode


def test_the_check_leaves_a_model_and_the_random_numbers_as_they_were(digits):
    model = nn.Sequential(nn.Dropout(0.5), resnet(8))
    model[1].stages.eval()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    modes, random = [m.training for m in model.modules()], torch.get_rng_state()
    ask_logits('the student', model, digits.examples(2)[0], learns=True)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes and torch.equal(torch.get_rng_state(), random)


def some(size):
    x, y = torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8), torch.arange(4)
    return Data((x, y), None, (x, y), [str(i) for i in range(10)], bs=4)


@pytest.mark.parametrize('name, size', [('googlenet', 64), ('inception_v3', 299)])
def test_auxiliary_heads_are_understood_and_said_once(name, size, capsys):
    def build(): return getattr(tvm, name)(num_classes=10, aux_logits=True, init_weights=False)

    data = some(size)
    learn = Learner(build(), data, amp='off', cbs=None)
    told = capsys.readouterr().out
    assert told.count('beside its logits in training') == 1 and 'aux_logits=False' in told and 'aux' in told
    if size > 100: return                                       # slow, and like the other one
    assert learn.fit(1).result
    learn = Learner(Distill(build(), resnet(8), 'kd+rkd'), data, amp='off', cbs=None).fit(1)
    assert learn.result and capsys.readouterr().out.count('beside its logits') == 1
    Learner(Distill(resnet(8), Frozen(build()), 'kd'), data, cbs=None)
    assert 'beside its logits' not in capsys.readouterr().out                    # a teacher is in eval mode
