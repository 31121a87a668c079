"""Seconds and memory of a training step of every method, relative to plain KD on the same machine in the same minute, and the tools that everything else is timed with."""

import json
import os
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch.profiler import ProfilerActivity, profile

from kdnb.data import Data
from kdnb.methods import known_methods
from kdnb.models import create_model, num_params
from kdnb.schemes import Distill
from kdnb.seeds import seeded
from kdnb.train import Learner, about_process, take_steps


def noise_data(
    bs=64,  # images, and images in a batch
    num_classes=100,  # of the labels
    size=32,  # pixels of a side
    device=None,  # None: a CUDA GPU where there is one
) -> Data:
    "One batch of noise: an epoch of it is one step."
    for k, v in dict(bs=bs, num_classes=num_classes, size=size).items():
        if type(v) is not int or v < 2: raise ValueError(f'{k} must be a whole number from 2 up, not {v!r}')
    g = torch.Generator().manual_seed(0)
    x, y = (
        torch.randint(256, (bs, 3, size, size), dtype=torch.uint8, generator=g),
        torch.randint(num_classes, (bs,), generator=g))
    return Data((x, y), None, (x[:1], y[:1]), range(num_classes), bs, 'crop_flip', device, name='noise')


def _ready(model, data):
    "A learner that has made its first step: what happens once is over."
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # a term may start high: this is noise
        return Learner(model, data, lr=0.0, cbs=None).fit(1)


def _student(name, data):
    with seeded(0):
        return create_model(name, data.num_classes)


def method_names() -> list:
    "'alone' and each method of kdnb, by its first name."
    first = {}
    for name, make in known_methods.items():
        first.setdefault(make, name)
    return ['alone', *(name for name in first.values() if name != 'ce')]


def time_rounds(
    ways,  # {name: what does one step when it is called}
    rounds=7,  # in each of which every way has its piece
    steps=1,  # in a piece
    wait=int,  # called before the clock is read: torch.cuda.synchronize on a GPU
) -> dict:  # {name: [seconds of a step, a number a round]}
    "Time several ways of doing a step, A B C A B C ..."
    took = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            took[name].append(piece_of(way, steps, wait))
    return took


def time_pairs(a, b, pairs=7, steps=1, wait=int) -> list:  # (seconds of a step of a, of b), a tuple a pair
    "Time two steps, A B A B ..."
    took = time_rounds(dict(a=a, b=b), pairs, steps, wait)
    return [*zip(took['a'], took['b'])]


def piece_of(way, steps, wait):
    "Seconds of a step, of so many."
    if hasattr(way, 'piece'): return way.piece(steps)  # in a process of its own
    getattr(way, 'ready', int)()
    wait()
    start = time.perf_counter()
    for _ in range(steps):
        way()
    wait()
    seconds = (time.perf_counter() - start) / steps
    getattr(way, 'rest', abs)(seconds)
    return seconds


def waiter_for(device): return (lambda: torch.cuda.synchronize(device)) if device.type == 'cuda' else int


def spread_of(values): return dict(min=min(values), median=median(values), max=max(values))


def _high_water(work):
    "The most bytes that PyTorch holds on the CPU at a time during `work()`, beyond what it held before."
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as p:
        work()
    with tempfile.TemporaryDirectory() as d:
        p.export_chrome_trace(f'{d}/trace.json')
        events = json.loads(Path(d, 'trace.json').read_text(encoding='utf-8'))['traceEvents']
    events = sorted(
        (e for e in events if e['name'] == '[memory]' and e['args']['Device Type'] == 0), key=lambda e: e['ts'])
    totals = [e['args']['Total Allocated'] for e in events]
    return max(0, max(totals, default=0) - (totals[0] - events[0]['args']['Bytes'] if events else 0))


def peak_memory(
    work,  # a function
    device='cpu',  # where it works
) -> int:  # bytes, beyond what was there before
    "The most memory that `work()` holds at a time."
    if (device := torch.device(device)).type == 'cpu': return _high_water(work)
    if device.type != 'cuda':
        raise ValueError(f"memory is measured on a CPU or a CUDA GPU, not on {device}: give device='cpu'")
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _modules(scheme): return [scheme] + ([scheme.teacher.model] if hasattr(scheme, 'teacher') else [])


