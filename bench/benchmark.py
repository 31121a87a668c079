"""One command, one table: kdnb beside the plain way, measured in turn on one machine."""

import json
import os
import shlex
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import torch

from bench.baseline import bench_data, bench_speed, table_line, table_row
from bench.bench import bench_methods, build_net, noise_data
from bench.levers import bench_levers, bench_memory, bench_start, bench_together
from bench.parts import bench_card, bench_parts
from kdnb.cli import DATA_OPTIONS, make_parser, run_command
from kdnb.errors import unknown_name
from kdnb.files import runs_root, write_atomic
from kdnb.train import about_process

_whole = dict(
    nets=[('resnet56', 'resnet20'), ('wrn_40_2', 'wrn_16_2'), ('resnet32x4', 'resnet8x4')],
    bs=(64, 128),
    numbers=(1, 2, 4, 8),
    method_bs=64,
    pairs=5,
    seconds=1.0,
    n=50_000,
    noise=False,
    compiled=True,
    skip=(),
    methods=None)
_quick = dict(
    nets=[('resnet14', 'resnet8')],
    bs=(8,),
    numbers=(1, 2),
    method_bs=8,
    pairs=2,
    seconds=0.01,
    n=64,
    noise=True,
    compiled=False,
    skip=('with compile=True',),
    methods=['kd', 'at'])


def _data(p, bs): return bench_data(bs, p['n'], p['device'], p['noise'])


def _speed(p):
    for bs in p['bs']:
        data = _data(p, bs)
        for nets in p['nets']:
            yield from bench_speed(*nets, data, p['pairs'], p['seconds'], p['compiled'])


def _lever(p):
    yield from bench_levers(*p['nets'][0], _data(p, p['bs'][0]), p['pairs'], p['seconds'], p['skip'])


def _students(p):
    yield from bench_together(*p['nets'][0], _data(p, p['bs'][0]), p['numbers'], p['pairs'], p['seconds'] / 2)


def _memory(p):
    for bs in p['bs']:
        yield from bench_memory(*p['nets'][0], _data(p, bs))


def _begin(p):
    yield from bench_start(*p['nets'][0], p['n'], p['noise'], p['device'], p['pairs'])


def _parts(p):
    data = _data(p, p['bs'][0])
    for nets in p['nets']:
        yield from bench_parts(*nets, data, p['pairs'], p['seconds'])


def _card(p):
    yield from bench_card(*p['nets'][0], _data(p, p['bs'][-1]), p['pairs'], p['seconds'])


_sections = {
    'speed': ("images a second of KD, by the plain way's", _speed),
    'levers': ("images a second of KD with or without a lever, by the plain way's; and what the lever gives", _lever),
    'together': ('time of a step of N students taught together, by N steps of one by itself', _students),
    'memory': ("peak memory of a step, by the plain way's", _memory),
    'start': ("seconds in a fresh process, by torch's own import", _begin),
    'parts': ('where the time of a step goes, as shares; and the bound, by the plain way', _parts),
    'card': ('what a step reaches of what the card can do', _card)}


def _measured(name, plan, say):
    "The rows of a section, said as they come; what fails is a row, too, that says why."
    title, rows = _sections[name][0], []
    say(f'\n{name}: {title}')
    try:
        for r in _sections[name][1](plan):
            say(table_line(r))
            rows.append(r)
    except Exception as e:
        rows.append(table_row(name, name, '', why=f'failed: {type(e).__name__}, ' + ' '.join(str(e).split())[:200]))
        say(table_line(rows[-1]))
    return rows


def bench_all(
    only=None,  # a list of names of sections; None: all
    quick=False,  # tiny nets, noise and few pairs: whether all works, in seconds
    say=None,  # called with each line of the table as it comes
    pairs=None,  # rounds; None: 5, quick 2
    device=None,  # None: a CUDA GPU where there is one
    methods=None,  # of the section methods; None: every method there is
) -> dict:  # what the file holds: about, rows, methods
    "The whole benchmark."
    plan, say, start = (
        _plan(quick, dict(pairs=pairs, device=device, methods=methods)),
        say or (lambda line: None),
        time.time())
    names = _names_of(only)
    if plan['methods']:
        build_net(
            plan['methods'], *plan['nets'][-1], noise_data(plan['method_bs'], device=plan['device'])
        )  # a mistake shows before anything is measured
    rows = [r for n in names if n != 'methods' for r in _measured(n, plan, say)]
    found = dict(about=_about(plan, quick), rows=rows, methods=_methods(plan, say) if 'methods' in names else None)
    found['about']['minutes'] = round((time.time() - start) / 60, 1)
    return found


