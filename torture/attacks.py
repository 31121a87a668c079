"""The attacks: each takes random numbers and a folder, and raises if something was lost, was run, or fell over."""

import inspect
import json
import os
import random
import shutil
import signal
import warnings
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import cache
from io import StringIO
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

import kdnb.all
import kdnb.cli as commands
from kdnb.data import load_data
from kdnb.errors import MISTAKES, Mistake
from kdnb.experiments import load_results, repeat_options
from kdnb.models import create_model, load_model, read_weights, weights_hash
from kdnb.schemes import Alone, Distill, JointRD, Online
from kdnb.seeds import seeded
from kdnb.systems import Recipe
from kdnb.train import Callback, Learner, Run, read_history

from .odd import ODD, VALUES, flip, odd_history, odd_json

EPOCHS = 2


@cache
def _data(): return load_data('digits', size=8, n_train=60, bs=20, device='cpu')


def _net(name='resnet8'): return create_model(name, 10)


@cache
def _teacher():
    with seeded(5): return _net()


SCHEMES = {
    'alone': lambda: Alone(_net()),
    'kd+at': lambda: Distill(_net(), _teacher(), 'kd+at'),
    'fitnet': lambda: Distill(_net(), _teacher(), 'fitnet'),
    'crd (bank)': lambda: Distill(_net(), _teacher(), 'crd'),
    'jointrd': lambda: JointRD(_net('plainnet8'), _teacher(), size=8),
    'online': lambda: Online([_net(), _net()]),
    'ema': lambda: Alone(_net())}


def _learner(name, folder, cbs=()):
    with seeded(0): scheme = SCHEMES[name]()
    recipe = Recipe(epochs=240, lr=.05, wd=5e-4, schedule='cosine', ema=.9) if name == 'ema' else 'crd'
    return Learner(scheme, _data(), run=folder, recipe=recipe, cbs=[*cbs])


def _result(folder):
    run = Run(folder)
    rows = [{k: v for k, v in row.items() if k not in ('seconds', 'images_per_second')} for row in read_history(run)]
    return rows, run.json('result.json'), weights_hash(read_weights(folder/'last.pt')['state'])


@cache
def _whole(name, root):
    "What the uninterrupted run gives, and its folder."
    folder = Path(root)/f'whole-{name}'
    _learner(name, folder).fit(EPOCHS)
    return _result(folder), folder


class _Die(Callback):
    def __init__(self, step): self.left = step

    def after_batch(self, learn):
        self.left -= 1
        if self.left == 0: os.kill(os.getpid(), signal.SIGKILL)


def _die_in_a_write(rng):
    "Let this process be killed in one of its calls to the system's fsync or replace, before or after it."
    name, left, after = rng.choice(['fsync', 'replace']), rng.randint(1, 9), rng.random() < .5
    real = getattr(os, name)

    def call(*args):
        nonlocal left
        left -= 1
        if left == 0 and not after: os.kill(os.getpid(), signal.SIGKILL)
        real(*args)
        if left == 0: os.kill(os.getpid(), signal.SIGKILL)

    setattr(os, name, call)


def kill(rng: random.Random, root: Path) -> None:
    "A run is killed once to three times, in a step or in a write, and then ends as if nothing had happened."
    name, folder = rng.choice([*SCHEMES]), root/'killed'
    expected, _ = _whole(name, str(root))
    shutil.rmtree(folder, ignore_errors=True)
    for _ in range(rng.randint(1, 3)):
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                _die_in_a_write(rng) if rng.random() < .5 else None
                _learner(name, folder, [_Die(rng.randint(1, 7))]).fit(EPOCHS)
            os._exit(0)
        os.waitpid(child, 0)
        rng.random()
    _learner(name, folder).fit(EPOCHS)
    assert _result(folder) == expected, f'{name} ends otherwise'
    assert not [*folder.glob('*.tmp')], 'a file of a dead process is left'


def _one_sentence(call):
    "What a call returns; None if it was refused in words."
    try:
        return call()
    except MISTAKES as e: assert str(e) and 'Traceback' not in str(e)


def bit_flip(rng: random.Random, root: Path) -> None:
    "One to eight bits of a file of a finished or unfinished run change: refused, mended, or nothing changed."
    name = rng.choice(['alone', 'kd+at'])
    _, whole = _whole(name, str(root))
    folder = root/'flipped'
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    if rng.random() < .5: (folder/'result.json').unlink()
    file = rng.choice(sorted(folder.iterdir()))
    file.write_bytes(flip(file.read_bytes(), rng, rng.randint(1, 8)))
    _one_sentence(lambda: load_results(str(folder)))
    for which in 'best', 'last': _one_sentence(lambda w=which: load_model(folder, w))
    learn = _one_sentence(lambda: _learner(name, folder).fit(EPOCHS))
    if learn is not None and file.suffix == '.pt':
        assert weights_hash(learn.student) == weights_hash(load_model(whole, 'last')), 'other weights, and no word'


