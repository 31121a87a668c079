"""Attack kdnb as often as asked for, and write what survived: `python -m torture`. Stopped, it goes on where it was."""

import argparse
import datetime
import json
import os
import random
import tempfile
import time
import traceback
import warnings
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import torch

from kdnb import __version__
from kdnb.files import write_atomic
from kdnb.seeds import seed_from
from kdnb.text import Table
from kdnb.train import Learner

from .attacks import ATTACKS
from .disk import can_mount

HERE = Path(__file__).resolve().parent


def one(attack, number: int, seed: int, root: Path) -> str:
    "One attack; '' or what fell over."
    try:
        os.chdir(root)
        with redirect_stdout(StringIO()): attack(random.Random(seed_from(seed, attack.__name__, number)), root)
    except Exception as e:
        where = traceback.extract_tb(e.__traceback__)[-1]
        return f'{type(e).__name__}: {e} ({Path(where.filename).name}, line {where.lineno})'[:300]
    return ''


def table(state: dict) -> Table:
    rows = []
    for attack, full in ATTACKS.items():
        done = state['tried'].get(attack.__name__, 0)
        fell = len(state['fell'].get(attack.__name__, {}))
        what = ' '.join((attack.__doc__ or '').split())
        rows.append([attack.__name__.replace('_', ' '), what, f'{full:,}', f'{done:,}', f'{done - fell:,}'])
    asked = sum(ATTACKS.values())
    tried = sum(state['tried'].values())
    reduced = f'REDUCED: {tried:,} of {asked:,} attacks' if tried < asked else ''
    stamp = f"kdnb {__version__}, torch {torch.__version__}, {state['date']}, seed {state['seed']}, one thread"
    disk = 'a tmpfs was mounted' if state['tmpfs'] else 'no tmpfs could be mounted: the disk faults are failed writes'
    return Table(['attack', 'what', 'in full', 'tried', 'survived'], rows, notes=[stamp, disk], reduced=reduced)


def main() -> int:
    ask = argparse.ArgumentParser('torture', description=__doc__)
    ask.add_argument('--seed', type=int, default=0)
    ask.add_argument('--share', type=float, default=1., help='of the full numbers')
    ask.add_argument('--minutes', type=float, default=60., help='stop after these; the same command goes on')
    ask.add_argument('--only', choices=[attack.__name__ for attack in ATTACKS])
    ask.add_argument('--number', type=int, help='with --only: this one attack again, with its traceback')
    a = ask.parse_args()
    torch.set_num_threads(1)
    Learner.callbacks = []
    warnings.simplefilter('ignore')
    with tempfile.TemporaryDirectory() as tmp:
        os.chdir(tmp)
        os.environ.update(KDNB_RUNS=f'{tmp}/runs', KDNB_DATA=f'{tmp}/data')
        if a.number is not None:
            attack = next(f for f in ATTACKS if f.__name__ == a.only)
            attack(random.Random(seed_from(a.seed, a.only, a.number)), Path(tmp))
            return 0
        return attack_all(a, Path(tmp))


def attack_all(a, root: Path) -> int:
    file = HERE/f'.state-{a.seed}.json'
    state = json.loads(file.read_text()) if file.exists() else dict(seed=a.seed, tried={}, fell={})
    state |= dict(date=datetime.date.today().isoformat(), tmpfs=can_mount(root))
    asked = [attack for attack in ATTACKS if a.only in (None, attack.__name__)]
    end = time.monotonic() + 60*a.minutes
    for i, attack in enumerate(asked):
        now = time.monotonic()
        repeat(attack, state, root, file, round(ATTACKS[attack]*a.share), now + (end - now)/(len(asked) - i))
    made = table(state)
    (HERE/'table.md').write_text(f'# What `make torture` tried, and what survived\n\n{made.markdown(raw=True)}\n')
    print(made.text())
    return int(any(state['fell'].values()))


def repeat(attack, state: dict, root: Path, file: Path, often: int, end: float) -> None:
    "Attack until it was often enough, or the time is over; what fell before is tried first."
    name = attack.__name__
    fell, tried = state['fell'].setdefault(name, {}), state['tried'].get(name, 0)
    for number in [*map(int, fell), *range(tried, often)]:
        if time.monotonic() > end: break
        why = one(attack, number, state['seed'], root)
        state['tried'][name] = max(number + 1, state['tried'].get(name, 0))
        fell.pop(str(number), None)
        if why:
            fell[str(number)] = why
            again = f"python -m torture --seed {state['seed']} --only {name} --number {number}"
            print(f'{name} fell: {why}; again: {again}', flush=True)
        write_atomic(file, json.dumps(state, indent=1).encode())


if __name__ == '__main__': raise SystemExit(main())
