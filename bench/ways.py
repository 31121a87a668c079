"""kdnb's way to take a step, a way in a process of its own, and images a second of KD by each.

A process that frees memory may give it back to the system page by page, and ask for it again in the next step; how
often depends on what else lies on the heap. Two ways in one process would share that, and a learner, which keeps what
it frees, would hand the plain way a lever that its users do not have. So the plain way runs in a process of its own,
as it does for everybody, and is asked for a piece when it is its turn.

A piece is as many steps as kdnb's eager way takes in about a second, so that a clock and a passing program matter
little; the other ways take the same number. `torch.compile` needs a C++ compiler: where a way cannot take a step, its
row tells why, and the rest is measured all the same.
"""
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import nn

from kdnb.data import Data
from kdnb.schemes import Distill
from kdnb.train import Learner, begin_fit, open_epoch, train_step

from .plain import PlainWay, batches_forever, bench_data, named_nets
from .rows import images_row, table_row
from .timing import Wait, Way, steps_for, time_rounds, waiter_for

ROOT = Path(__file__).resolve().parent.parent

class OurWay(Way):
    """The steps of a learner, as `fit` takes them."""
    def __init__(self, learn: Learner):
        self.learn = learn
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            begin_fit(learn, 240, fresh=False)
        learn.scheme.begin_epoch(0, 240)
        open_epoch(learn)
        self.batches = batches_forever(lambda epoch: learn.scheme.batches(learn.train, 0, epoch))

    def __call__(self) -> None: train_step(self.learn, *next(self.batches))

    def ready(self) -> None:
        open_epoch(self.learn)
        self()

def same_net(net: nn.Module) -> nn.Module: return net

def kd_learner(teacher: str, student: str, data: Data, method: str = 'kd',
               prepare: Callable[[nn.Module], nn.Module] = same_net, **how) -> Learner:
    "A learner with these models, given by their names; `prepare` is for the teacher, `how` for the learner."
    taught_by, net = named_nets(teacher, student, data.num_classes)
    return Learner(Distill(net, prepare(taught_by), method, size=data.size), data, cbs=None, **how)

def our_kd(teacher: str, student: str, data: Data, **how) -> OurWay:
    "kdnb's way to teach a student by KD."
    return OurWay(kd_learner(teacher, student, data, **how))

class Apart(Way):
    """A way in a process of its own: 'plain', or 'freeing', which is kdnb with the C library as it comes."""
    def __init__(self, way: str, teacher: str, student: str, data: Data):
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
        self.process = subprocess.Popen(
            [sys.executable, '-c', 'from bench.ways import serve; serve()'], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, start_new_session=True, env=os.environ | dict(PYTHONPATH=path))
        images = data.train.bs, len(data.train), str(data.device), data.name == 'noise'
        self._ask(json.dumps(dict(way=way, nets=(teacher, student), data=images, threads=torch.get_num_threads())))

    def _ask(self, line: str) -> float:
        print(line, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer: raise RuntimeError('the process of this way ended: its last words are above')
        return float(answer)

    def piece(self, steps: int, wait: Wait) -> float: return self._ask(str(steps))

    def close(self) -> None:
        "End the process."
        self.process.kill()
        self.process.wait()

    def __del__(self) -> None: self.close()

def _freeing(teacher: str, student: str, data: Data) -> OurWay:
    "kdnb's way without `keep_freed_memory`, which leaves the C library alone where a variable sets it."
    os.environ['MALLOC_AS_IT_COMES'] = '1'
    return our_kd(teacher, student, data)

def serve() -> None:
    "The other end of `Apart`: build a way, then answer each number of steps with the seconds of one."
    asked = json.loads(input())
    torch.set_num_threads(asked['threads'])
    data = bench_data(*asked['data'])
    make = {'plain': PlainWay, 'freeing': _freeing}[asked['way']]
    way, wait = make(*asked['nets'], data), waiter_for(data.device)
    for _ in range(3):
        way.ready()
    print(0., flush=True)
    for line in sys.stdin:
        print(way.piece(int(line), wait), flush=True)

def _first_line(e: Exception) -> str:
    "The name of an error and the beginning of its message, in one line."
    message = (str(e).splitlines() or [''])[0]
    return f"{type(e).__name__}, {' '.join(message.split())[:120]}"

def warmed_up(ways: Mapping[str, Callable[[], Way]]) -> tuple[dict[str, Way], dict[str, str]]:
    "({name: way} of those that can take a step, {name: reason} of the others), from functions that make them."
    able, why = {}, {}
    for name, make in ways.items():
        try:
            way = make()
            for _ in range(3):                      # a CUDA graph is recorded in the second step
                way.ready()
            able[name] = way
        except Exception as e:
            why[name] = f'not measured: {_first_line(e)}'
    return able, why

def bench_speed(teacher: str, student: str, data: Data, rounds: int = 5, seconds: float = 1.,
                compiled: bool = True) -> list[dict]:
    "Rows of images a second of KD: the plain way, kdnb, and kdnb compiled, each by the plain way's."
    nets, wait, bs = (teacher, student), waiter_for(data.device), data.train.bs
    first = our_kd(*nets, data)
    torch.compiler.reset()                          # what was compiled for other nets counts against a limit
    ours: dict[str, Callable[[], Way]] = {'kdnb': lambda: first}
    if compiled:
        ours['kdnb, compile=True'] = partial(our_kd, *nets, data, compile=True)
    able, why = warmed_up(ours)
    ways = {'the plain way': Apart('plain', *nets, data)} | able
    took = time_rounds(ways, rounds, steps_for(first, seconds, wait), wait)
    what, about = f'{teacher} -> {student}, batch {bs}', dict(nets=[teacher, student])
    rows = [images_row('speed', f'{what}: {name}', bs, took['the plain way'], times, way=name, **about)
            for name, times in took.items()]
    return rows + [table_row('speed', f'{what}: {name}', 'the plain way', bs=bs, way=name, why=reason, **about)
                   for name, reason in why.items()]
