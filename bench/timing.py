"""Time several ways of taking a step in turn, and read the most memory that a step holds at a time.

A processor becomes warm, another program starts, and the way that was measured second looks slow. So ways take turns,
A B C A B C ...: a round gives one ratio, taken within seconds, and the ratios have a median and a spread. A GPU works
on behind Python's back; there the clock is read when all that was asked for is done.

Whether a batch fits is decided by the most that is held *at a time*. CUDA keeps that number. On a CPU the profiler
writes down each time that PyTorch takes or gives back memory, and these events carry the total at that moment. Its
own tables add up what each operation took and gave, which is a smaller number. Memory that PyTorch's allocator does
not hand out is left out: oneDNN's scratch space on a CPU, CUDA's context on a GPU. It is the same for all methods.
"""
import gc
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from kdnb.train import Learner

Wait = Callable[[], object]          # called before the clock is read

class Way:
    """A way to take a step, which is to call it. What it does before and after a piece is not timed."""
    def __call__(self) -> object: raise NotImplementedError
    def ready(self) -> None: "Get going, before a piece."
    def rest(self, seconds: float) -> None: "Come to rest, after a piece whose steps took so many seconds each."

    def piece(self, steps: int, wait: Wait) -> float:
        "Seconds of a step, of so many."
        self.ready()
        wait()
        start = time.perf_counter()
        for _ in range(steps):
            self()
        wait()
        seconds = (time.perf_counter() - start) / steps
        self.rest(seconds)
        return seconds

class _Function(Way):
    """A function that takes a step."""
    def __init__(self, step: Callable[[], object]):
        self.step = step
    def __call__(self) -> object: return self.step()

def no_wait() -> None: "On a CPU work is done when it returns."

def waiter_for(device: torch.device) -> Wait:
    "What waits until a device has done its work."
    return partial(torch.cuda.synchronize, device) if device.type == 'cuda' else no_wait

def time_rounds(ways: Mapping, rounds: int = 7, steps: int = 1, wait: Wait = no_wait) -> dict:
    "Time ways or functions in turn: {name: [seconds of a step, a number a round]}."
    took = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            turn = way if isinstance(way, Way) else _Function(way)
            took[name].append(turn.piece(steps, wait))
    return took

def time_pairs(a, b, pairs: int = 7, steps: int = 1, wait: Wait = no_wait) -> list[tuple[float, float]]:
    "Time two ways in turn: (seconds of a step of a, of b), a tuple a pair."
    took = time_rounds(dict(a=a, b=b), pairs, steps, wait)
    return [*zip(took['a'], took['b'], strict=True)]

def steps_for(way: Way, seconds: float, wait: Wait) -> int:
    "How many steps take about so many seconds, at least three."
    for _ in range(2):
        way.ready()
    wait()
    start = time.perf_counter()
    for _ in range(3):
        way()
    wait()
    return max(3, round(3*seconds / (time.perf_counter() - start)))

def spread_of(values: list[float]) -> dict[str, float]:
    "Least, median and most."
    return dict(min=min(values), median=median(values), max=max(values))

def quiet_profiler() -> None:
    "Keep the profiler's own log off the screen."
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')

def _memory_events(work: Callable[[], object]) -> list[dict]:
    "What the profiler writes down of the CPU's memory during `work()`, in order."
    quiet_profiler()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as p:
        work()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'trace.json')
        p.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding='utf-8'))['traceEvents']
    on_cpu = [e for e in events if e['name'] == '[memory]' and e['args']['Device Type'] == 0]
    return sorted(on_cpu, key=lambda e: e['ts'])

def _peak_on_cpu(work: Callable[[], object]) -> int:
    "The largest total; the count goes on from profile to profile, so the first event tells where it began."
    events = [e['args'] for e in _memory_events(work)]
    if not events: return 0
    began = events[0]['Total Allocated'] - events[0]['Bytes']
    return max(0, max(e['Total Allocated'] for e in events) - began)

def peak_memory(work: Callable[[], object], device: str | torch.device = 'cpu') -> int:
    "The most bytes that `work()` holds at a time, beyond what was there before."
    device = torch.device(device)
    gc.collect()                                    # what is thrown away already is not thrown away during `work`
    if device.type == 'cpu': return _peak_on_cpu(work)
    if device.type != 'cuda':
        raise ValueError(f"memory is measured on a CPU or a CUDA GPU, not on {device}: give device='cpu'")
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before

def bytes_of(modules: Iterable[nn.Module], opt: torch.optim.Optimizer) -> int:
    "Bytes of weights, buffers and momentum, which are there all the time."
    tensors = [t for m in modules for t in (*m.parameters(), *m.buffers())]
    tensors += [t for state in opt.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
    storages = [t.untyped_storage() for t in tensors]
    return sum({s.data_ptr(): s.nbytes() for s in storages}.values())

def resident_bytes(learn: Learner) -> int:
    "Bytes of a learner's weights, buffers and momentum, with those of its teacher."
    teacher = getattr(getattr(learn.scheme, 'teacher', None), 'model', None)        # of peers it is a word
    return bytes_of([learn.scheme, *([] if teacher is None else [teacher])], learn.opt)
