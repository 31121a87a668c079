"""What each lever gives: kdnb without one of its levers at a time, students that learn together, memory, and the
start.

A way that is faster by five means is understood when each has been taken away alone. Levers do not multiply: where
one thing waits for another, a lever gives nothing until the other is pulled. So each is taken away from the *whole*,
and what it gives is the time without it by the time with it. None of them is a flag of the library: they are taken
away from outside. Two more are off unless you ask for them, a teacher whose BatchNorms are folded and `compile=True`;
these are put on top.

We left out pairs of levers, and each lever alone on top of the plain way: there are many such tables, and they answer
no question.
"""
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from kdnb.data import Data
from kdnb.schemes import Distill
from kdnb.taps import fuse
from kdnb.text import count_of
from kdnb.train import Callback, Learner, LearnerGroup, OwnRandom, open_epoch, shared_teachers, train_step

from .plain import HelpedWay, PlainWay, batches_forever, named_nets, plain_loader, plain_optimiser, plain_step
from .rows import images_row, table_row
from .timing import Way, bytes_of, peak_memory, resident_bytes, spread_of, steps_for, time_rounds, waiter_for
from .ways import ROOT, Apart, OurWay, kd_learner, our_kd, warmed_up

# --- taken away

class _LoaderWay(HelpedWay, OurWay):
    """A learner whose images come one by one, from the plain way's loader."""
    def __init__(self, learn: Learner, workers: int = 2):
        super().__init__(learn)
        loader, device = self.feed(plain_loader(learn.data, workers)), learn.data.device
        self.batches = batches_forever(
            lambda epoch: ((x.to(device, memory_format=torch.channels_last), y.to(device)) for x, y in loader))

    def ready(self) -> None:
        open_epoch(self.learn)
        super().ready()

def one_by_one(*nets) -> OurWay:
    "Without batches made in four operations: images come one by one."
    return _LoaderWay(kd_learner(*nets))

def channels_first(*nets) -> OurWay:
    "Without channels last: the same weights and batches, channels first; the copy of a batch is little beside a step."
    learn = kd_learner(*nets)
    learn.scheme.to(memory_format=torch.contiguous_format)
    way = OurWay(learn)
    way.batches = ((x.contiguous(), y) for x, y in way.batches)
    return way

def not_fused(*nets) -> OurWay:
    "Without one kernel for all parameters: SGD as it comes."
    way = our_kd(*nets)
    way.learn.opt = plain_optimiser(way.learn.student)
    return way

class _ReadLoss(Callback):
    """Read loss and hits in each step, and wait for them."""
    def after_batch(self, learn: Learner) -> None:
        learn.tally.steps[-1].sum().item()
        learn.tally.hits.item()

def reading(*nets) -> OurWay:
    "Loss and hits are read in each step."
    way = our_kd(*nets)
    way.learn.cbs = [_ReadLoss()]
    return way

def to_the_end(*nets) -> OurWay:
    "FitNet whose teacher does not stop at the last place that is read; KD has no use for stopping."
    way = our_kd(*nets, method='fitnet')
    teacher = way.learn.scheme.teacher
    teacher.tap(teacher.model, teacher.net.at)
    return way

class Lever(NamedTuple):
    """How a way with or without a lever is built, and the way that it is compared with."""
    make: Callable[..., Way]
    beside: str | None = 'kdnb'

levers = {
    'without batched augmentation': Lever(one_by_one),
    'without bfloat16 (amp=off)': Lever(partial(our_kd, amp='off')),
    'without channels last': Lever(channels_first),
    'without the fused optimiser': Lever(not_fused),
    'reading the loss in each step': Lever(reading),
    'giving freed memory back': Lever(partial(Apart, 'freeing')),
    'FitNet': Lever(partial(our_kd, method='fitnet'), None),
    'FitNet, its teacher to the end': Lever(to_the_end, 'FitNet'),
    'with a folded teacher': Lever(partial(our_kd, prepare=fuse)),
    'with compile=True': Lever(partial(our_kd, compile=True))}

def gain_of(name: str, took: dict) -> list[float] | None:
    "How many times faster a step is with the lever, a number a round."
    beside = levers[name].beside if name in levers else None
    if beside is None: return None
    slow, fast = (beside, name) if name.startswith('with ') else (name, beside)
    return [s / f for s, f in zip(took[slow], took[fast], strict=True)]

def bench_levers(teacher: str, student: str, data: Data, rounds: int = 5, seconds: float = 1.,
                 skip: tuple[str, ...] = ()) -> list[dict]:
    "Rows of images a second without one lever at a time, by the plain way's; `gives` is what the lever gives."
    torch.compiler.reset()
    nets, wait = (teacher, student, data), waiter_for(data.device)
    makers = {name: lever.make for name, lever in levers.items() if name not in skip}
    able, why = warmed_up({name: partial(make, *nets) for name, make in {'kdnb': our_kd, **makers}.items()})
    ways = {'the plain way': Apart('plain', *nets)} | able
    took = time_rounds(ways, rounds, steps_for(able['kdnb'], seconds, wait), wait)
    rows = []
    for name, times in took.items():
        gain = gain_of(name, took)
        gives = spread_of(gain) if gain else None
        rows.append(images_row('levers', name, data.train.bs, took['the plain way'], times, gives=gives))
    return rows + [table_row('levers', name, 'the plain way', why=reason) for name, reason in why.items()]

# --- several students, one teacher

