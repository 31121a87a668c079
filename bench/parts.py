"""Where the time of a step goes, what it cannot be faster than, and how much of the hardware it uses.

*Parts.* A clock around each part of a learner's step: batch, teacher, student forward, backward, optimiser. The rest
is the losses and Python. On a GPU each part is waited for, so there the parts sum up to more than a step. *Kinds of
work* are what PyTorch's profiler tells of each operation.

*The bound.* With a teacher and a data pipeline that take no time, the student still has to learn: a step of KD is no
faster than a step of the student alone, and that is no faster than the student's convolutions, forward and backward.

*The hardware.* It has two limits, operations a second and bytes a second, and what a step needs of both can be
counted. Operations are those of convolutions and matrix products, two for each multiply-accumulate. Bytes are what the
same operations read and write, each input and each output once: a lower bound. What a processor or a card can do is
measured and not taken from a data sheet: a large matrix product, in float32 and in bfloat16 where it has instructions
for it, and a large copy.

We left out the tables of the profiler, which `torch.profiler` shows, and counters of the hardware, which need other
rights.
"""
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median
from unittest.mock import patch

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from kdnb.data import Data
from kdnb.train import Learner, has_fast_bf16, name_dtype, train_step

from .plain import named_nets
from .rows import table_row
from .timing import Wait, quiet_profiler, steps_for, time_rounds, waiter_for
from .ways import Apart, OurWay, our_kd, warmed_up

PARTS = 'batch', 'teacher', 'student, forward', 'backward', 'optimiser'

class _Clock:
    """Seconds by name, of the functions that it is put around."""
    def __init__(self, wait: Wait):
        self.took, self.wait = Counter(), wait

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        "Inside the `with` the seconds count for this name."
        self.wait()
        start = time.perf_counter()
        try:
            yield
        finally:
            self.wait()
            self.took[name] += time.perf_counter() - start

    def around(self, name: str, f: Callable) -> Callable:
        "A function with the clock around it."
        def timed(*args, **kwargs):
            with self.running(name):
                return f(*args, **kwargs)
        return timed

@contextmanager
def _clocked(learn: Learner, clock: _Clock) -> Iterator[None]:
    "Inside the `with` the clock runs in the parts of this learner's step."
    scheme, opt = learn.scheme, learn.opt
    with (
            patch.object(scheme.net, 'forward', clock.around('student, forward', scheme.net.forward)),
            patch.object(scheme.teacher, 'forward', clock.around('teacher', scheme.teacher.forward)),
            patch.object(torch.Tensor, 'backward', clock.around('backward', torch.Tensor.backward)),
            patch.object(opt, 'step', clock.around('optimiser', opt.step))):
        yield

def step_parts(way: OurWay, steps: int = 5) -> dict[str, float]:
    "{part: seconds of a step}, over so many steps."
    learn, clock = way.learn, _Clock(waiter_for(way.learn.data.device))
    way.ready()
    with _clocked(learn, clock):
        for _ in range(steps):
            with clock.running('all'):
                with clock.running('batch'):
                    batch = next(way.batches)
                train_step(learn, *batch)
    took = {name: clock.took[name] / steps for name in PARTS}
    return took | {'losses and the rest': clock.took['all'] / steps - sum(took.values())}

_kinds = {
    'convolution': ('conv',),
    'batch norm': ('batch_norm',),
    'activation': ('relu', 'threshold', 'clamp'),
    'copies and casts': ('copy', '_to_copy', 'clone', 'fill', 'zero', 'cat', 'stack', 'index'),
    'optimiser': ('sgd',)}

def kind_of(op: str) -> str:
    "'convolution' for 'aten::convolution_backward'."
    name = op.removeprefix('aten::')
    if name in ('add', 'add_', 'sum'): return 'sums'
    for kind, words in _kinds.items():
        if any(word in name for word in words): return kind
    return 'other'

def op_seconds(step: Callable[[], object], device: str | torch.device = 'cpu', steps: int = 3) -> dict[str, float]:
    "{kind of work: seconds of a step}, of a function that takes a step on this device."
    quiet_profiler()
    cuda, took = torch.device(device).type == 'cuda', Counter()
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if cuda else [ProfilerActivity.CPU]
    with profile(activities=activities) as p:
        for _ in range(steps):
            step()
    for event in p.key_averages():
        if event.key.startswith('aten::'):
            microseconds = event.self_device_time_total if cuda else event.self_cpu_time_total
            took[kind_of(event.key)] += microseconds / steps / 1e6
    return dict(took.most_common())

def alone_way(teacher: str, student: str, data: Data) -> OurWay:
    "The steps of the student of a pair, which learns from the labels alone."
    return OurWay(Learner(named_nets(teacher, student, data.num_classes)[1], data, cbs=None))

def _share_rows(section: str, each: list[dict], of: str, about: dict) -> list[dict]:
    "Rows of shares, from {name: seconds} of each time."
    rows = []
    for name in each[0]:
        seconds = [one.get(name, 0) for one in each]
        shares = [own / sum(one.values()) for own, one in zip(seconds, each, strict=True)]
        rows.append(table_row(section, name, of, shares, seconds, 's', **about))
    return rows

