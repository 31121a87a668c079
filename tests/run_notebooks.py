"""Run notebooks as tests, each in a process of its own, so that none inherits another's memory, threads or settings.

A process is forked from this one, which has imported torch, nbdev, kdnb and what most notebooks use: the seconds of
those imports are paid once. Where fork is not safe (macOS, Windows) each process starts from
nothing. What a notebook prints is shown if it fails.
"""
import argparse
import contextlib
import gc
import importlib
import json
import multiprocessing as mp
import os
import signal
import sys
import tempfile
import time
from multiprocessing.connection import wait
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TIMES = ROOT/'.times.json'                      # seconds of the last run: the slowest start first
LIMIT = 900                                     # seconds after which a notebook hangs

def cores() -> int:
    """Count the processors that this process may use (`taskset` and containers give fewer than there are)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1

def find_notebooks(paths: list[str]) -> list[Path]:
    """List the notebooks of files and folders; names that begin with `_` or `.` are not tests."""
    found = set()
    for path in map(Path, paths):
        found |= {path} if path.suffix == '.ipynb' else set(path.rglob('*.ipynb'))
    places = {p.resolve(): p.resolve().relative_to(ROOT).parts for p in found}
    return sorted(p for p, parts in places.items() if not any(part[0] in '_.' for part in parts))

def run_one(path: Path, flags: list[str], log: str, sender) -> None:
    """Run one notebook in this process, which is its own, and send whether it passed and its peak memory in MB."""
    os.setsid()                                 # so that what it starts can be ended with it
    with open(log, 'w') as f:
        for fd in 1, 2: os.dup2(f.fileno(), fd)
    import resource

    from nbdev.config import get_config
    from nbdev.test import test_nb
    passed, _ = test_nb(path, skip_flags=get_config().tst_flags.split(), force_flags=flags, basepath=ROOT)
    peak = max(resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    sender.send((passed, peak // (1024**2 if sys.platform == 'darwin' else 1024)))

class Running:
    """A notebook that runs: its process, and where its output and its result arrive."""
    def __init__(self, context, path: Path, flags: list[str], folder: str):
        self.path, self.began = path, time.monotonic()
        self.log = os.path.join(folder, f'{path.parent.name}-{path.stem}.log')
        self.receiver, sender = context.Pipe(duplex=False)
        self.process = context.Process(target=run_one, args=(path, flags, self.log, sender))
        self.process.start()
        sender.close()

    @property
    def late(self) -> bool: return time.monotonic() - self.began > LIMIT

    def end(self) -> tuple[bool, int, float]:
        """End the notebook and what it left running; returns whether it passed, its peak memory and its seconds."""
        with contextlib.suppress(ProcessLookupError): os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()
        try: passed, peak = self.receiver.recv()
        except EOFError: passed, peak = False, 0        # killed, or it killed itself
        return passed, peak, time.monotonic() - self.began

def run_all(notebooks: list[Path], workers: int, flags: list[str]) -> tuple[dict[str, float], list[str]]:
    """Run the notebooks, `workers` side by side; returns the seconds of each and the names of those that failed."""
    context = mp.get_context('fork' if sys.platform == 'linux' else 'spawn')
    waiting, running, times, failed = notebooks[::-1], [], {}, []
    with tempfile.TemporaryDirectory() as folder:
        while waiting or running:
            while waiting and len(running) < workers: running.append(Running(context, waiting.pop(), flags, folder))
            wait([r.process.sentinel for r in running], timeout=5)
            for r in [r for r in running if r.late or not r.process.is_alive()]:
                running.remove(r)
                passed, peak, seconds = r.end()
                name = r.path.relative_to(ROOT).as_posix()
                times[name] = round(seconds, 1)
                if not passed: failed.append(name)
                print(f"{seconds:6.1f} s {peak:6} MB  {name}{'' if passed else '  FAILED'}", flush=True)
                if not passed: print(Path(r.log).read_text(errors='replace')[-8000:], flush=True)
    return times, failed

def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('paths', nargs='*', default=[str(ROOT/'nbs')], help='notebooks, or folders of them')
    parser.add_argument('-n', '--workers', type=int, default=cores(), help='how many run side by side')
    parser.add_argument('--flags', default='', help="cells to run that are left out otherwise: 'slow cuda'")
    args = parser.parse_args()
    known = json.loads(TIMES.read_text()) if TIMES.exists() else {}
    def expected(path: Path) -> float: return known.get(path.relative_to(ROOT).as_posix(), float('inf'))
    notebooks = sorted(find_notebooks(args.paths), key=expected, reverse=True)
    os.chdir(ROOT)
    os.environ.setdefault('KDNB_BUDGET', 'test')        # tutorials: the fewest epochs that show whether all cells run
    if sys.platform == 'linux':
        for module in 'torchvision', 'nbdev.test', 'sklearn.datasets', 'matplotlib.pyplot', 'kdnb.all':
            importlib.import_module(module)
        gc.collect()
        gc.freeze()                         # what is imported stays: to look through it again takes a second each time
    began = time.monotonic()
    times, failed = run_all(notebooks, args.workers, args.flags.split())
    TIMES.write_text(json.dumps(known | times, indent=0, sort_keys=True))
    print(f'{len(notebooks)} notebooks in {time.monotonic() - began:.0f} s, {len(failed)} failed')
    for name in failed: print(f'FAILED {name}')
    return int(bool(failed))

if __name__ == '__main__': sys.exit(main())
