"""A step of distillation as most people write it, which learns the same, and how many images a second kdnb sees beside it."""

import json
import subprocess
import sys
import time
import warnings
from itertools import count
from pathlib import Path

import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms

import kdnb.train.loop
from bench.bench import piece_of, spread_of, time_rounds, waiter_for
from kdnb.data import Data
from kdnb.files import data_root
from kdnb.models import create_model
from kdnb.schemes import Distill
from kdnb.seeds import seeded
from kdnb.train import Learner, begin_fit, open_epoch, train_step


def bench_data(
    bs=64,  # images in a batch
    n=50_000,  # images of noise, where CIFAR-100 is not on this machine, or `noise`
    device=None,  # None: a CUDA GPU where there is one
    noise=False,  # although CIFAR-100 may be there
) -> Data:
    "CIFAR-100's training images, or noise of the same form; the data's name says which."
    files = None if noise else _cifar_there()
    x, y = (torch.from_numpy(files.data).permute(0, 3, 1, 2), files.targets) if files else _noise(n)
    return Data(
        (x, y),
        None,
        (x[:1], y[:1]),
        range(100),
        bs,
        'crop_flip',
        device,
        name='cifar100' if files else 'noise',
        stats=((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)))


def _cifar_there():
    try:
        return datasets.CIFAR100(data_root(), train=True)
    except RuntimeError:
        return None  # torchvision's word for missing


def _noise(n):
    g = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8, generator=g), torch.randint(
        100, (n,), generator=g
    ).tolist()


class _Images(Dataset):
    "Images (N, H, H, 3) uint8 as torchvision's CIFAR100 gives them: one by one, through a transform."

    def __init__(self, x, y, transform):
        self.x, self.y, self.transform = x, y, transform

    def __len__(self): return len(self.y)

    def __getitem__(self, i): return self.transform(Image.fromarray(self.x[i])), self.y[i]


def plain_loader(
    data,  # with its images in memory
    workers=2,  # processes
) -> DataLoader:
    "Batches of training images, augmented one image at a time."
    s = data.train
    how = transforms.Compose(
        [
            transforms.RandomCrop(data.size, padding=s.pad),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(data.mean, data.std)])
    images = _Images(s.x.permute(0, 2, 3, 1).contiguous().cpu().numpy(), s.y.tolist(), how)
    return DataLoader(
        images, batch_size=data.bs, shuffle=True, num_workers=workers, pin_memory=data.device.type == 'cuda')


def plain_step(
    student,  # in train mode
    teacher,  # in eval mode
    opt,  # an optimiser of the student's parameters
    x,
    y,  # images (B, 3, H, H), normalised, and labels (B,)
    T=4,  # temperature, above 0
) -> tuple:  # loss, accuracy
    "A step of plain KD as it is usually written."
    z = student(x)
    with torch.no_grad():
        zt = teacher(x)
    kl = F.kl_div(F.log_softmax(z / T, 1), F.softmax(zt / T, 1), reduction='batchmean')
    loss = 0.1 * F.cross_entropy(z, y) + 0.9 * T**2 * kl
    said = loss.item(), 100 * (z.argmax(1) == y).float().mean().item()
    opt.zero_grad()
    loss.backward()
    opt.step()
    return said


def plain_optimiser(student): return torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)


def named_nets(teacher, student, classes):  # the same ones each time
    with seeded(0):
        net = create_model(student, classes)
    with seeded(1):
        return create_model(teacher, classes), net


def batches_forever(epoch):  # a function from a number to batches
    for n in count():
        yield from epoch(n)


class HelpedStep:
    "A way whose batches come from a loader with workers."

    def feed(self, loader):
        start = time.perf_counter()
        for i in range(min(loader.batch_size, len(loader.dataset))):
            loader.dataset[i]
        self.ahead, self.making = (
            2 * loader.num_workers,
            time.perf_counter() - start,
        )  # batches that wait, seconds to make one
        return loader

    def ready(self):
        "Throw away what was prepared before, and take a step."
        [next(self.batches) for _ in range(self.ahead)]
        self()

    def rest(self, seconds):
        "Wait until the workers have nothing left to do."
        time.sleep(4 * self.making)


class PlainWay(HelpedStep):
    "Plain KD as it is usually written, one step at a call."

    def __init__(self, teacher, student, data, workers=2):  # names of models
        teacher, student = named_nets(teacher, student, data.num_classes)
        self.teacher, self.student, self.device = (
            teacher.to(data.device).eval(),
            student.to(data.device).train(),
            data.device)
        self.opt, loader = plain_optimiser(self.student), self.feed(plain_loader(data, workers))
        self.batches = batches_forever(lambda epoch: loader)

    def __call__(self):
        x, y = next(self.batches)
        return plain_step(self.student, self.teacher, self.opt, x.to(self.device), y.to(self.device))


class OurWay:
    "A learner's steps as `fit` takes them, one at a call."

    def __init__(self, learn):
        self.learn = learn
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            begin_fit(learn, 240, False)
        learn.scheme.begin_epoch(0, 240)
        open_epoch(learn)
        self.batches = batches_forever(lambda epoch: learn.scheme.batches(learn.train, 0, epoch))

    def __call__(self):
        train_step(self.learn, *next(self.batches))

    def ready(self):
        "An epoch's beginning, and a step."
        open_epoch(self.learn)
        self()


