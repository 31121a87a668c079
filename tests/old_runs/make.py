"""Make the frozen runs of this folder: `python tests/old_runs/make.py`, with the kdnb whose runs are to be frozen."""
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from kdnb.all import (
    Callback,
    Distill,
    JointRD,
    Learner,
    Online,
    grow,
    load_data,
    load_model,
    remember,
    resnet,
    seeded,
    shrink,
)

HERE = Path(__file__).resolve().parent
EPOCHS = 4        # of each run
CUT_AFTER = 2     # whole epochs of an interrupted run
SIZE = 8          # pixels of a side: the digits' own
CLOCK = 'seconds', 'images_per_second'


@lru_cache
def data(recipe: str, valid: int = 50, n_train: int = 120):
    "Digits in batches of 20: six steps an epoch, or thirty for the teachers."
    return load_data('digits', size=SIZE, n_train=n_train, valid=valid, bs=20, device='cpu', recipe=recipe)


# --- the models

def narrow() -> nn.Module:
    "A student of 3, 6, 12 channels."
    return resnet(8, width=3/16)


def wide() -> nn.Module:
    "A teacher of 4, 8, 16 channels."
    return resnet(8, width=1/4)


def grown() -> nn.Module:
    "ReduceNet's teacher; it no longer has a call that builds it."
    return grow(wide())


class Residual(nn.Module):
    "In the place of a sum: the residual alone."
    def forward(self, r, x):
        return r


def plain() -> nn.Module:
    "A plain net of the teacher's widths, made by editing a residual one: its call is no longer true."
    model = wide()
    for i, stage in enumerate(model.stages):
        for block in stage[i > 0:]:
            block.short, block.add = nn.Identity(), Residual()
    return model


# --- the runs

class Kind(NamedTuple):
    "How a run is made."
    build: Callable                  # () -> a model or a scheme
    recipe: str = 'reducenet'        # cosine, so that the last epochs still learn
    lr: float | None = None          # another learning rate than the recipe's
    valid: int = 50
    n_train: int = 120
    bare: Callable = lambda: None    # () -> the module that load_model fills, where the file has no call that builds it


def shrunk_from_grown() -> nn.Module:
    "ReduceNet's student, taught by the teacher that it was cut from."
    teacher = load_model('grown', 'last', model=grown())
    return Distill(shrink(teacher), teacher, 'kd', weights='reducenet')


def taught_by_memory() -> nn.Module:
    "A student that reads its teacher's logits from files."
    return Distill(narrow(), remember('teacher', data('reducenet'), views=2, amp='off'), 'kd(T=2)')


OLD_REVIEW = "review(taps='stages', reading='post')"        # what 'review' meant when its run was made

TEACHERS = {
    'teacher': Kind(wide, n_train=600),
    'grown': Kind(grown, n_train=600, bare=grown),
}
KINDS = {
    'alone': Kind(narrow, recipe='crd', valid=0),
    'kd-at-fitnet': Kind(lambda: Distill(narrow(), 'teacher', 'kd+at+fitnet', size=SIZE), recipe='crd', lr=.02),
    'ofd': Kind(lambda: Distill(narrow(), 'teacher', 'ofd', size=SIZE)),
    'review': Kind(lambda: Distill(narrow(), 'teacher', OLD_REVIEW, size=SIZE), lr=.03),
    'joint': Kind(lambda: JointRD(plain(), 'teacher', size=SIZE), bare=plain),
    'online': Kind(lambda: Online([narrow(), wide()], size=SIZE)),
    'reducenet': Kind(shrunk_from_grown),
    'remembered': Kind(taught_by_memory),
}
FINISHED = [*TEACHERS, *KINDS]
INTERRUPTED = [f'{name}-cut' for name in KINDS]


def kind_of(run: str) -> Kind:
    "The kind of a run, by its name; 'joint-cut' is the same as 'joint'."
    return (TEACHERS | KINDS)[run.removesuffix('-cut')]


def learner(run: str, cbs=None) -> Learner:
    "The learner of a run; `fit(EPOCHS)` trains it, goes on with it, or loads it."
    kind = kind_of(run)
    with seeded(1):
        model = kind.build()
    images = data(kind.recipe, kind.valid, kind.n_train)
    return Learner(model, images, run=run, recipe=kind.recipe, lr=kind.lr, amp='off', seed=2, cbs=cbs)


