"""The benchmark: one command, one table, kdnb beside the plain way, measured in turn on one machine.

`make bench` takes less than twenty minutes on four cores; `make bench ARGS='--only methods --methods rkd nst --pairs
15'` measures a part. `--quick` has tiny nets, noise for images and few rounds: it takes seconds, tells nothing about
speed, and shows that everything works. A section that fails, on a machine without enough memory perhaps, is one row,
and the others are measured. The figures are written as JSON.

Each file `nbs/bench*.json` is a machine, and a block of docs/speed.md. We left out figures of other packages, which
would have to be installed and whose way is nearly always the plain one.
"""
import argparse
import json
import os
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from kdnb.cli import DATA_OPTIONS, make_parser, run_command
from kdnb.data import Data
from kdnb.errors import unknown_name
from kdnb.files import runs_root, write_atomic
from kdnb.train import about_process

from .growth import bench_growth
from .levers import bench_levers, bench_memory, bench_start, bench_together
from .methods import bench_methods, build_nets, noise_data
from .parts import bench_parts, bench_shares, hardware_limits, limit_rows
from .plain import bench_data
from .rows import table_line, table_row
from .ways import bench_speed

PROGRAM = 'python -m bench'
Tell = Callable[[str], object]       # called with each line of the table as it comes

# --- the plan and its sections

_whole = dict(
    nets=[('resnet56', 'resnet20'), ('wrn_40_2', 'wrn_16_2'), ('resnet32x4', 'resnet8x4')], bs=(64, 128),
    numbers=(1, 2, 4, 8), method_bs=64, pairs=5, seconds=1., n=50_000, noise=False, compiled=True, skip=(),
    methods=None, limits=(), growth=(32, None))

_quick = dict(
    nets=[('resnet14', 'resnet8')], bs=(8,), numbers=(1, 2), method_bs=8, pairs=2, seconds=.01, n=64, noise=True,
    compiled=False, skip=('with compile=True',), methods=['kd', 'at'], limits=(64, 2**16), growth=(4, 2))

def plan_of(quick: bool, **changes) -> dict:
    "What is measured, with what was asked for beside it."
    asked = {name: value for name, value in changes.items() if value is not None}
    plan = (_quick if quick else _whole) | dict(device=None) | asked
    if type(plan['pairs']) is not int or plan['pairs'] < 1:
        raise ValueError(f"pairs must be a whole number from 1 up, not {plan['pairs']!r}")
    return plan

def _plan_data(plan: dict, bs: int) -> Data: return bench_data(bs, plan['n'], plan['device'], plan['noise'])

def _speed(plan: dict) -> Iterator[dict]:
    for bs in plan['bs']:
        data = _plan_data(plan, bs)
        for nets in plan['nets']:
            yield from bench_speed(*nets, data, plan['pairs'], plan['seconds'], plan['compiled'])

def _levers(plan: dict) -> Iterator[dict]:
    data = _plan_data(plan, plan['bs'][0])
    yield from bench_levers(*plan['nets'][0], data, plan['pairs'], plan['seconds'], plan['skip'])

def _together(plan: dict) -> Iterator[dict]:
    data = _plan_data(plan, plan['bs'][0])
    yield from bench_together(*plan['nets'][0], data, plan['numbers'], plan['pairs'], plan['seconds'] / 2)

def _memory(plan: dict) -> Iterator[dict]:
    for bs in plan['bs']:
        yield from bench_memory(*plan['nets'][0], _plan_data(plan, bs))

def _start(plan: dict) -> Iterator[dict]:
    yield from bench_start(*plan['nets'][0], plan['n'], plan['noise'], plan['device'], plan['pairs'])

def _parts(plan: dict) -> Iterator[dict]:
    data = _plan_data(plan, plan['bs'][0])
    for nets in plan['nets']:
        yield from bench_parts(*nets, data, plan['pairs'], plan['seconds'])

def _limits(plan: dict) -> Iterator[dict]:
    data = _plan_data(plan, plan['bs'][-1])
    limits = hardware_limits(data.device, *plan['limits'])
    yield from limit_rows(limits)
    for nets in plan['nets']:
        yield from bench_shares(*nets, data, limits, plan['pairs'], plan['seconds'], plan['compiled'])

def _growth(plan: dict) -> Iterator[dict]:
    yield from bench_growth(*plan['growth'], plan['pairs'], plan['seconds'] / 4, plan['device'])

sections: dict[str, tuple[str, Callable[[dict], Iterator[dict]]]] = {
    'speed': ("images a second of KD, by the plain way's", _speed),
    'levers': ("images a second of KD with or without a lever, by the plain way's; and what the lever gives", _levers),
    'together': ('time of a step of N students taught together, by N steps of one by itself', _together),
    'memory': ("peak memory of a step, by the plain way's", _memory),
    'start': ("seconds in a fresh process, by torch's own import", _start),
    'parts': ('where the time of a step goes, as shares; and the bound, by the plain way', _parts),
    'limits': ('what the hardware can do, and the share of it that a step reaches', _limits),
    'growth': ('time of a step as one quantity grows, by that of its least', _growth)}

SECTIONS = *sections, 'methods'

# --- measuring

