"""kdnb without one of its levers at a time, several students beside one teacher, the memory of a step, and the seconds before the first one."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

from bench.baseline import (
    Apart,
    HelpedStep,
    OurWay,
    PlainWay,
    batches_forever,
    named_nets,
    plain_loader,
    plain_optimiser,
    plain_step,
    steps_for,
    table_row,
    warmed_up)
from bench.bench import bytes_of, peak_memory, resident_bytes, spread_of, time_rounds, waiter_for
from kdnb.schemes import Distill
from kdnb.taps import fuse
from kdnb.train import Callback, Learner, LearnerGroup, OwnRandom, open_epoch, shared_teachers, train_step


class _LoaderWay(HelpedStep, OurWay):
    "A learner whose images come one by one."

    def __init__(self, learn, workers=2):
        super().__init__(learn)
        loader, device = self.feed(plain_loader(learn.data, workers)), learn.data.device
        self.batches = batches_forever(
            lambda epoch: ((x.to(device, memory_format=torch.channels_last), y.to(device)) for x, y in loader))

    def ready(self):
        open_epoch(self.learn)
        super().ready()


def _learner(teacher, student, data, method='kd', prepare=lambda teacher: teacher, **how):  # names of models
    teacher, student = named_nets(teacher, student, data.num_classes)
    return Learner(Distill(student, prepare(teacher), method, size=data.size), data, cbs=None, **how)


def _channels_first(*nets):
    learn = _learner(*nets)
    learn.scheme.to(memory_format=torch.contiguous_format)
    way = OurWay(learn)
    way.batches = ((x.contiguous(), y) for x, y in way.batches)
    return way


def _not_fused(*nets):
    way = OurWay(_learner(*nets))
    way.learn.opt = plain_optimiser(way.learn.student)
    return way


class _Reads(Callback):
    def after_batch(self, learn):
        learn.tally.steps[-1].sum().item(), learn.tally.hits.item()


def _reading(*nets):
    way = OurWay(_learner(*nets))
    way.learn.cbs = [_Reads()]
    return way


def _to_the_end(*nets):
    teacher = (way := OurWay(_learner(*nets, 'fitnet'))).learn.scheme.teacher
    teacher.tap(teacher.model, teacher.net.at)
    return way


_levers = {  # name: (how it is built, what it is compared with)
    'without batched augmentation': (lambda *nets: _LoaderWay(_learner(*nets)), 'kdnb'),
    'without bfloat16 (amp=off)': (lambda *nets: OurWay(_learner(*nets, amp='off')), 'kdnb'),
    'without channels last': (_channels_first, 'kdnb'),
    'without the fused optimiser': (_not_fused, 'kdnb'),
    'reading the loss in each step': (_reading, 'kdnb'),
    'giving freed memory back': (lambda *nets: Apart('freeing', *nets), 'kdnb'),
    'FitNet': (lambda *nets: OurWay(_learner(*nets, 'fitnet')), None),
    'FitNet, its teacher to the end': (_to_the_end, 'FitNet'),
    'with a folded teacher': (lambda *nets: OurWay(_learner(*nets, prepare=fuse)), 'kdnb'),
    'with compile=True': (lambda *nets: OurWay(_learner(*nets, compile=True)), 'kdnb')}


def _gives(name, took):  # how many times faster with the lever, a number a round
    if not (other := _levers.get(name, (None, None))[1]): return None
    slow, fast = (other, name) if name.startswith('with ') else (name, other)
    return [s / f for s, f in zip(took[slow], took[fast])]


def bench_levers(
    teacher,
    student,  # names of models
    data,  # from bench_data
    rounds=5,  # in each of which every way has its piece
    seconds=1.0,  # of kdnb's piece, about
    skip=(),  # names of levers
) -> list:  # rows; `gives` is what the lever gives
    "kdnb without one lever at a time, as ratios to the plain way."
    torch.compiler.reset()
    nets, wait, bs = (teacher, student, data), waiter_for(data.device), data.train.bs
    able, why = warmed_up(
        {'kdnb': lambda: OurWay(_learner(*nets))}
        | {k: lambda make=make: make(*nets) for k, (make, _) in _levers.items() if k not in skip})
    took = time_rounds(
        {'the plain way': Apart('plain', *nets)} | able, rounds, steps_for(able['kdnb'], seconds, wait), wait)

    def row(name, v):
        return table_row(
            'levers',
            name,
            'the plain way',
            [p / t for p, t in zip(took['the plain way'], v)],
            [bs / t for t in v],
            'images/s',
            bs=bs,
            gives=(g := _gives(name, took)) and spread_of(g))

    return [row(*item) for item in took.items()] + [
        table_row('levers', name, 'the plain way', why=v) for name, v in why.items()]


class _Together:
    "N students that learn together, one step of all at a call."

    def __init__(self, n, teacher, student, data):
        teacher = named_nets(teacher, student, data.num_classes)[0]
        self.learners = [
            Learner(
                Distill(named_nets(student, student, data.num_classes)[1], teacher, f'kd(T={i + 1})', size=data.size),
                data,
                cbs=None)
            for i in range(n)]
        self.ways = [OurWay(l) for l in self.learners]  # which begins them
        self.group, self.shared = LearnerGroup(self.learners, 240, None), shared_teachers(self.learners)
        self.random = {l: OwnRandom(0, data.device) for l in self.learners}

    def __call__(self):
        self.group.step(next(self.ways[0].batches), self.learners, self.shared, self.random)
        if self.group.failed: raise next(iter(self.group.failed.values()))

    def ready(self):
        [open_epoch(l) for l in self.learners]
        self()


def bench_together(
    teacher,
    student,  # names of models
    data,  # from bench_data
    numbers=(1, 2, 4, 8),  # of students
    rounds=5,  # in each of which every way has its piece
    seconds=0.5,  # of one student's piece, about
) -> list:  # rows
    "A step of N students together, as a ratio to N steps of one by itself."
    wait, one = waiter_for(data.device), OurWay(_learner(teacher, student, data))
    ways = {n: _Together(n, teacher, student, data) for n in numbers}
    took = time_rounds({0: one} | ways, rounds, steps_for(one, seconds, wait), wait)
    return [
        table_row(
            'together',
            f'{n} student{"s" * (n > 1)} of one {teacher}',
            f'{n} by itself' if n == 1 else f'{n} by themselves',
            [t / (n * s) for t, s in zip(took[n], took[0])],
            took[n],
            's/step',
            students=n)
        for n in ways]


def bench_memory(
    teacher,
    student,  # names of models
    data,  # from bench_data
    times=3,  # how often the peak is taken
) -> list:  # rows
    "The peak memory of a step, kdnb's as a ratio to the plain way's."
    (x, y), device = data.one_batch(), data.device
    plain, learn = PlainWay(teacher, student, data, workers=0), OurWay(_learner(teacher, student, data)).learn

    def most(before, step):
        step()
        before()
        return peak_memory(step, device)  # the first time, things happen once

    def theirs():
        plain_step(plain.student, plain.teacher, plain.opt, x.contiguous(), y)

    a = [most(plain.opt.zero_grad, theirs) + bytes_of([plain.student, plain.teacher], plain.opt) for _ in range(times)]
    b = [most(lambda: open_epoch(learn), lambda: train_step(learn, x, y)) + resident_bytes(learn) for _ in range(times)]
    what = f'{teacher} -> {student}, batch {data.train.bs}'
    return [
        table_row(
            'memory',
            f'{what}: {name}',
            'the plain way',
            [v / p for v, p in zip(vs, a)],
            [v / 2**20 for v in vs],
            'MB',
            bs=data.train.bs,
            way=name)
        for name, vs in (('the plain way', a), ('kdnb', b))]


_start = '''
import json, time
clock = [time.perf_counter()]
def tick(): clock.append(time.perf_counter())
import torch, torchvision; tick()
import kdnb; tick()
from kdnb.all import *; tick()
from kdnb.baseline import bench_data, our_kd; start = time.perf_counter()
our_kd({teacher!r}, {student!r}, bench_data(n={n}, noise={noise}, device={device!r}))()
print(json.dumps([b - a for a, b in zip(clock, clock[1:])] + [time.perf_counter() - start]))
'''


def _started(**how):
    "Seconds of a fresh process: torch, kdnb, kdnb.all, the first step."
    import kdnb

    path = os.pathsep.join(
        [str(Path(kdnb.__file__).resolve().parent.parent), *filter(None, [os.environ.get('PYTHONPATH')])])
    child = subprocess.run(
        [sys.executable, '-c', _start.format(**how)],
        capture_output=True,
        text=True,
        env=os.environ | dict(PYTHONPATH=path))
    if child.returncode:
        raise RuntimeError(
            'a fresh process that imports kdnb failed: '
            + (child.stderr.strip().splitlines() or ['it said nothing'])[-1])
    return json.loads(child.stdout.splitlines()[-1])


def bench_start(
    teacher,
    student,  # names of models
    n=50_000,
    noise=False,
    device=None,  # as of bench_data
    rounds=5,  # processes, one after the other
) -> list:  # rows
    "Seconds of imports and of the first step, as ratios to torch's own import."
    took = [_started(teacher=teacher, student=student, n=n, noise=noise, device=device) for _ in range(rounds)]
    names = (
        'import torch, torchvision',
        'import kdnb, beyond that',
        'from kdnb.all import *, beyond that',
        'then data, nets, learner, and its first step')
    return [
        table_row('start', name, "torch's import", [t[i] / t[0] for t in took], [t[i] for t in took], 's')
        for i, name in enumerate(names)]
