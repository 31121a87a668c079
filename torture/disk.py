"""Faults of a disk: it fills up, or what is written does not arrive."""

import errno
import os
import random
import shutil
import subprocess
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from unittest.mock import patch

from kdnb.errors import MISTAKES
from kdnb.models import read_weights
from kdnb.train import Callback

from .runs import SCHEMES, empty, result, train, undisturbed

@contextmanager
def small_disk(folder: Path):
    "A tmpfs of 8 MiB, where this process may mount one."
    empty(folder).mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=8m', 'kdnb', str(folder)]
    may = os.geteuid() == 0 and shutil.which('mount') is not None
    mounted = may and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted: subprocess.run(['umount', '-l', str(folder)], check=True)


@cache
def can_mount(root: Path) -> bool:
    with small_disk(root/'tried') as mounted: return mounted


class _Trouble(Callback):
    "Begins a fault after some steps; knows the last epoch that was saved."
    def __init__(self, steps, begin): self.left, self.begin, self.saved = steps, begin, 0

    def after_batch(self, learn):
        self.left -= 1
        if self.left == 0: self.begin()

    def after_epoch(self, learn): self.saved = learn.epoch


def _fill(folder: Path, free: int) -> None:
    "Fill a disk, but for some bytes."
    with open(folder/'others', 'wb', buffering=0) as f, suppress(OSError):
        while True: f.write(bytes(2**16))
    size = (folder/'others').stat().st_size
    os.truncate(folder/'others', max(0, size - free))


@contextmanager
def _failing(rng: random.Random):
    "One of the system's calls to write fails, and all that follow."
    name, left = rng.choice(['fsync', 'replace']), rng.randint(1, 4)
    error, real, state = rng.choice([errno.EIO, errno.ENOSPC, errno.EDQUOT]), getattr(os, name), [False]

    def call(*args):
        nonlocal left
        left -= state[0]
        if state[0] and left < 0: raise OSError(error, os.strerror(error))
        return real(*args)

    with patch.object(os, name, call): yield lambda: state.__setitem__(0, True)


def _fault(rng: random.Random, disk: Path, name: str, mounted: bool) -> _Trouble:
    "Train until the disk is full, or until a write fails; the trouble that it met."
    steps, free = rng.randint(1, 6), rng.randrange(600_000)
    with _failing(rng) as fail:
        trouble = _Trouble(steps, (lambda: _fill(disk, free)) if mounted else fail)
        try:
            train(name, disk/'run', [trouble])
        except MISTAKES as e: assert str(e) and '\n' not in str(e), e
    return trouble


def disk_fault(rng: random.Random, root: Path) -> None:
    """The disk of a run, a small tmpfs, fills up, or (one in three) a write fails with EIO, ENOSPC or EDQUOT: it ends
    in words, no saved epoch is lost, and with room it ends as if nothing had happened."""
    name = rng.choice([*SCHEMES])
    expected, _ = undisturbed(name, root)
    with small_disk(root/'disk') as mounted:
        trouble = _fault(rng, root/'disk', name, mounted and rng.random() < .67)
        (root/'disk/others').unlink(missing_ok=True)
        last = root/'disk/run/last.pt'
        kept = read_weights(last)['train']['epoch'] if last.exists() else 0
        assert kept >= trouble.saved, f'{kept} epochs are left of {trouble.saved}'
        train(name, root/'disk/run')
        assert result(root/'disk/run') == expected, f'{name} ends otherwise'
        assert not [*(root/'disk/run').glob('*.tmp')]
