"""The plain way: a step of distillation as most people write it, which learns the same as kdnb's.

"Fast" needs something to be faster than. Here it is plain distillation as it stands in the repositories that people
copy, RepDistiller first of all. Torchvision's transforms open images one by one in two worker processes. Nets run in
float32 with channels first. The teacher is in eval mode under `no_grad`. Loss and accuracy are read in every step,
and the optimiser is `torch.optim.SGD` as it comes. None of this is a mistake: it is what one writes. The loss is that
of the 240-epoch protocol, .1 CE + .9 T² KL with T = 4, which is `kd` in kdnb.

The images are CIFAR-100's where they are on this machine, otherwise noise of the same form: no part of a step looks
at what a pixel shows, and nothing is downloaded.

We left out DALI, FFCV and torchvision's batched transforms, which the plain way could use as well. A loader without
workers would be slower still.
"""
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import count

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms

from kdnb.data import Data
from kdnb.files import data_root
from kdnb.models import create_model
from kdnb.seeds import seeded

from .timing import Way

CIFAR100_STATS = (.5071, .4867, .4408), (.2675, .2565, .2761)

def _cifar_there() -> datasets.CIFAR100 | None:
    "CIFAR-100's training images, if they are on this machine."
    try:
        return datasets.CIFAR100(str(data_root()), train=True)
    except RuntimeError:                            # torchvision's way to tell that they are missing
        return None

def _noise(n: int) -> tuple[torch.Tensor, list[int]]:
    "Images and labels of the form of CIFAR-100."
    g = torch.Generator().manual_seed(0)
    x = torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8, generator=g)
    return x, torch.randint(100, (n,), generator=g).tolist()

def bench_data(bs: int = 64, n: int = 50_000, device: str | None = None, noise: bool = False) -> Data:
    "CIFAR-100's training images, or `n` images of noise of the same form; the data's name tells which."
    files = None if noise else _cifar_there()
    if files:
        x, y = torch.from_numpy(files.data).permute(0, 3, 1, 2), files.targets
    else:
        x, y = _noise(n)
    name = 'cifar100' if files else 'noise'
    return Data((x, y), None, (x[:1], y[:1]), range(100), bs, 'crop_flip', device, name=name, stats=CIFAR100_STATS)

class _Images(Dataset):
    """Images (N, H, H, 3) uint8, one by one through a transform, as torchvision's CIFAR100 gives them."""
    def __init__(self, x, y: list[int], transform: Callable):
        self.x, self.y, self.transform = x, y, transform
    def __len__(self) -> int: return len(self.y)
    def __getitem__(self, i: int) -> tuple: return self.transform(Image.fromarray(self.x[i])), self.y[i]

def plain_loader(data: Data, workers: int = 2) -> DataLoader:
    "Batches of training images, augmented one image at a time by so many processes."
    images = data.train
    how = transforms.Compose([
        transforms.RandomCrop(data.size, padding=images.pad), transforms.RandomHorizontalFlip(),
        transforms.ToTensor(), transforms.Normalize(data.mean, data.std)])
    pixels = images.x.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return DataLoader(_Images(pixels, images.y.tolist(), how), batch_size=data.bs, shuffle=True, num_workers=workers,
                      pin_memory=data.device.type == 'cuda')

def plain_step(student: nn.Module, teacher: nn.Module, opt: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor,
               T: float = 4) -> tuple[float, float]:
    "A step of plain KD as it is usually written; returns loss and accuracy."
    z = student(x)
    with torch.no_grad():
        zt = teacher(x)
    kl = F.kl_div(F.log_softmax(z / T, 1), F.softmax(zt / T, 1), reduction='batchmean')
    loss = .1*F.cross_entropy(z, y) + .9*T**2*kl
    scores = loss.item(), 100*(z.argmax(1) == y).float().mean().item()
    opt.zero_grad()
    loss.backward()
    opt.step()
    return scores

def plain_optimiser(student: nn.Module) -> torch.optim.SGD:
    "SGD as it comes, with the settings of the 240-epoch protocol."
    return torch.optim.SGD(student.parameters(), lr=.05, momentum=.9, weight_decay=5e-4)

def named_nets(teacher: str, student: str, classes: int) -> tuple[nn.Module, nn.Module]:
    "Teacher and student, the same ones each time."
    with seeded(0):
        net = create_model(student, classes)
    with seeded(1):
        return create_model(teacher, classes), net

def batches_forever(epoch: Callable[[int], Iterable]) -> Iterator[tuple]:
    "The batches of epoch after epoch, from a function of its number."
    for n in count():
        yield from epoch(n)

class HelpedWay(Way):
    """A way whose batches come from a loader with workers.

    The workers go on while another way is timed: they would share its cores, and have batches ready when their own
    piece begins. So this way throws these batches away and takes a step before its piece, and after it waits until
    the workers have filled their queue, twice as long as that should take. While a piece is timed, workers and
    training share the cores, as they do for everybody.
    """
    batches: Iterator[tuple]
    ahead: int              # batches that wait
    making: float           # seconds to make one

    def feed(self, loader: DataLoader) -> DataLoader:
        "Take the batches of this loader, after timing how long it takes to make one."
        start = time.perf_counter()
        next(iter(DataLoader(loader.dataset, loader.batch_size)))
        self.making = time.perf_counter() - start
        self.ahead = 2*loader.num_workers
        return loader

    def ready(self) -> None:
        for _ in range(self.ahead):
            next(self.batches)
        self()

    def rest(self, seconds: float) -> None: time.sleep(4*self.making)

class PlainWay(HelpedWay):
    """Plain KD between two models, given by their names, as it is usually written."""
    def __init__(self, teacher: str, student: str, data: Data, workers: int = 2):
        taught_by, net = named_nets(teacher, student, data.num_classes)
        self.teacher, self.student = taught_by.to(data.device).eval(), net.to(data.device).train()
        self.device, self.opt = data.device, plain_optimiser(self.student)
        loader = self.feed(plain_loader(data, workers))
        self.batches = batches_forever(lambda epoch: loader)

    def __call__(self) -> tuple[float, float]:
        x, y = next(self.batches)
        return plain_step(self.student, self.teacher, self.opt, x.to(self.device), y.to(self.device))