class Together(Way):
    """Students that learn together from one teacher, each at its own temperature: one step of all at a call."""
    def __init__(self, n: int, teacher: str, student: str, data: Data):
        taught_by = named_nets(teacher, student, data.num_classes)[0]
        self.learners = [self._learner(taught_by, student, data, T) for T in range(1, n + 1)]
        self.batches = [OurWay(learn) for learn in self.learners][0].batches       # which begins them all
        self.group, self.shared = LearnerGroup(self.learners, 240, None), shared_teachers(self.learners)
        self.random = {learn: OwnRandom(0, data.device) for learn in self.learners}

    def _learner(self, teacher: nn.Module, student: str, data: Data, T: int) -> Learner:
        net = named_nets(student, student, data.num_classes)[1]
        return Learner(Distill(net, teacher, f'kd(T={T})', size=data.size), data, cbs=None)

    def __call__(self) -> None:
        self.group.step(next(self.batches), self.learners, self.shared, self.random)
        for error in self.group.failed.values():
            raise error

    def ready(self) -> None:
        for learn in self.learners:
            open_epoch(learn)
        self()

def bench_together(teacher: str, student: str, data: Data, numbers: tuple[int, ...] = (1, 2, 4, 8), rounds: int = 5,
                   seconds: float = .5) -> list[dict]:
    "Rows of a step of N students together, by N steps of one by itself: the teacher's share and the batch's are saved."
    wait, one = waiter_for(data.device), our_kd(teacher, student, data)
    ways = {n: Together(n, teacher, student, data) for n in numbers}
    took = time_rounds({0: one} | ways, rounds, steps_for(one, seconds, wait), wait)
    rows = []
    for n in numbers:
        ratios = [together / (n*alone) for together, alone in zip(took[n], took[0], strict=True)]
        to = f'{n} by itself' if n == 1 else f'{n} by themselves'
        name = f"{count_of(n, 'student')} of one {teacher}"
        rows.append(table_row('together', name, to, ratios, took[n], 's/step', students=n))
    return rows

# --- memory

def _step_peaks(step: Callable[[], object], clear: Callable[[], object], device: torch.device, times: int) -> list[int]:
    "Peak memory of a step, so often; the step before it is not looked at: in the first one things happen once."
    peaks = []
    for _ in range(times):
        step()
        clear()
        peaks.append(peak_memory(step, device))
    return peaks

def _plain_bytes(teacher: str, student: str, data: Data, times: int) -> list[int]:
    way, (x, y) = PlainWay(teacher, student, data, workers=0), data.one_batch()
    step = partial(plain_step, way.student, way.teacher, way.opt, x.contiguous(), y)
    peaks = _step_peaks(step, way.opt.zero_grad, data.device, times)
    return [peak + bytes_of([way.student, way.teacher], way.opt) for peak in peaks]

def _our_bytes(teacher: str, student: str, data: Data, times: int) -> list[int]:
    learn, batch = our_kd(teacher, student, data).learn, data.one_batch()

    def step() -> None:
        open_epoch(learn)
        train_step(learn, *batch)

    def clear() -> None:
        learn.tally = None                          # the last step's, given up during the next, would count

    peaks = _step_peaks(step, clear, data.device, times)
    return [peak + resident_bytes(learn) for peak in peaks]

def bench_memory(teacher: str, student: str, data: Data, times: int = 3) -> list[dict]:
    "Rows of the most that a step holds, with weights, momentum and teacher, by the plain way's; images do not count."
    nets = teacher, student, data, times
    found = {'the plain way': _plain_bytes(*nets), 'kdnb': _our_bytes(*nets)}
    bs, rows = data.train.bs, []
    for way, held in found.items():
        ratios = [own / plain for own, plain in zip(held, found['the plain way'], strict=True)]
        name, megabytes = f'{teacher} -> {student}, batch {bs}: {way}', [n / 2**20 for n in held]
        rows.append(table_row('memory', name, 'the plain way', ratios, megabytes, 'MB', bs=bs, way=way))
    return rows

# --- before the first step

_start = '''
import json, time
clock = [time.perf_counter()]
def tick(): clock.append(time.perf_counter())
import torch, torchvision; tick()
import kdnb; tick()
from kdnb.all import *; tick()
from bench.ways import bench_data, our_kd; start = time.perf_counter()
our_kd({teacher!r}, {student!r}, bench_data(n={n}, noise={noise}, device={device!r}))()
print(json.dumps([b - a for a, b in zip(clock, clock[1:])] + [time.perf_counter() - start]))
'''

_start_names = (
    'import torch, torchvision', 'import kdnb, beyond that', 'from kdnb.all import *, beyond that',
    'then data, nets, learner, and its first step')

def fresh_start(**how) -> list[float]:
    "Seconds of a fresh process: torch, kdnb, kdnb.all, the first step."
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    program = _start.format(**how)
    child = subprocess.run(
        [sys.executable, '-c', program], capture_output=True, text=True, env=os.environ | dict(PYTHONPATH=path))
    if child.returncode:
        last = (child.stderr.strip().splitlines() or ['no message'])[-1]
        raise RuntimeError(f'a fresh process that imports kdnb failed: {last}')
    return json.loads(child.stdout.splitlines()[-1])

def bench_start(teacher: str, student: str, n: int = 50_000, noise: bool = False, device: str | None = None,
                rounds: int = 5) -> list[dict]:
    "Rows of the seconds of imports and of the first step, by torch's own import, from fresh processes."
    how = dict(teacher=teacher, student=student, n=n, noise=noise, device=device)
    took = [fresh_start(**how) for _ in range(rounds)]
    return [table_row('start', name, "torch's import", [t[i] / t[0] for t in took], [t[i] for t in took], 's')
            for i, name in enumerate(_start_names)]