def bytes_of(modules, opt):
    "Bytes of weights, buffers and momentum."
    tensors = [t for m in modules for t in (*m.parameters(), *m.buffers())]
    tensors += [t for s in opt.state.values() for t in s.values() if isinstance(t, torch.Tensor)]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def resident_bytes(learn): return bytes_of(_modules(learn.scheme), learn.opt)  # the teacher's among them


def _peak(learn):
    learn.tally = None  # of the last epoch: given up while it is measured, it would count
    return peak_memory(partial(take_steps, learn), learn.data.device)


def _held(learn, peaks): return [resident_bytes(learn) + _peak(learn) for _ in range(peaks)]


def method_cost(
    learn,  # a learner that has made a step
    kd,  # another, taught by plain KD
    pairs=7,  # of timed pieces
    steps=1,  # in a timed piece
    peaks=2,  # how often the peak is taken
    base=None,  # bytes that plain KD holds, as many; None: measured here
) -> (
    dict
):  # extra parameters; {min, median, max} of seconds, of the ratio to KD (time), of MB, of the ratio to KD (memory)
    "What a step costs, beside plain KD."
    device = learn.data.device
    timed = time_pairs(partial(take_steps, kd), partial(take_steps, learn), pairs, steps, waiter_for(device))
    held, base = _held(learn, peaks), base or _held(kd, peaks)
    return dict(
        extra_params=num_params(learn.scheme) - num_params(learn.student),
        seconds=spread_of([b for _, b in timed]),
        time=spread_of([b / a for a, b in timed]),
        mb=spread_of([m / 2**20 for m in held]),
        memory=spread_of([m / b for m, b in zip(held, base)]))


class Costs(list):
    "Rows of `bench_methods`, shown as a table; `.about` says of what, on what and when."

    head = (
        f"{'':13}{'extra parameters':>18}{'time / KD':>12}{'min to max':>16}{'seconds':>10}{'memory / KD':>14}{'MB':>9}"
    )

    def __init__(self, rows=(), about=None):
        super().__init__(rows)
        self.about = about

    @staticmethod
    def line(r):  # a row as text
        "A row of the table."
        t, m = r['time'], r['memory']
        return (
            f"{r['method']:13}{r['extra_params']:>18,}{t['median']:>12.2f}"
            + f"{t['min']:.2f} to {t['max']:.2f}".rjust(16)
            + f"{r['seconds']['median']:>10.3f}{m['median']:>14.2f}{r['mb']['median']:>9.0f}")

    def __repr__(self): return '\n'.join([self.head, *map(self.line, self)])


def build_net(methods, teacher, student, data):
    "{method: what learns}, all of them before anything is measured: a mistake shows at once."
    with seeded(1):
        teacher = create_model(teacher, data.num_classes)
    with seeded(1):
        twin = create_model(student, data.num_classes)

    def build(m):
        return (
            _student(student, data)
            if m == 'alone'
            else Distill(_student(student, data), twin if m.startswith('self') else teacher, m, size=data.size))

    return {m: build(m) for m in dict.fromkeys(methods)}


def bench_methods(
    methods=None,  # strings; None: all
    pairs=7,  # of timed pieces, the method's beside plain KD's
    bs=64,  # images in a batch
    device=None,  # None: a CUDA GPU where there is one
    teacher='resnet32x4',  # name of the model that teaches
    student='resnet8x4',  # name of the model that learns
    num_classes=100,  # of the labels
    size=32,  # pixels of a side
    say=None,  # called with each line of the table as it comes
) -> Costs:
    "What a step of each method costs, beside plain KD."
    if type(pairs) is not int or pairs < 1: raise ValueError(f'pairs must be a whole number from 1 up, not {pairs!r}')
    say, data = say or (lambda line: None), noise_data(bs, num_classes, size, device)
    models, kd = (
        build_net(methods or method_names(), teacher, student, data),
        _ready(build_net(['kd'], teacher, student, data)['kd'], data))
    steps, base = 20 if data.device.type == 'cuda' else 1, _held(kd, 2)
    say(Costs.head)
    rows = Costs(
        about=dict(
            teacher=teacher,
            student=student,
            classes=num_classes,
            bs=bs,
            size=size,
            pairs=pairs,
            steps=steps,
            threads=torch.get_num_threads(),
            dtype=str(kd.dtype or torch.float32).removeprefix('torch.'))
        | about_process(data.device))
    for name, model in models.items():
        rows.append(dict(method=name) | method_cost(_ready(model, data), kd, pairs, steps, 2, base))
        say(Costs.line(rows[-1]))
    return rows
