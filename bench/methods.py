"""What a method costs: seconds and memory of a training step beside plain KD, on one machine, in the same minute.

A method that gains half a point and doubles the time of a step has a rival: plain KD, trained twice as long. So each
method's price belongs beside its gain. A price in seconds tells as much about the machine as about the method; a
price relative to plain KD, with the same teacher, student, batch and number format, can be carried to other machines
more safely.

What is measured is the learner's own loop: data of exactly one batch, so that an epoch is a step. The images are
noise, and the learning rate is 0, so that each step is the same step. One epoch is fitted beforehand: what happens
once is then over (momentum, OFD's margins, the choice of a convolution's algorithm). A method may need *less* memory
than plain KD: where places inside are read, a model runs as generated code, which lets go of each tensor after its
last use.
"""
import warnings
from collections.abc import Callable, Iterable

import torch
from torch import nn

from kdnb.data import Data
from kdnb.methods import SimKD, known_methods, reuse_classifier
from kdnb.models import create_model, num_params
from kdnb.schemes import Distill, parse_scheme
from kdnb.seeds import seeded
from kdnb.train import DOT, Learner, about_process, take_steps

from .timing import peak_memory, resident_bytes, spread_of, time_pairs, waiter_for

def noise_data(bs: int = 64, num_classes: int = 100, size: int = 32, device: str | None = None) -> Data:
    "One batch of noise: an epoch of it is one step."
    for name, value in dict(bs=bs, num_classes=num_classes, size=size).items():
        if type(value) is not int or value < 2:
            raise ValueError(f'{name} must be a whole number from 2 up, not {value!r}')
    g = torch.Generator().manual_seed(0)
    x = torch.randint(256, (bs, 3, size, size), dtype=torch.uint8, generator=g)
    y = torch.randint(num_classes, (bs,), generator=g)
    return Data((x, y), None, (x[:1], y[:1]), range(num_classes), bs, 'crop_flip', device, name='noise')

def fit_one_step(model: nn.Module, data: Data, opt: Callable | None = None) -> Learner:
    "A learner that has taken its first step."
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')             # a term may start high: this is noise
        return Learner(model, data, lr=0., opt=opt, cbs=None).fit(1)

def new_net(name: str, data: Data, seed: int = 0) -> nn.Module:
    "A model for these data, the same one for the same seed."
    with seeded(seed):
        return create_model(name, data.num_classes)

# what is no word of a method: a student with its teacher's classifier, KD by another optimiser, and schemes
BESIDE = 'simkd', 'dot', 'online(2)', 'dml(2)', 'kdcl(2)', 'one'

def method_names() -> list[str]:
    "'alone', each method of kdnb by its first name, and what stands beside them; `ce` is the student alone."
    first = {}
    for name, make in known_methods.items():
        first.setdefault(make, name)
    return ['alone', *(name for name in first.values() if name != 'ce'), *BESIDE]

def _peak(learn: Learner) -> int:
    learn.tally = None                              # the last epoch's, given up while it is measured, would count
    return peak_memory(lambda: take_steps(learn), learn.data.device)

def held_bytes(learn: Learner, times: int) -> list[int]:
    "The most bytes of a step, with those that are there all the time, taken so often."
    return [resident_bytes(learn) + _peak(learn) for _ in range(times)]

def method_cost(learn: Learner, kd: Learner, pairs: int = 7, steps: int = 1, peaks: int = 2,
                base: list[int] | None = None) -> dict:
    "What a step costs beside plain KD, of two learners that have taken a step; `base`: bytes that plain KD holds."
    timed = time_pairs(lambda: take_steps(kd), lambda: take_steps(learn), pairs, steps, waiter_for(learn.data.device))
    held, base = held_bytes(learn, peaks), base or held_bytes(kd, peaks)
    return dict(
        extra_params=num_params(learn.scheme) - num_params(learn.student),
        seconds=spread_of([own for _, own in timed]),
        time=spread_of([own / plain for plain, own in timed]),
        mb=spread_of([bytes_ / 2**20 for bytes_ in held]),
        memory=spread_of([own / plain for own, plain in zip(held, base, strict=True)]))

