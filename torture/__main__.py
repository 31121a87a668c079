"""Attack kdnb as often as asked for, and write what survived: `python -m torture`. Stopped, it goes on where it was."""

import argparse
import datetime
import json
import random
import tempfile
import time
import traceback
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import torch

from kdnb import __version__
from kdnb.seeds import seed_from
from kdnb.text import Table
from kdnb.train import Learner

from .attacks import ATTACKS

HERE = Path(__file__).parent


def one(attack, number: int, seed: int, root: Path) -> str:
    "One attack; '' or what fell over."
    try:
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
        rows.append([attack.__name__.replace('_', ' '), attack.__doc__, full, done, done - fell])
    asked = sum(ATTACKS.values())
    tried = sum(row[3] for row in rows)
    reduced = f'REDUCED: {tried:,} of {asked:,} attacks' if tried < asked else ''
    stamp = f"kdnb {__version__}, torch {torch.__version__}, {state['date']}, seed {state['seed']}, one thread"
    return Table(['attack', 'what', 'in full', 'tried', 'survived'], rows, 'make torture', [stamp], reduced)


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
    with tempfile.TemporaryDirectory() as tmp:
        if a.number is not None:
            attack = next(f for f in ATTACKS if f.__name__ == a.only)
            attack(random.Random(seed_from(a.seed, a.only, a.number)), Path(tmp))
            return 0
        return attack_all(a, Path(tmp))


def attack_all(a, root: Path) -> int:
    file = HERE/f'.state-{a.seed}.json'
    state = json.loads(file.read_text()) if file.exists() else dict(seed=a.seed, tried={}, fell={})
    state['date'] = datetime.date.today().isoformat()
    end = time.monotonic() + 60*a.minutes
    for attack, full in ATTACKS.items():
        name, share = attack.__name__, (time.monotonic() + end)/2
        if a.only not in (None, name): continue
        for number in range(state['tried'].get(name, 0), round(full*a.share)):
            if time.monotonic() > share: break
            why = one(attack, number, a.seed, root)
            state['tried'][name] = number + 1
            if why:
                state['fell'].setdefault(name, {})[number] = why
                again = f'python -m torture --seed {a.seed} --only {name} --number {number}'
                print(f'{name} fell: {why}; again: {again}', flush=True)
            file.write_text(json.dumps(state, indent=1))
    made = table(state)
    (HERE/'table.md').write_text(made.markdown() + '\n')
    print(made.text())
    return int(any(state['fell'].values()))


if __name__ == '__main__': raise SystemExit(main())