def our_kd(teacher, student, data, method='kd', **how) -> OurWay:  # names of models
    "kdnb's way with these nets; `how` is for the learner."
    teacher, student = named_nets(teacher, student, data.num_classes)
    return OurWay(Learner(Distill(student, teacher, method, size=data.size), data, cbs=None, **how))


def table_row(section, name, to, ratios=None, values=None, unit='', **more):
    "A row; `ratios` and `values` are lists, or None where nothing could be measured."
    return (
        dict(
            section=section,
            name=name,
            to=to,
            ratio=ratios and spread_of(ratios),
            value=values and spread_of(values),
            unit=unit)
        | more)


def _figure(v): return f'{v:,.0f}' if v >= 100 else f'{v:.3g}'


def table_line(r):
    "A row as text."
    if r['ratio'] is None: return f"{r['name']:56}{'–':>8}  {r['why']}"
    q, v, g = r['ratio'], r['value'] or {}, r.get('gives')
    line = f"{r['name']:56}{q['median']:>8.2f}" + f"{q['min']:.2f} to {q['max']:.2f}".rjust(17)
    return (
        line
        + (f"{_figure(v['median']):>10} {r['unit']:9}" if v else '')
        + (f" gives {g['median']:.2f}, {g['min']:.2f} to {g['max']:.2f}" if g else ''))


class Apart:
    "A way in a process of its own."

    def __init__(
        self, way, teacher, student, data
    ):  # 'plain' or 'freeing', kdnb with the C library as it comes; names of models
        self.p = subprocess.Popen(
            [sys.executable, '-c', 'from kdnb.baseline import _serve; _serve()'],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True)
        self.ask(
            json.dumps(
                dict(
                    way=way,
                    nets=(teacher, student),
                    data=(data.train.bs, len(data.train), str(data.device), data.name == 'noise'),
                    threads=torch.get_num_threads())))

    def ask(self, line):
        print(line, file=self.p.stdin, flush=True)
        if not (said := self.p.stdout.readline()):
            raise RuntimeError('the process of this way ended: what it said is above')
        return float(said)

    def ready(self): "Each piece sees to that."

    def piece(self, steps):
        "Seconds of a step, of so many."
        return self.ask(steps)

    def close(self):
        "End it."
        self.p.kill()
        self.p.wait()

    __del__ = close


def _freeing(*nets):
    kdnb.train.loop.keep_freed_memory = int  # in this process, which has no other use
    return our_kd(*nets)


def _serve():
    "The other end of `Apart`: builds a way, and answers a number of steps with the seconds of one."
    asked = json.loads(input())
    torch.set_num_threads(asked['threads'])
    data = bench_data(*asked['data'])
    way = dict(plain=PlainWay, freeing=_freeing)[asked['way']](*asked['nets'], data)
    for _ in range(3):
        way.ready()
    print(0.0, flush=True)
    for line in sys.stdin:
        print(piece_of(way, int(line), waiter_for(data.device)), flush=True)


def steps_for(way, seconds, wait):
    "Steps that take about so many seconds, at least three."
    for _ in range(2):
        way.ready()
    wait()
    start = time.perf_counter()
    for _ in range(3):
        way()
    wait()
    return max(3, round(3 * seconds / (time.perf_counter() - start)))


def warmed_up(ways):
    "({name: way} of those that can do a step, {name: why not} of the others)"
    able, why = {}, {}
    for name, make in ways.items():
        try:
            way = make()
            [way.ready() for _ in range(3)]
            able[name] = way  # a CUDA graph is recorded in the second step
        except Exception as e:
            why[name] = f'not measured: {type(e).__name__}, ' + ' '.join((str(e).splitlines() or [''])[0].split())[:120]
    return able, why


def bench_speed(
    teacher,
    student,  # names of models
    data,  # from bench_data
    rounds=5,  # in each of which every way has its piece
    seconds=1.0,  # of kdnb's piece, about
    compiled=True,  # and with compile=True, which takes half a minute before its first step
) -> list:  # rows: the plain way, kdnb, kdnb compiled
    "Images a second of KD, kdnb's as ratios to the plain way's."
    wait, bs, first = waiter_for(data.device), data.train.bs, our_kd(teacher, student, data)
    torch.compiler.reset()  # what was compiled for other nets counts against a limit
    ours = {'kdnb': lambda: first} | (
        {'kdnb, compile=True': lambda: our_kd(teacher, student, data, compile=True)} if compiled else {})
    able, why = warmed_up(ours)
    took = time_rounds(
        {'the plain way': Apart('plain', teacher, student, data)} | able, rounds, steps_for(first, seconds, wait), wait)
    plain, what = took['the plain way'], f'{teacher} -> {student}, batch {bs}'
    rows = [
        table_row(
            'speed',
            f'{what}: {name}',
            'the plain way',
            [p / t for p, t in zip(plain, v)],
            [bs / t for t in v],
            'images/s',
            bs=bs,
            way=name,
            nets=[teacher, student])
        for name, v in took.items()]
    return rows + [
        table_row('speed', f'{what}: {name}', 'the plain way', bs=bs, way=name, nets=[teacher, student], why=v)
        for name, v in why.items()]