def _bound_rows(nets: tuple, alone: OurWay, rounds: int, steps: int, about: dict) -> list[dict]:
    "Rows of what a step cannot be faster than, by the plain way."
    device, rows = alone.learn.data.device, []
    took = time_rounds(dict(plain=Apart('plain', *nets), alone=alone), rounds, steps, waiter_for(device))
    convolutions = [op_seconds(alone, device)['convolution'] for _ in range(rounds)]
    for name, seconds in (('the student alone', took['alone']), ("the student's convolutions", convolutions)):
        ratios = [plain / own for plain, own in zip(took['plain'], seconds, strict=True)]
        rows.append(table_row('bound', f'no faster than {name}', 'the plain way', ratios, seconds, 's', **about))
    return rows

def bench_parts(teacher: str, student: str, data: Data, rounds: int = 5, seconds: float = 1.) -> list[dict]:
    "Rows of the parts of a step and the kinds of work, as shares, and of the bound, by the plain way."
    nets, about = (teacher, student, data), dict(nets=[teacher, student], bs=data.train.bs)
    way, alone = our_kd(*nets), alone_way(*nets)
    steps = steps_for(way, seconds, waiter_for(data.device))
    parts = [step_parts(way, steps) for _ in range(rounds)]
    kinds = [op_seconds(way, data.device) for _ in range(rounds)]
    return [*_share_rows('parts', parts, 'the whole step', about),
            *_share_rows('kinds', kinds, 'all operations', about),
            *_bound_rows(nets, alone, rounds, steps, about)]

# --- the hardware

class _Bytes(TorchDispatchMode):
    """Count the bytes that convolutions and matrix products read and write, each tensor once."""
    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        if any(word in func.__name__ for word in ('conv', 'mm')):
            values = [*args, *(out if isinstance(out, (tuple, list)) else [out])]
            self.total += sum(v.nbytes for v in values if isinstance(v, torch.Tensor))
        return out

def counted(step: Callable[[], object]) -> tuple[int, int]:
    "(operations, bytes) that convolutions and matrix products in `step()` compute, and read and write at the least."
    with FlopCounterMode(display=False) as flops:
        step()
    with _Bytes() as moved:
        step()
    return flops.get_total_flops(), moved.total

def hardware_limits(device: torch.device, n: int | None = None, size: int | None = None) -> dict[str, list[float]]:
    """{'float32': operations a second of a product of two n x n matrices, 'bfloat16': where the device has instructions
    for it, 'copy': bytes a second, read and written}, a number a round.
    """
    cuda = device.type == 'cuda'
    n, size = n or (8192 if cuda else 2048), size or 2**(30 if cuda else 28)
    formats = [torch.float32, *([torch.bfloat16] if has_fast_bf16(device) else [])]
    ways = {name_dtype(f): partial(torch.matmul, *torch.randn(2, n, n, device=device).to(f)) for f in formats}
    ways['copy'] = partial(torch.zeros(size, dtype=torch.uint8, device=device).copy_,
                           torch.ones(size, dtype=torch.uint8, device=device))
    took = time_rounds(ways, 6, 10 if cuda else 2, waiter_for(device))
    return {name: [(2*size if name == 'copy' else 2*n**3) / t for t in times[1:]] for name, times in took.items()}

Limits = dict[str, list[float]]

def limit_rows(limits: Limits) -> list[dict]:
    "Rows of what the hardware can do; the ratio of a product is to that in float32."
    rows = []
    for name, rates in limits.items():
        first = rates if name == 'copy' else limits['float32']
        what = 'a copy' if name == 'copy' else f'a matrix product in {name}'
        rows.append(table_row('limits', what, 'itself' if name == 'copy' else 'float32',
                              [a / b for a, b in zip(rates, first, strict=True)], [v / 1e9 for v in rates],
                              'GB/s' if name == 'copy' else 'GFLOP/s'))
    return rows

def bench_shares(teacher: str, student: str, data: Data, limits: Limits, rounds: int = 5, seconds: float = 1.,
                 compiled: bool = True) -> list[dict]:
    "Rows of the share of the hardware's limits that a step reaches, in the format that it computes in."
    torch.compiler.reset()
    nets, wait, rows = (teacher, student, data), waiter_for(data.device), []
    ways = {'kdnb': partial(our_kd, *nets), 'the student alone': partial(alone_way, *nets)}
    ways |= {'kdnb, compile=True': partial(our_kd, *nets, compile=True)} if compiled else {}
    counts = {name: counted(make()) for name, make in ways.items() if 'compile' not in name}
    able, why = warmed_up(ways)
    took = time_rounds(able, rounds, steps_for(able['kdnb'], seconds, wait), wait)
    about = dict(nets=[teacher, student], bs=data.train.bs)
    for name, times in took.items():
        operations, moved = counts[name.partition(',')[0]]
        own = name_dtype(able[name].learn.dtype)
        for limit, n, unit in (own, operations, 'GFLOP/s'), ('copy', moved, 'GB/s'):
            of = 'bytes of a copy' if limit == 'copy' else f'operations in {own}'
            most = median(limits[limit])
            rows.append(table_row('shares', f'{name}, {of}', "the hardware's limit", [n / t / most for t in times],
                                  [n / t / 1e9 for t in times], unit, way=name, **about))
    return rows + [table_row('shares', name, "the hardware's limit", why=reason, **about)
                   for name, reason in why.items()]
