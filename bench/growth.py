"""How the time of a step grows with the work: one quantity is raised, the others stay as small as they are.

The step is that of KD, student and teacher of one kind, on noise. A second method is added to the first, a third to
these. What the work is proportional to is the quantity itself, but for the width of a net and the side of an image,
whose squares it is: drawn over that, a time that has no reason to do otherwise is a straight line. Batches grow to
eight times the least.

We left out two quantities at once, and the memory, which `make bench` measures for each method.
"""
from collections.abc import Iterator

from kdnb.models import resnet
from kdnb.schemes import Distill
from kdnb.train import Learner

from .methods import noise_data
from .rows import table_row
from .timing import steps_for, time_rounds, waiter_for
from .ways import OurWay

LEAST = dict(depth=8, width=1, classes=10, pixels=32, methods=1)
VALUES = dict(depth=(8, 20, 32, 44, 56), width=(1, 2, 3, 4), classes=(10, 5000, 10_000, 21_000),
              pixels=(32, 48, 64, 96), methods=(1, 2, 4, 6, 8))
BATCHES = 1, 2, 4, 6, 8                              # as many times the least
SQUARED = 'width', 'pixels'                         # the work grows with their squares
METHODS = 'kd', 'dkd', 'dist', 'pkt', 'sp', 'rkd', 'at', 'fitnet'

def _way(device: str | None, depth: int, width: int, batch: int, classes: int, pixels: int, methods: int) -> OurWay:
    "The steps of a student that is as large as its teacher."
    data = noise_data(batch, classes, pixels, device)
    student, teacher = (resnet(depth, classes, width) for _ in range(2))
    return OurWay(Learner(Distill(student, teacher, '+'.join(METHODS[:methods])), data, cbs=None))

def bench_growth(bs: int = 32, n: int | None = None, rounds: int = 5, seconds: float = .25, device: str | None = None
                 ) -> Iterator[dict]:
    "Rows of the seconds of a step, by those of the least value; `n`: of each quantity so many values only."
    for what, values in [*VALUES.items(), ('batch', [bs*v for v in BATCHES])]:
        ways = {v: _way(device, **LEAST | dict(batch=bs) | {what: v}) for v in values[:n]}
        wait = waiter_for(next(iter(ways.values())).learn.data.device)
        for way in ways.values():
            way.ready()
        took = time_rounds(ways, rounds, steps_for(ways[values[0]], seconds, wait), wait)
        for v, times in took.items():
            ratios = [own / least for own, least in zip(times, took[values[0]], strict=True)]
            yield table_row('growth', f'{what} {v:,}', f'{what} {values[0]:,}', ratios, times, 's/step', what=what,
                            at=v)