def _measure_section(name: str, plan: dict, tell: Tell) -> list[dict]:
    "The rows of a section, told as they come; what fails is a row, too, with the reason."
    title, measure = sections[name]
    rows = []
    tell(f'\n{name}: {title}')
    try:
        for row in measure(plan):
            tell(table_line(row))
            rows.append(row)
    except Exception as e:
        why = f"failed: {type(e).__name__}, {' '.join(str(e).split())[:200]}"
        rows.append(table_row(name, name, '', why=why))
        tell(table_line(rows[-1]))
    return rows

def _measure_methods(plan: dict, tell: Tell) -> dict:
    "The rows of the methods and what they are about."
    (teacher, student), bs = plan['nets'][-1], plan['method_bs']
    tell(f'\nmethods: a step by that of plain KD, both kdnb, {teacher} -> {student}, batch {bs}')
    costs = bench_methods(plan['methods'], plan['pairs'], bs, plan['device'], teacher, student, tell=tell)
    return dict(about=costs.about, rows=list(costs))

def _chosen(only: list[str] | None) -> list[str]:
    "The sections, in their order."
    for name in only or ():
        if name not in SECTIONS: raise unknown_name('section', name, SECTIONS)
    return [name for name in SECTIONS if not only or name in only]

def _about(plan: dict, quick: bool) -> dict:
    "Where, when and on what it was measured."
    data = _plan_data(plan | dict(n=64), plan['bs'][0])
    load = [round(v, 2) for v in os.getloadavg()] if hasattr(os, 'getloadavg') else None
    here = dict(quick=quick, data=data.name, pairs=plan['pairs'], threads=torch.get_num_threads(),
                cores=os.cpu_count(), load=load)
    return here | about_process(data.device)

def bench_all(only: list[str] | None = None, quick: bool = False, tell: Tell | None = None, **changes) -> dict:
    "Measure some sections, or all: {about, rows, methods}; `changes`: pairs, device, methods."
    plan, tell, start = plan_of(quick, **changes), tell or len, time.time()
    names = _chosen(only)
    if plan['methods']:                             # a mistake shows before anything is measured
        build_nets(plan['methods'], *plan['nets'][-1], noise_data(plan['method_bs'], device=plan['device']))
    about, rows, methods = _about(plan, quick), [], None
    for name in names:
        if name == 'methods':
            methods = _measure_methods(plan, tell)
        else:
            rows += _measure_section(name, plan, tell)
    about['minutes'] = round((time.time() - start) / 60, 1)
    return dict(about=about, rows=rows, methods=methods)

# --- the command

_options = {
    '--only': dict(nargs='+', metavar='SECTION', choices=SECTIONS, help=f"some of {', '.join(SECTIONS)}; default all"),
    '--methods': dict(
        nargs='+', metavar='METHOD',
        help="of the section methods: alone, kd, 'kd(T=4)+at', ...; default every method there is"),
    '--pairs': dict(metavar='N', type=int, help='rounds, in each of which every way has its piece; default 5'),
    '--device': DATA_OPTIONS['--device'],
    '--threads': dict(metavar='N', type=int, help="of PyTorch on a CPU; default PyTorch's own choice"),
    '--quick': dict(action='store_true', help='tiny nets, noise and few rounds: whether everything works, in seconds'),
    '--write': dict(
        metavar='PATH', help='file for the figures; default bench.json among the runs, with --only bench-SECTION.json')}

def _target(path: str | None, only: list[str] | None) -> Path:
    "The file to write, with its folder made; refused while nothing is measured yet."
    target = Path(path) if path else runs_root() / f"{'-'.join(['bench', *(only or [])])}.json"
    if target.is_dir(): raise ValueError(f'{target} is a folder: give the name of a file')
    target.parent.mkdir(parents=True, exist_ok=True)
    return target

def _closing(about: dict, path: Path) -> str:
    "The last line of the table."
    quick = ', QUICK: no measure of speed' if about['quick'] else ''
    return (f"{about['device']}, {about['data']}, median of {about['pairs']} pairs, {about['minutes']} minutes{quick}; "
            f'{path}')

def _measure(args: argparse.Namespace) -> dict:
    "What the options ask for, printed as it comes."
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(args.threads or before)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return bench_all(args.only, args.quick, partial(print, flush=True), pairs=args.pairs, device=args.device,
                             methods=args.methods)
    finally:
        torch.set_num_threads(before)

def _run_bench(args: argparse.Namespace, command: str) -> int:
    "Measure, print and write; 1 if a section failed."
    path = _target(args.write, args.only)
    if args.threads is not None and args.threads < 1:
        raise ValueError(f'threads must be a whole number from 1 up, not {args.threads}')
    try:
        found = _measure(args)
    except KeyboardInterrupt:
        print(f'\n{PROGRAM}: interrupted, nothing is written', file=sys.stderr)
        return 130
    for about in (found['about'], (found['methods'] or {}).get('about', {})):
        about['command'] = command
    write_atomic(path, json.dumps(found, indent=1).encode())
    print('\n' + _closing(found['about'], path))
    return int(any(row.get('why', '').startswith('failed') for row in found['rows']))

def run_benchmark(argv: list[str] | None = None) -> int:
    "What `make bench` runs; returns the exit code."
    says = ('Measure kdnb beside the plain way of distillation: speed, what each lever gives, several students, '
            'memory, start, profile, and the cost of each method.')
    parser = make_parser(PROGRAM, says, f'{PROGRAM} --only methods --methods rkd nst --pairs 15', ('options', _options))
    command = f'{PROGRAM} {shlex.join(sys.argv[1:] if argv is None else argv)}'.strip()
    return run_command(partial(_run_bench, command=command), parser, argv)
