"""The small trainings that are attacked, and what they give when nothing happens to them."""

import os
import shutil
import signal
import time
import traceback
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from unittest.mock import patch

import torch
from PIL import Image
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from kdnb.data import load_data
from kdnb.errors import MISTAKES
from kdnb.models import create_model, read_weights, weights_hash
from kdnb.schemes import Alone, Distill, JointRD, Online
from kdnb.seeds import seeded
from kdnb.systems import Recipe
from kdnb.train import Learner, Run, read_history

EPOCHS = 2


@cache
def digits(): return load_data('digits', size=8, n_train=60, bs=20, device='cpu')


@cache
def image_folder(root: Path) -> Path:
    "A folder of 75 images of three classes."
    x, y = digits().examples(60, 'train')
    for i, (image, _) in enumerate(zip((x*99 + 99).clamp(0, 255).byte().permute(0, 2, 3, 1), y)):
        path = root/'images'/'abc'[i % 3]/f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(path)
    return root/'images'


def streamed(root: Path):
    "Loaded anew each time: its readers are those of the process that began an epoch."
    return load_data(image_folder(root), size=8, bs=10, device='cpu', stream=True, workers=2)


def net(name='resnet8'): return create_model(name, 10)


@cache
def teacher():
    with seeded(5): return net()


SCHEMES = {
    'alone': lambda: Alone(net()),
    'kd+at': lambda: Distill(net(), teacher(), 'kd+at'),
    'fitnet': lambda: Distill(net(), teacher(), 'fitnet'),
    'crd (bank)': lambda: Distill(net(), teacher(), 'crd'),
    'jointrd': lambda: JointRD(net('plainnet8'), teacher(), size=8),
    'online': lambda: Online([net(), net()]),
    'ema': lambda: Alone(net())}
OTHERS = {
    'streamed': lambda: Alone(create_model('resnet8', 3)),
    'compiled': lambda: Alone(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10)))}


def learner(name: str, folder: Path, cbs=()) -> Learner:
    "A learner of a scheme, or of 'streamed' or 'compiled'; its data lie beside its folder."
    with seeded(0): scheme = (SCHEMES | OTHERS)[name]()
    recipe = Recipe(epochs=240, lr=.05, wd=5e-4, schedule='cosine', ema=.9) if name == 'ema' else 'crd'
    data = streamed(folder.parent) if name == 'streamed' else digits()
    return Learner(scheme, data, run=folder, recipe=recipe, compile=name == 'compiled', cbs=[*cbs])


def train(name: str, folder: Path, cbs=()) -> Learner:
    with patch('torch.compile', partial(torch.compile, backend='eager')):
        return learner(name, folder, cbs).fit(EPOCHS)


def result(folder: Path) -> tuple:
    "All that a run came to, but for how long it took."
    run = Run(folder)
    rows = [{k: v for k, v in row.items() if k not in ('seconds', 'images_per_second')} for row in read_history(run)]
    return rows, run.json('result.json'), weights_hash(read_weights(folder/'last.pt')['state'])


@cache
def undisturbed(name: str, root: Path) -> tuple[tuple, Path]:
    "What a run gives that nothing happens to, and its folder."
    folder = root/f'whole-{name}'
    train(name, folder)
    return result(folder), folder


def empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


# --- processes

def die_after(steps: int, then=lambda: os.kill(os.getpid(), signal.SIGKILL)) -> None:
    "Let this process die, or do something else, after so many steps of its optimisers."
    left = steps

    def step(*_):
        nonlocal left
        left -= 1
        if left == 0: then()

    register_optimizer_step_post_hook(step)


def start(call) -> int:
    "Call in a process of its own, which ends with 0 if it returns, 1 if it is refused in words, else 2; its number."
    child = os.fork()
    if child: return child
    code = 2
    try:
        call()
        code = 0
    except MISTAKES as e: code = 1 if str(e) else 2
    except BaseException: traceback.print_exc()
    finally: os._exit(code)


def end_of(child: int, seconds: int = 120) -> int:
    "The exit code of a process; it must end in time."
    with within(seconds): return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@contextmanager
def within(seconds: int):
    "Fail if it takes longer."
    def late(*_): raise AssertionError(f'it took over {seconds} s')

    old, begin = signal.signal(signal.SIGALRM, late), time.monotonic()
    signal.alarm(seconds)
    try:
        yield begin
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


def one_sentence(call):
    "What a call returns; None if it was refused in words."
    try:
        return call()
    except MISTAKES as e: assert str(e) and 'Traceback' not in str(e)
