"""Trust in the GPU path without a card: whole epochs on fake tensors of 'cuda', which have a device, a shape, a format
and no values. A tensor that stayed on the CPU is an error there, and so is a value that the host waits for.

What fake tensors cannot do: torch's engine asks the driver before a backward pass on 'cuda'. There gradients are made
up, and the same steps run once more on 'meta', a device without a driver, with the real backward pass (in float32:
'meta' has no autocast). torch has no fake form of its fused optimiser, so SGD is the one of many kernels. A copy from
the CPU, such as that of drawn windows, is no error. Numbers, time and memory need a card: `make gpu`.
"""
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from kdnb.all import Alone, Data, Distill, Learner, Recipe, plainnet, resnet
from kdnb.data import ImageReader, ImageTensors, Mixing
from kdnb.measure import predict, score
from kdnb.methods import known_methods
from kdnb.schemes import Scheme, known_schemes
from kdnb.train import DOT, take_steps

METHODS = sorted({make: name for name, make in reversed(known_methods.items())}.values())
SCHEMES = dict.fromkeys(['alone', *known_schemes])


class Carrier:
    "Makes fake tensors on a device, each once: what is shared stays shared."
    def __init__(self, device: str):
        self.device, self.there, self.kept = device, {}, []

    def one(self, t: object) -> object:
        "The same tensor there; anything else as it is."
        if not isinstance(t, Tensor): return t
        if id(t) not in self.there:
            fake = torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=self.device)
            fake = nn.Parameter(fake, t.requires_grad) if isinstance(t, nn.Parameter) else fake
            self.there |= {id(t): fake, id(fake): fake}
            self.kept.append(t)                                 # or its id would be another's
        return self.there[id(t)]

    def apply(self, module: nn.Module, fn: object, recurse: bool = True) -> nn.Module:
        "What `Module._apply` does for `.to()`, which cannot swap fake parameters that two modules share."
        for child in module.children():
            child._apply(fn)
        for held in (module._parameters, module._buffers):
            held.update({name: self.one(t) for name, t in held.items()})
        return module

    def carry(self, learn: Learner) -> Learner:
        "A learner with its images and a new optimiser."
        learn.scheme.to(self.device)
        for split in {id(s): s for s in (learn.train, learn.data.train, learn.data.test)}.values():
            vars(split).update({name: self.one(v) for name, v in vars(split).items()})
        learn.data.device = torch.device(self.device)
        make = learn.own['opt'] or partial(torch.optim.SGD, lr=.1, momentum=.9, foreach=True)
        learn.opt = make(learn.scheme.param_groups(1e-4))
        learn.sched = torch.optim.lr_scheduler.MultiStepLR(learn.opt, [1])
        learn.scaler = torch.amp.GradScaler('cpu', enabled=False)
        return learn


def made_up(loss: Tensor, of: Tensor | list[Tensor], **more: object) -> list[Tensor]:
    "In place of `torch.autograd.grad`."
    return [torch.empty_like(x) for x in ([of] if isinstance(of, Tensor) else of)]


@contextmanager
def fakes(device: str) -> Iterator[Carrier]:
    "Inside, all tensors are fake, and the driver is not asked."
    carrier = Carrier(device)
    def apply(module, fn, recurse=True): return carrier.apply(module, fn)
    def backward(loss, **more):
        for p in (t for t in carrier.there.values() if isinstance(t, nn.Parameter) and t.requires_grad):
            p.grad = torch.empty_like(p)
    cuda = [patch('torch.cuda.amp.common.amp_definitely_not_available', lambda: False),
            patch('torch.cuda.is_bf16_supported', lambda **more: True),
            patch('torch.cuda.get_rng_state', lambda device: None),
            patch('torch.cuda.set_rng_state', lambda *args: None),
            patch('torch.autograd.grad', made_up), patch.object(Tensor, 'backward', backward)]
    meta = [patch('torch.autocast', lambda *args, **more: nullcontext())]
    with ExitStack() as stack:
        for each in (patch.object(nn.Module, '_apply', apply), *(cuda if device == 'cuda' else meta)):
            stack.enter_context(each)
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield carrier


def noise(augment: str | None = 'crop_flip+cutout') -> Data:
    "One batch an epoch."
    split = torch.randint(256, (8, 3, 16, 16), dtype=torch.uint8), torch.arange(8) % 4
    return Data(split, None, split, [*'abcd'], bs=8, augment=augment, device='cpu')


def train(scheme: Scheme, device: str, data: Data | None = None, **how) -> Learner:
    "One epoch on a device."
    learn = Learner(scheme, data or noise(), amp='bf16', cbs=None, **how)
    with fakes(device) as carrier:
        carrier.carry(learn)
        learn.scheme.begin_epoch(0, 1)
        learn.scheme.now = dict.fromkeys(learn.scheme.now, torch.ones((), device=device))       # no loss is left out
        take_steps(learn)
        assert {t.device.type for t in (learn.tally.table(), learn.tally.hits)} == {device}
    return learn


