"""Kills: of a run, of a process that reads for it, of one of several that share a sweep or train together."""

import os
import random
import signal
import time
from functools import cache, partial
from pathlib import Path

from torch.distributed import TCPStore

from kdnb.experiments import sweep
from kdnb.parallel import joined
from kdnb.train import Learner

from .runs import EPOCHS, SCHEMES, die_after, digits, empty, end_of, learner, result, start, train, undisturbed

def _die_in_a_write(rng: random.Random) -> None:
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


def _kill_a_reader() -> None:
    "Kill a process that this one has started."
    readers = Path(f'/proc/self/task/{os.getpid()}/children').read_text().split()
    os.kill(int(readers[0]), signal.SIGKILL)


def _mortal(rng: random.Random, name: str, folder: Path) -> None:
    "Train until it dies, or until one of the processes dies that read for it."
    if name == 'streamed' and rng.random() < .4:
        die_after(rng.randint(1, 9), _kill_a_reader)
    else:
        die_after(rng.randint(1, 7))
        _die_in_a_write(rng) if rng.random() < .5 else None
    train(name, folder)


def _kill(rng: random.Random, root: Path, name: str) -> None:
    expected, _ = undisturbed(name, root)
    folder = empty(root/'killed')
    for _ in range(rng.randint(1, 3)):
        code = end_of(start(partial(_mortal, rng, name, folder)))
        assert code in (0, 1, -9), f'{name} ends with {code}'
        rng.random()
    train(name, folder)
    assert result(folder) == expected, f'{name} ends otherwise'
    assert not [*folder.glob('*.tmp')], 'a file of a dead process is left'


def kill(rng: random.Random, root: Path) -> None:
    "A run is killed once to three times, in a step or in a write, and then ends as if nothing had happened."
    _kill(rng, root, rng.choice([*SCHEMES]))


def kill_while_streaming(rng: random.Random, root: Path) -> None:
    "The same of a run that reads a folder by two processes; or one of these is killed, and the run ends in words."
    _kill(rng, root, 'streamed')


def kill_while_compiled(rng: random.Random, root: Path) -> None:
    "The same of a run with compile=True (a small net; TorchDynamo with the backend 'eager')."
    _kill(rng, root, 'compiled')


# --- three processes that share a sweep

def _sweep(runs: Path, die: int = 0) -> None:
    "A teacher, two students alone and two taught; it dies after so many steps, if any."
    real = time.sleep
    time.sleep = lambda seconds: real(min(seconds, .05))      # the look at what others are making
    os.environ['KDNB_RUNS'] = str(runs)
    Learner.callbacks = []
    die_after(die)
    made = sweep('resnet8', 'resnet14', 'kd', seeds=2, epochs=EPOCHS, data=digits(), name='s')
    assert not made.left_out


def _results(runs: Path) -> dict: return {folder.name: result(folder) for folder in runs.glob('s-*')}


@cache
def _whole_sweep(root: Path) -> dict:
    assert end_of(start(partial(_sweep, root/'whole-sweep'))) == 0
    return _results(root/'whole-sweep')


def kill_in_a_sweep(rng: random.Random, root: Path) -> None:
    "Of three processes of a sweep one or two are killed; the third ends it, and each run is as in one process."
    expected, runs = _whole_sweep(root), empty(root/'swept')
    deaths = [rng.randint(1, 12), rng.choice([0, rng.randint(1, 12)]), 0]
    codes = [*map(end_of, [start(partial(_sweep, runs, die)) for die in deaths])]
    assert set(codes[:2]) <= {0, -9} and codes[2] == 0, codes
    assert len(expected) == 5 and _results(runs) == expected


# --- two processes that train together

def _rank(number: int, port: int, name: str, folder: Path, die: int) -> None:
    "What torchrun starts."
    os.environ.update(RANK=str(number), LOCAL_RANK=str(number), WORLD_SIZE='2', LOCAL_WORLD_SIZE='2',
                      MASTER_ADDR='localhost', MASTER_PORT=str(port), TORCHELASTIC_USE_AGENT_STORE='True',
                      TORCHELASTIC_RESTART_COUNT='0')
    die_after(die)
    with joined(): learner(name, folder).fit(EPOCHS)


def _two(name: str, folder: Path, dies: tuple[int, int] = (0, 0), end: bool = False) -> list[int]:
    "Exit codes of two that train together; `end`: as torchrun does, end the others when one has died."
    store = TCPStore('localhost', 0, is_master=True, wait_for_workers=False)
    children = [start(partial(_rank, k, store.port, name, folder, die)) for k, die in enumerate(dies)]
    first = 0 if dies[0] else 1
    codes = {first: end_of(children[first])}
    if end and codes[first] == -9: os.kill(children[1 - first], signal.SIGTERM)
    codes[1 - first] = end_of(children[1 - first])
    return [codes[0], codes[1]]


@cache
def _together(name: str, root: Path) -> tuple:
    assert _two(name, root/f'together-{name}') == [0, 0]
    return result(root/f'together-{name}')


def kill_of_a_rank(rng: random.Random, root: Path) -> None:
    "One of two processes that train together is killed: the other ends in words; both go on as if it had not been."
    name, folder, victim = rng.choice(['alone', 'kd+at', 'online', 'ema']), empty(root/'ranks'), rng.randrange(2)
    expected = _together(name, root)
    dies = (rng.randint(1, 6), 0) if victim == 0 else (0, rng.randint(1, 6))
    codes = _two(name, folder, dies, rng.random() < .5)
    assert codes[victim] == -9 and codes[1 - victim] in (0, 1), codes
    assert _two(name, folder) == [0, 0]
    assert result(folder) == expected, f'{name} ends otherwise'
