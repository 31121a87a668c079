"""Where the time of a step goes, what it cannot be faster than, and how much of a machine it uses."""

import os
import time
from collections import Counter
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from bench.baseline import Apart, OurWay, named_nets, our_kd, steps_for, table_row, warmed_up
from bench.bench import time_rounds, waiter_for
from kdnb.train import Learner, train_step


class _Clock:
    "Seconds by name, of the functions that it is put around."

    def __init__(self, wait):
        self.took, self.wait = Counter(), wait

    def around(self, name, f):
        def timed(*args, **kwargs):
            self.wait()
            start = time.perf_counter()
            try:
                return f(*args, **kwargs)
            finally:
                self.wait()
                self.took[name] += time.perf_counter() - start

        return timed


@contextmanager
def _clocked(learn, clock):
    "Inside the `with` the clock runs in the parts of this learner's step."
    scheme, opt = learn.scheme, learn.opt
    with (
        patch.object(scheme.net, 'forward', clock.around('student, forward', scheme.net.forward)),
        patch.object(scheme.teacher, 'forward', clock.around('teacher', scheme.teacher.forward)),
        patch.object(torch.Tensor, 'backward', clock.around('backward', torch.Tensor.backward)),
        patch.object(opt, 'step', clock.around('optimiser', opt.step))):
        yield


def step_parts(
    way,  # from our_kd
    steps=5,  # that are timed
) -> dict:  # {part: seconds of a step}
    "Where the time of a step goes."
    clock, learn = _Clock(waiter_for(way.learn.data.device)), way.learn

    def step():
        train_step(learn, *batch())

    batch, step = clock.around('batch', lambda: next(way.batches)), clock.around('all', step)
    way.ready()
    with _clocked(learn, clock):
        for _ in range(steps):
            step()
    took = {
        name: clock.took[name] / steps for name in ('batch', 'teacher', 'student, forward', 'backward', 'optimiser')}
    return took | {'losses and the rest': clock.took['all'] / steps - sum(took.values())}


_kinds = {
    'convolution': ('conv',),
    'batch norm': ('batch_norm',),
    'activation': ('relu', 'threshold', 'clamp'),
    'sums': ('add', 'add_', 'sum'),
    'copies and casts': ('copy', '_to_copy', 'clone', 'fill', 'zero', 'cat', 'stack', 'index'),
    'optimiser': ('sgd',)}


def _kind(op):  # 'aten::convolution_backward' -> 'convolution'
    op = op.removeprefix('aten::')
    return next((k for k, words in _kinds.items() if any(op == w if k == 'sums' else w in op for w in words)), 'other')


def op_seconds(
    step,  # a function
    device='cpu',  # where it works
    steps=3,  # that are looked at
) -> dict:  # {kind of work: seconds of a step}
    "Seconds of each kind of operation."
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # the profiler's own log
    cuda, took = torch.device(device).type == 'cuda', Counter()
    with profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda) as p:
        for _ in range(steps):
            step()
    for e in p.key_averages():
        if e.key.startswith('aten::'):
            took[_kind(e.key)] += (e.self_device_time_total if cuda else e.self_cpu_time_total) / steps / 1e6
    return dict(took.most_common())


def _alone(teacher, student, data):  # names of models
    return OurWay(Learner(named_nets(teacher, student, data.num_classes)[1], data, cbs=None))


def bench_parts(
    teacher,
    student,  # names of models
    data,  # from bench_data
    rounds=5,  # how often each is measured
    seconds=1.0,  # of a piece, about
) -> list:  # rows: parts of a step, kinds of work, and the bound
    "What a step is made of, as shares of it, and what it cannot be faster than, as a ratio to the plain way."
    way, alone, device = our_kd(teacher, student, data), _alone(teacher, student, data), data.device
    steps = steps_for(way, seconds, waiter_for(device))
    parts = [step_parts(way, steps) for _ in range(rounds)]
    about = dict(nets=[teacher, student], bs=data.train.bs)
    rows = _shares('parts', parts, 'the whole step', about) + _shares(
        'kinds', [op_seconds(way, device) for _ in range(rounds)], 'all operations', about)
    took = time_rounds(
        {'plain': Apart('plain', teacher, student, data), 'alone': alone}, rounds, steps, waiter_for(device))
    conv = [op_seconds(alone, device).get('convolution') for _ in range(rounds)]
    for name, v in (('the student alone', took['alone']), ("the student's convolutions", conv)):
        rows.append(
            table_row(
                'bound',
                f'no faster than {name}',
                'the plain way',
                [p / t for p, t in zip(took['plain'], v)],
                v,
                's',
                **about))
    return rows


def _shares(section, each, of, about):  # each: [{name: seconds}]
    return [
        table_row(
            section,
            name,
            of,
            [v.get(name, 0) / sum(v.values()) for v in each],
            [v.get(name, 0) for v in each],
            's',
            **about)
        for name in each[0]]


class _Bytes(TorchDispatchMode):
    "Counts the bytes that convolutions and matrix products read and write, each tensor once."

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        if any(word in func.__name__ for word in ('conv', 'mm')):
            for v in (*args, *(out if isinstance(out, (tuple, list)) else [out])):
                self.total += v.nbytes if isinstance(v, torch.Tensor) else 0
        return out


def counted(
    step,  # a function
) -> tuple:  # (operations, bytes)
    "What convolutions and matrix products in `step()` compute, and read and write at the least."
    with FlopCounterMode(display=False) as flops:
        step()
    with _Bytes() as moved:
        step()
    return flops.get_total_flops(), moved.total


def _limits(device, n=8192, size=2**30):
    "(operations, bytes) a second: a product of two n x n matrices in bfloat16, and a copy of so many bytes, read and"
    "written."
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    x = torch.empty(size, dtype=torch.uint8, device=device)
    y = torch.empty_like(x)
    took = time_rounds(dict(product=lambda: a @ b, copy=lambda: y.copy_(x)), 5, 10, waiter_for(device))
    return 2 * n**3 / min(took['product'][1:]), 2 * size / min(took['copy'][1:])


def bench_card(
    teacher,
    student,  # names of models
    data,  # from bench_data
    rounds=5,  # how often each is measured
    seconds=1.0,  # of a piece, about
    limits=None,  # (operations, bytes) a second; None: measured, on CUDA
) -> list:  # rows
    "The share of a card's operations and bytes a second that a step reaches."
    torch.compiler.reset()
    device, names = data.device, ('of its bf16 operations a second', "of its memory's bytes a second")
    if limits is None and device.type != 'cuda':
        return [table_row('card', name, "the card's limit", why='not measured: no GPU') for name in names]
    wait, counts = waiter_for(device), counted(our_kd(teacher, student, data))
    limits, (ways, _) = (
        limits or _limits(device),
        warmed_up(
            {
                'eager': lambda: our_kd(teacher, student, data),
                'compile=True': lambda: our_kd(teacher, student, data, compile=True)}))
    took = time_rounds(ways, rounds, steps_for(ways['eager'], seconds, wait), wait)
    return [
        table_row(
            'card', f'{how}, {name}', "the card's limit", [n / t / limit for t in v], [n / t / 1e12 for t in v], unit)
        for how, v in took.items()
        for name, n, limit, unit in zip(names, counts, limits, ('TFLOP/s', 'TB/s'))]