def net(width: int) -> nn.Module:
    "Three stages of one convolution: each operation costs time, whatever its size."
    widths = 3, width, 2*width, 4*width
    stages = [nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
              for a, b in zip(widths, widths[1:])]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4*width, 4))


def pair(same: bool = False) -> tuple[nn.Module, nn.Module]:
    "Student and teacher."
    return net(8), net(8 if same else 16)


def scheme_of(name: str) -> Scheme:
    "Each scheme that there is."
    student, teacher = pair() if name != 'jointrd' else (plainnet(8, 4), resnet(8, 4))
    if name == 'alone': return Alone(student)
    make = known_schemes[name]
    return make(student, teacher) if make.taught else make([student, teacher] if make.counts else student)


@pytest.mark.parametrize('device', ['cuda', 'meta'])
@pytest.mark.parametrize('method', METHODS)
def test_methods(method, device):
    train(Distill(*pair(same=method == 'self'), method), device)


@pytest.mark.parametrize('name', SCHEMES)
def test_schemes_and_their_scoring(name):
    train(scheme_of(name), 'meta')
    learn = train(scheme_of(name), 'cuda')
    with fakes('cuda'):
        models = {**learn.scheme.models_to_score(), 'together': learn.scheme.together()}
        for net in filter(None, models.values()):
            z, y = predict(net, learn.data.test)
            assert z.device.type == y.device.type == 'cuda'
        with pytest.raises(DataDependentOutputException):       # once a split
            score(z, y) if z.ndim == 2 else score(z[:, 0], y)


RECIPES = dict(
    smoothing=dict(smoothing=.1), mixup=dict(mixup=.8), cutmix=dict(cutmix=1.), both=dict(mixup=.8, cutmix=1.),
    erase=dict(erase=.5), clip=dict(clip=1.), ema=dict(ema=.9), accumulate=dict(accumulate=2))


@pytest.mark.parametrize('name', RECIPES)
def test_recipes(name):
    train(Distill(*pair(), 'kd'), 'cuda', recipe=Recipe(1, .1, 1e-4, **RECIPES[name]))


def test_two_gradients(): train(Distill(*pair(), 'kd'), 'cuda', opt=DOT)


@pytest.mark.parametrize('combine', ['logits', 'losses', 'random'])
def test_two_teachers(combine): train(Distill(net(8), [net(8), net(16)], 'kd', combine=combine), 'cuda')


@pytest.mark.parametrize('augment', [None, 'crop', 'crop_flip+reflect', 'resized_crop'])
def test_batches_are_made_on_the_card(augment):
    seen = []
    class Looks(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            z = self.net(x)
            seen.append((x, z))
            return z
    train(Alone(Looks(pair()[0])), 'cuda', noise(augment))
    x, z = seen[-1]
    assert x.device.type == 'cuda' and x.shape == (8, 3, 16, 16) and x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last) and z.dtype == torch.bfloat16


def test_what_images_draw_leaves_the_cards_random_numbers_alone(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, 'manual_seed_all', asked.append)            # what torch.manual_seed does beside
    data = noise(None)
    split = data.train
    Mixing(augment='trivialaugment').mix(split, 4, next(split.epoch(0, 0)), 0)
    ImageReader(ImageTensors(split.x, split.y), 16, 'resized').one(0, 5)
    assert not asked
    torch.manual_seed(0)
    assert asked == [0]


class Wrong(nn.Module):
    "A net with a fault that a CPU forgives."
    def __init__(self, fault: str):
        super().__init__()
        self.net, self.fault, self.scale = pair()[0], fault, [torch.ones(4)]

    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x)
        if self.fault == 'stays on the CPU': return z*self.scale[0]
        if self.fault == 'waits for a value' and z.max().item() > 9: return z/2
        if self.fault == 'waits for a condition' and (z > 9).any(): return z/2
        if self.fault == 'waits for a count': return z + z[z > 9].sum()
        return z


@pytest.mark.parametrize('fault, error', {
    'stays on the CPU': RuntimeError, 'waits for a value': DataDependentOutputException,
    'waits for a condition': DataDependentOutputException, 'waits for a count': DynamicOutputShapeException}.items())
def test_faults_are_found(fault, error):
    with pytest.raises(error, match='cuda:0 and cpu' if error is RuntimeError else None):
        train(Alone(Wrong(fault)), 'cuda')


def test_no_fault_is_found_in_the_same_net_without(): train(Alone(Wrong('none')), 'cuda')
