"Weights and images that are the same on every machine: numpy's legacy generator, whose numbers do not change."
import numpy as np
import torch
from torch import Tensor, nn

CLASSES = 100
IMAGES = 9


def numbers(seed: int, *shape: int) -> Tensor:
    "Normal numbers of a seed."
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape)).float()


def fill(net: nn.Module, seed: int) -> nn.Module:
    "Give a module weights, biases and running statistics, in the order of its entries."
    for i, (name, v) in enumerate(net.state_dict().items()):
        if not v.is_floating_point():
            continue
        x = numbers(1000*seed + i, *v.shape)
        if v.ndim > 1:
            x *= (2/v[0].numel())**.5
        elif name.endswith('running_var'):
            x = .5 + x.abs()
        else:
            x = .2*x + name.endswith('weight')
        v.copy_(x)
    return net


def settle(net: nn.Module, x: Tensor) -> nn.Module:
    "Give all BatchNorms the statistics of these images, so that no net of random weights dies out or grows; eval mode."
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.reset_running_stats()
            m.momentum = None
    with torch.no_grad():
        net.train()(x)
    return net.eval()


def images() -> tuple[Tensor, Tensor]:
    "Images and their labels."
    return numbers(7, IMAGES, 3, 32, 32), torch.arange(IMAGES)*7 % CLASSES


def our_nets(pair: tuple[str, str], make) -> tuple[nn.Module, nn.Module]:
    "The teacher and the student of a pair; `make` is kdnb's create_model."
    x, _ = images()
    teacher, student = (settle(fill(make(name, CLASSES), seed), x) for seed, name in enumerate(pair, 1))
    return teacher, student


def unit(seed: int, *shape: int) -> Tensor:
    "Rows of length 1."
    return nn.functional.normalize(numbers(seed, *shape))


def logits_case() -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor], Tensor]:
    "Logits of student and teacher, labels (the teacher knows half of them), logits of a second view, a classifier."
    y = torch.arange(12)*3 % 10
    t, t2 = 2*numbers(42, 12, 10), 2*numbers(44, 12, 10)
    t[::2] += 3*torch.eye(10)[y[::2]]
    return 2*numbers(41, 12, 10), t, y, (2*numbers(43, 12, 10), t2), numbers(45, 10, 6)
