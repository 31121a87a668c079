"""What only a GPU can show, in order of worth: its tests, the benchmark, two pairs of the 240-epoch protocol with many
students at once. Stopped, it goes on where it was; what is done stays among the runs, where the zoo takes it.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from kdnb.errors import MISTAKES, FileTrouble, one_sentence
from kdnb.files import parse_json, runs_root, write_atomic

PAIRS = [('resnet56', 'resnet20'), ('resnet32x4', 'resnet8x4')]
METHODS = ['kd', 'dkd', 'dist', 'ofd', 'review', 'crd', 'wttm']


def commands(device: str, folder: Path, seeds: int, more: list[str]) -> dict[str, list[str]]:
    "{step: its command}; `more`: further options of kdnb_sweep."
    quick = ['--quick'] if device == 'cpu' else []
    figures = str(folder/f'bench-{device}.json')
    steps = dict(tests=[sys.executable, '-m', 'pytest', '-q', '-m', 'gpu', 'tests'],
                 bench=[sys.executable, '-m', 'bench', '--device', device, '--write', figures, *quick])
    sweep = [str(Path(sys.executable).with_name('kdnb_sweep')), 'crd', '--seeds', str(seeds), '--device', device, *more]
    sweep += [word for method in METHODS for word in ('--method', method)]
    steps |= {'-'.join(pair): [*sweep, '--pair', *pair] for pair in PAIRS}
    return steps


def read_log(log: Path) -> dict[str, str]:
    "{step: how it ended}; a damaged file is refused."
    if not log.exists(): return {}
    try:
        ended = parse_json(log.read_bytes())
    except ValueError:
        ended = None
    if isinstance(ended, dict) and all(isinstance(how, str) for how in ended.values()): return ended
    raise FileTrouble(f'{log} is damaged: delete it, and the steps are taken again (finished runs are loaded)')


def run_steps(steps: dict[str, list[str]], log: Path) -> dict[str, str]:
    "Run what is not yet done, and write down what is; {step: how it ended}."
    ended = read_log(log)
    for name, words in steps.items():
        if ended.get(name, '').startswith('done'): continue
        print(f'# {name}: {shlex.join(words)}', flush=True)
        start = time.monotonic()
        code = subprocess.run(words).returncode
        ended[name] = f"{'done' if code == 0 else f'exit code {code}'}, {time.monotonic() - start:,.0f} s"
        write_atomic(log, json.dumps(ended, indent=1).encode())
    return ended


def main() -> int:
    ask = argparse.ArgumentParser('python -m bench.gpu', description=__doc__,
                                  epilog='Other options go to kdnb_sweep, such as --epochs 1 or --root DATA.')
    ask.add_argument('--device', default='cuda', help='default cuda; cpu shows that the steps work')
    ask.add_argument('--seeds', type=int, default=3, help='of each student; default 3')
    a, more = ask.parse_known_args()
    folder = runs_root()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        ended = run_steps(commands(a.device, folder, a.seeds, more), folder/f'gpu-{a.device}.json')
    except KeyboardInterrupt:
        print('stopped: the same command goes on', file=sys.stderr)
        return 130
    except MISTAKES as e:
        print(f'make gpu: {one_sentence(e)}', file=sys.stderr)
        return 1
    print('\n'.join(f'{name}: {how}' for name, how in ended.items()))
    return int(not all(how.startswith('done') for how in ended.values()))


if __name__ == '__main__':
    sys.exit(main())