COST_HEAD = (f"{'':13}{'extra parameters':>18}{'time / KD':>12}{'min to max':>16}{'seconds':>10}{'memory / KD':>14}"
             f"{'MB':>9}")

def cost_line(row: dict) -> str:
    "A row as text, which is printed while others are still measured."
    time = row['time']
    spread = f"{time['min']:.2f} to {time['max']:.2f}"
    return (f"{row['method']:13}{row['extra_params']:>18,}{time['median']:>12.2f}{spread:>16}"
            f"{row['seconds']['median']:>10.3f}{row['memory']['median']:>14.2f}{row['mb']['median']:>9.0f}")

class Costs(list):
    """Rows of `bench_methods`, shown as a table; `.about` tells of what, on what and when.

    The row of `kd` is plain KD beside itself: its spread of time is what this machine's noise does to a ratio, and a
    smaller difference is none.
    """
    def __init__(self, rows: Iterable[dict] = (), about: dict | None = None):
        super().__init__(rows)
        self.about = about
    def __repr__(self) -> str: return '\n'.join([COST_HEAD, *map(cost_line, self)])

def _own_teacher(make: Callable[..., nn.Module], options: dict, student: str, data: Data) -> nn.Module:
    "A scheme that makes its teacher of students, or of the branches of one."
    count = options.pop('students', None)
    nets = [new_net(student, data, seed) for seed in range(count or 1)]
    return make(nets if count else nets[0], **options, size=data.size)

def build_nets(methods: Iterable[str], teacher: str, student: str, data: Data) -> dict[str, nn.Module]:
    "{method: what learns}, all of them before anything is measured: a mistake shows at once."
    taught_by, twin = new_net(teacher, data, seed=1), new_net(student, data, seed=1)

    def build(method: str) -> nn.Module:
        if method == 'alone': return new_net(student, data)
        make, options = parse_scheme(method) or (None, {})
        if make: return _own_teacher(make, options, student, data)
        source = twin if method.startswith('self') else taught_by
        if method == 'simkd':
            reusing = reuse_classifier(new_net(student, data), source, data.size)
            return Distill(reusing, source, SimKD(), size=data.size)
        return Distill(new_net(student, data), source, 'kd' if method == 'dot' else method, size=data.size)

    return {method: build(method) for method in dict.fromkeys(methods)}

def bench_methods(methods: list[str] | None = None, pairs: int = 7, bs: int = 64, device: str | None = None,
                  teacher: str = 'resnet32x4', student: str = 'resnet8x4', num_classes: int = 100, size: int = 32,
                  tell: Callable[[str], object] | None = None) -> Costs:
    "What a step of each method costs beside plain KD; `tell` is called with each line of the table as it comes."
    if type(pairs) is not int or pairs < 1: raise ValueError(f'pairs must be a whole number from 1 up, not {pairs!r}')
    data = noise_data(bs, num_classes, size, device)
    models = build_nets(methods or method_names(), teacher, student, data)
    kd = fit_one_step(build_nets(['kd'], teacher, student, data)['kd'], data)
    steps, base = 20 if data.device.type == 'cuda' else 1, held_bytes(kd, 2)
    rows, tell = Costs(), tell or len
    tell(COST_HEAD)
    for name, model in models.items():
        learn = fit_one_step(model, data, DOT if name == 'dot' else None)
        rows.append(dict(method=name) | method_cost(learn, kd, pairs, steps, 2, base))
        tell(cost_line(rows[-1]))
    rows.about = dict(
        teacher=teacher, student=student, classes=num_classes, bs=bs, size=size, pairs=pairs, steps=steps,
        threads=torch.get_num_threads(), dtype=str(kd.dtype or torch.float32).removeprefix('torch.')
        ) | about_process(data.device)
    return rows