class Cut(Callback):
    "Interrupt a run between two epochs, as Ctrl-C does."
    def after_epoch(self, learn):
        if len(learn.history) == CUT_AFTER:
            raise KeyboardInterrupt


# --- what is expected of them

@contextmanager
def steady():
    "One thread, and no oneDNN, whose backward pass fails where a strided 1x1 convolution reads few channels."
    threads, onednn = torch.get_num_threads(), torch.backends.mkldnn.enabled
    torch.set_num_threads(1)
    torch.backends.mkldnn.enabled = False
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.mkldnn.enabled = onednn


def state_hash(model: nn.Module) -> str:
    "sha256 of all weights and buffers: names, types, shapes and bits."
    h = hashlib.sha256()
    for name, v in sorted(model.state_dict().items()):
        h.update(repr((name, str(v.dtype), tuple(v.shape))).encode())
        h.update(v.detach().contiguous().numpy().tobytes())
    return h.hexdigest()


def logits_of(model: nn.Module, run: str) -> list:
    "The logits of the first eight test images."
    x, _ = data(kind_of(run).recipe, kind_of(run).valid, kind_of(run).n_train).examples(8, 'test')
    with torch.no_grad():
        return model.eval()(x).tolist()


def stored_logits(run: str, which: str) -> list | None:
    "The logits of the weights on disk; None where there are none of this sort."
    if not (Path(os.environ['KDNB_RUNS'])/run/f'{which}.pt').exists():
        return None
    return logits_of(load_model(run, which, model=kind_of(run).bare()), run)


def facts(learn: Learner, run: str) -> dict:
    "All that a finished run is remembered by, without its clock."
    rows = [{k: v for k, v in row.items() if k not in CLOCK} for row in learn.history]
    said = dict(logits=logits_of(learn.student, run), last=stored_logits(run, 'last'), best=stored_logits(run, 'best'))
    hashes = dict(student_hash=state_hash(learn.student), scheme_hash=state_hash(learn.scheme))
    return json.loads(json.dumps(dict(history=rows, result=learn.result, **said, **hashes)))


def copy_runs(to: Path) -> Path:
    "Copy all run folders, and nothing else of this folder."
    for folder in HERE.iterdir():
        if folder.is_dir() and folder.name != '__pycache__':
            shutil.copytree(folder, to/folder.name)
    return to


def make_runs():
    "Train all runs in this folder, the interrupted ones up to their interruption."
    there = [run for run in FINISHED + INTERRUPTED if (HERE/run).exists()]
    if there:
        raise SystemExit(f'{there[0]} is there, and training would change it: frozen runs are made once')
    os.environ['KDNB_RUNS'] = str(HERE)
    for run in FINISHED:
        learner(run).fit(EPOCHS)
    for run in INTERRUPTED:
        with suppress(KeyboardInterrupt):
            learner(run, cbs=[Cut()]).fit(EPOCHS)
    for lock in HERE.glob('.remembered/*/lock'):
        lock.unlink()


def make_expected():
    "Load or go on with each run in a copy, and write down what comes out."
    with tempfile.TemporaryDirectory() as folder:
        os.environ['KDNB_RUNS'] = str(copy_runs(Path(folder)))
        expected = {run: facts(learner(run).fit(EPOCHS), run) for run in FINISHED + INTERRUPTED}
    for run in INTERRUPTED:
        assert expected[run] == expected[run.removesuffix('-cut')], f'{run} went on and ended elsewhere'
    expected['torch'] = dict(batch_norm=repr(nn.BatchNorm2d(8)))    # torch's words, in some configurations
    (HERE/'expected.json').write_text(as_text(expected))


def as_text(expected: dict) -> str:
    "JSON with a line for each fact."
    def lines(of):
        return ',\n'.join(f' {json.dumps(k)}: {json.dumps(v)}' for k, v in of.items())
    return '{\n' + ',\n'.join(f'{json.dumps(name)}: {{\n{lines(of)}\n}}' for name, of in expected.items()) + '\n}\n'


if __name__ == '__main__':
    with steady():
        make_runs()
        make_expected()