def _drawn(rng, strategy):
    "One example of a strategy of hypothesis, from these random numbers."
    found = []

    @seed(rng.randrange(2**32))
    @settings(max_examples=1, database=None, phases=[Phase.generate], deadline=None,
              suppress_health_check=list(HealthCheck))
    @given(strategy)
    def draw(value): found.append(value)

    draw()
    return found[-1]


def damaged_file(rng: random.Random, root: Path) -> None:
    "A file of a run has odd contents, is cut short or is noise: every loader takes it or refuses it in words."
    _, whole = _whole('kd+at', str(root))
    folder = root/'damaged'
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    name = rng.choice(['config.json', 'result.json', 'history.jsonl', 'last.pt', 'best.pt'])
    content = (folder/name).read_bytes()
    kind = rng.randrange(3) if name.endswith('.pt') else 2
    if kind == 0: content = content[:rng.randrange(len(content))]
    if kind == 1: content = rng.randbytes(rng.randrange(300))
    if kind == 2 and name == 'history.jsonl': content = _drawn(rng, odd_history(read_history(Run(folder))))
    elif kind == 2 and name.endswith('.json'): content = _drawn(rng, odd_json(json.loads(content)))
    (folder/name).write_bytes(content)
    if kind == 2 and name.endswith('.pt'):
        saved = torch.load(folder/name, weights_only=True)
        saved[rng.choice([*saved])] = rng.choice([None, 3, [], {}, 'x', {'a': 1}])
        torch.save(saved, folder/name)
    results = load_results([whole, folder])
    assert whole.name in {row['run'] for row in results}
    results.table().text(), results.table().csv()
    for call in (lambda: repeat_options(folder/'config.json'), lambda: load_model(folder),
                 lambda: create_model('resnet8', 10, weights=folder/'last.pt')):
        _one_sentence(call)


@contextmanager
def _within(seconds):
    def late(*_): raise AssertionError(f'it took over {seconds} s')

    old = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


WRONG = [v for v in ODD if not isinstance(v, str)]
WRONG += ['', 'nobody', '=1+1', '\x1b', -1.5, 2**70, object(), torch.ones(0), _net]
# They would fetch, or train for hours, if a value happened to fit; an exception and a list take what they are given.
LEFT_OUT = {'load_data', 'sweep', 'list_zoo', 'Diverged', 'Method'}


def wrong_call(rng: random.Random, root: Path) -> None:
    "A name of `kdnb.all` is called with odd values: it answers, or refuses in words, within a minute."
    names = [n for n in kdnb.all.__all__ if callable(getattr(kdnb.all, n)) and n not in LEFT_OUT]
    name = rng.choice(names)
    called = getattr(kdnb.all, name)
    every = inspect.signature(called).parameters.values()
    wanted = [p for p in every if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    args = {p.name: rng.choice(WRONG) for p in wanted if p.default is p.empty or rng.random() < .3}
    with _within(60), suppress(Mistake): called(**args)


COMMANDS = 'kdnb_train', 'kdnb_distill', 'kdnb_test', 'kdnb_sweep', 'kdnb_report'


def wrong_command(rng: random.Random, root: Path) -> None:
    "A command with odd options: exit code 0 to 2, and at most one line of words beside the usage."
    name = rng.choice(COMMANDS)
    options = ('--data --size --bs --epochs --lr --seed --method --teacher --student --run --config --valid --n-train '
               '--amp --recipe --device --remember --init --callback --allow-code').split()
    odd = '-1', '0', '1e30', '10' * 20, 'nan', '', 'nobody', '=1', 'x' * 300, 'os:system', '../..'
    words = [rng.choice(['nobody', '', '*', '/dev/null'])] if name in ('kdnb_test', 'kdnb_report') else []
    words += ['--epochs', '0'] if 'train' in name or 'distill' in name else []
    for option in rng.sample(options, rng.randint(1, 4)):
        words += [option, rng.choice(odd)]
    err = StringIO()
    with _within(60), redirect_stderr(err), redirect_stdout(StringIO()):
        try:
            code = getattr(commands, name)(words)
        except SystemExit as e: code = e.code
    assert code in (0, 1, 2) and 'Traceback' not in err.getvalue(), (code, err.getvalue()[-300:])


def odd_value(rng: random.Random, root: Path) -> None:
    "JSON of any shape in the place of a configuration."
    folder = root/'odd'
    folder.mkdir(exist_ok=True)
    (folder/'config.json').write_text(json.dumps(_drawn(rng, VALUES)))
    assert not load_results([folder])


ATTACKS = {kill: 250, bit_flip: 2000, damaged_file: 8000, odd_value: 2000, wrong_call: 1500, wrong_command: 500}
warnings.simplefilter('ignore')