def _names_of(only):  # the sections, in their order
    known = [*_sections, 'methods']
    if odd := [n for n in only or () if n not in known]: raise unknown_name('section', odd[0], known)
    return [n for n in known if not only or n in only]


def _plan(quick, changes):
    plan = (_quick if quick else _whole) | dict(device=None) | {k: v for k, v in changes.items() if v is not None}
    if type(plan['pairs']) is not int or plan['pairs'] < 1:
        raise ValueError(f"pairs must be a whole number from 1 up, not {plan['pairs']!r}")
    return plan


def _about(p, quick):
    data = _data(p | dict(n=64), p['bs'][0])
    return dict(
        quick=quick,
        data=data.name,
        pairs=p['pairs'],
        threads=torch.get_num_threads(),
        cores=os.cpu_count(),
        load=[round(v, 2) for v in os.getloadavg()] if hasattr(os, 'getloadavg') else None,
    ) | about_process(data.device)


def _methods(p, say):
    (teacher, student), pairs = p['nets'][-1], p['pairs']
    say(f'\nmethods: a step by that of plain KD, both kdnb, {teacher} -> {student}, batch {p["method_bs"]}')
    costs = bench_methods(p['methods'], pairs, p['method_bs'], p['device'], teacher, student, say=say)
    return dict(about=costs.about, rows=list(costs))


_bench_options = {
    '--only': dict(
        nargs='+',
        metavar='SECTION',
        choices=[*_sections, 'methods'],
        help=f"some of {', '.join(_sections)}, methods; default all"),
    '--methods': dict(
        nargs='+',
        metavar='METHOD',
        help="of the section methods: alone, kd, 'kd(T=4)+at', ...; default every method there is"),
    '--pairs': dict(type=int, help='rounds, in each of which every way has its piece; default 5'),
    '--device': DATA_OPTIONS['--device'],
    '--threads': dict(type=int, help="of PyTorch on a CPU; default PyTorch's own choice"),
    '--quick': dict(action='store_true', help='tiny nets, noise and few pairs: whether everything works, in seconds'),
    '--write': dict(
        metavar='PATH', help='file for the figures; default bench.json among the runs, with --only bench-SECTION.json')}


def _target(path, only):
    "The file to write, with its folder made; refused while nothing is measured yet."
    path = Path(path) if path else runs_root() / f"{'-'.join(['bench', *(only or [])])}.json"
    if path.is_dir(): raise ValueError(f'{path} is a folder: give the name of a file')
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _bench(a, words):
    path, before = _target(a.write, a.only), torch.get_num_threads()
    if a.threads is not None and a.threads < 1:
        raise ValueError(f'threads must be a whole number from 1 up, not {a.threads}')
    try:
        torch.set_num_threads(a.threads or before)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            found = bench_all(a.only, a.quick, lambda line: print(line, flush=True), a.pairs, a.device, a.methods)
    except KeyboardInterrupt:
        print('\nkdnb_bench: interrupted, nothing is written', file=sys.stderr)
        return 130
    finally:
        torch.set_num_threads(before)
    for k in (found['about'], (found['methods'] or {}).get('about', {})):
        k['command'] = words
    write_atomic(path, json.dumps(found, indent=1).encode())
    print('\n' + _closing(found['about'], path))
    return any(r.get('why', '').startswith('failed') for r in found['rows'])


def _closing(k, path):
    return (
        f"{k['device']}, {k['data']}, median of {k['pairs']} pairs, {k['minutes']} "
        f"minutes{', QUICK: no measure of speed' if k['quick'] else ''}; {path}")


def kdnb_bench(argv=None) -> int:  # exit code
    "What `make bench` runs."
    says = (
        'kdnb beside the plain way of distillation: speed, what each lever gives, several students, memory, start, '
        'profile, and the cost of each method.')
    words = shlex.join(['kdnb_bench', *(sys.argv[1:] if argv is None else argv)])
    return run_command(
        partial(_bench, words=words),
        make_parser('kdnb_bench', says, 'kdnb_bench --only methods --methods rkd nst --pairs 15', _bench_options),
        argv)
