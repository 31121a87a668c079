"""The benchmark: both ways learn the same, clocks and memory are right, each section has its rows, the command writes a
file, and the file is told as Markdown.
"""
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median

import pytest
import torch

from bench import benchmark, growth, levers, methods, parts, ways
from bench.benchmark import SECTIONS, bench_all, run_benchmark
from bench.plain import PlainWay, bench_data, named_nets, plain_loader, plain_optimiser, plain_step
from bench.rows import table_line, table_row
from bench.speed import Line, Speed, machines
from bench.timing import Way, peak_memory, resident_bytes, spread_of, time_pairs, time_rounds
from docs.cards import method_cards
from kdnb.losses import kd_loss
from kdnb.methods import CE, Term
from kdnb.models import num_params, weights_hash
from kdnb.schemes import Distill
from kdnb.train import Learner, begin_fit, name_dtype, open_epoch, train_step

ROOT = Path(__file__).resolve().parents[2]
TINY = '--quick --device cpu --threads 1'.split()
ENV = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}

def start(*words):
    return subprocess.Popen(
        [sys.executable, '-m', 'bench', *TINY, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=ENV, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))    # a shell's background has it ignored

@pytest.fixture(scope='module')
def tiny():
    "Two small nets by their names, and noise; one thread."
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield 'resnet14', 'resnet8', bench_data(bs=8, n=64, device='cpu', noise=True)
    torch.set_num_threads(n)

@pytest.fixture(scope='module')
def small(tiny):
    "One batch of noise for methods, and a learner of plain KD that has taken a step."
    data = methods.noise_data(bs=8, num_classes=10, size=16, device='cpu')
    return data, methods.fit_one_step(methods.build_nets(['kd'], 'resnet14', 'resnet8', data)['kd'], data)

# --- both ways learn the same

def flat(student): return torch.cat([p.detach().flatten() for p in student.parameters()])

def train_both(nets, batches, T=4):
    "The distance of the two students after each step, as a part of the way that they have gone; the losses of both."
    (teacher, plain), (twin, ours) = named_nets(*nets, 100), named_nets(*nets, 100)
    data = bench_data(bs=16, n=96, device='cpu', noise=True)
    opt, learn = plain_optimiser(plain), Learner(Distill(ours, twin, 'kd'), data, amp='off', cbs=None)
    begin, apart, losses = flat(plain), [], []
    begin_fit(learn, 240, fresh=False)
    open_epoch(learn)
    plain.train()
    teacher.eval()
    for x, y in batches(data):
        loss, _ = plain_step(plain, teacher, opt, x.contiguous(), y, T)
        train_step(learn, x, y)
        losses.append((loss, learn.tally.steps[-1].sum().item()))
        apart.append(((flat(plain) - flat(ours)).norm() / (flat(plain) - begin).norm()).item())
    buffers = [(a, b) for a, b in zip(plain.buffers(), ours.buffers()) if a.is_floating_point()]
    return apart, losses, buffers

@pytest.mark.parametrize('nets', [('resnet20', 'resnet8'), ('wrn_16_2', 'wrn_10_1'), ('resnet8x4', 'resnet8')])
def test_both_ways_learn_the_same_of_the_same_batches(quiet, nets):
    apart, losses, buffers = train_both(nets, lambda data: data.train.epoch(0, 0))
    assert len(apart) == 6 and max(apart) < 5e-3, apart
    for a, b in losses:
        assert abs(a - b) < 1e-3*a
    for a, b in buffers:
        assert torch.allclose(a, b, rtol=1e-2, atol=1e-3)       # BatchNorm's statistics

def test_both_ways_learn_the_same_of_the_loaders_batches(quiet):
    assert max(train_both(('resnet14', 'resnet8'), lambda data: plain_loader(data, workers=0))[0]) < 5e-3

def test_another_loss_shows(quiet):
    assert train_both(('resnet14', 'resnet8'), lambda data: data.train.epoch(0, 0), T=2)[0][0] > .05

def test_the_loaders_images_are_among_those_of_our_augmentation(tiny):
    images = tiny[2].train
    x, y = next(iter(plain_loader(tiny[2], workers=0)))
    assert (x.shape, x.dtype, y.dtype) == ((8, 3, 32, 32), torch.float32, torch.int64)
    windows = images.windows[0].flatten(0, 1).permute(0, 3, 1, 2)                              # 81 crops
    known = images.normalise(torch.cat([windows, windows.flip(3)]))
    first = plain_loader(tiny[2], 0).dataset
    assert all((known - first[0][0]).abs().amax((1, 2, 3)).min() < 1e-5 for _ in range(5))

def test_both_ways_begin_with_the_same_student(tiny):
    plain, ours = PlainWay(*tiny, workers=0), ways.our_kd(*tiny)
    assert weights_hash(plain.student) == weights_hash(ours.learn.student)
    took = time_rounds(dict(plain=plain, ours=ours), rounds=2, steps=2)
    assert [len(v) for v in took.values()] == [2, 2] and len(ours.learn.tally.steps) == 3       # ready, and two

# --- clocks and memory

def test_ways_take_turns():
    done = []

    class Helped(Way):
        def __call__(self): done.append('c')
        def ready(self): done.append('[')
        def rest(self, seconds): done.append(']')

    took = time_rounds(dict(a=lambda: done.append('a'), c=Helped()), rounds=2, steps=3)
    assert (''.join(done), [*map(len, took.values())]) == ('aaa[ccc]'*2, [2, 2])
    pairs = time_pairs(lambda: None, lambda: time.sleep(.05), pairs=3, steps=2)
    assert len(pairs) == 3 and all(a < .05 <= b for a, b in pairs)
    assert spread_of([3, 1, 2]) == dict(min=1, median=2, max=3)

def test_turns_make_up_for_a_machine_that_slows_down():
    seconds = [1.01**step for step in range(40)]
    assert median(seconds[20:]) / median(seconds[:20]) > 1.2
    assert median(b / a for a, b in zip(seconds[::2], seconds[1::2])) < 1.02

def test_a_way_apart_answers_and_ends(tiny):
    apart = ways.Apart('plain', *tiny)
    assert apart.piece(2, int) > 0 and apart.piece(1, int) > 0
    apart.close()
    assert apart.process.returncode == -9

def blocks(device='cpu'):
    "10 MB, gone again; then 6 MB and 6 MB: never more than 12."
    make = partial(torch.empty, dtype=torch.uint8, device=device)
    a = make(10 << 20)
    del a
    b, c = make(6 << 20), make(6 << 20)
    del b, c

def test_peak_memory_is_the_most_at_a_time():
    kept = []
    def keep(): kept.append(torch.empty(3 << 20, dtype=torch.uint8))
    assert [peak_memory(f) >> 20 for f in (blocks, keep, blocks, kept.clear, blocks, int)] == [12, 3, 12, 0, 12, 0]
    with pytest.raises(ValueError, match="give device='cpu'"):
        peak_memory(blocks, 'meta')

@pytest.mark.gpu
def test_peak_memory_of_a_gpu(): assert peak_memory(lambda: blocks('cuda'), 'cuda') >> 20 == 12

def test_peak_memory_of_three_products():
    "Two inner activations are kept for the gradient; without one a product needs its input and its output."
    n = 256
    w, x = [torch.randn(n, n, requires_grad=True) for _ in range(3)], torch.randn(n, n)
    def forward(): return x @ w[0] @ w[1] @ w[2]
    assert 3 <= peak_memory(lambda: forward().sum()) / (4*n*n) < 3.5
    assert 2 <= peak_memory(lambda: torch.no_grad()(forward)().sum()) / (4*n*n) < 2.5

# --- what a method costs

def test_noise_is_one_batch(small):
    assert [tuple(x.shape) for x, _ in small[0].train.epoch(0, 0)] == [(8, 3, 16, 16)]
    with pytest.raises(ValueError, match='bs must be a whole number from 2 up'):
        methods.noise_data(bs=1)

def test_a_step_of_a_learner_leaves_its_weights(small):
    data, kd = small
    assert (tuple(kd.tally.table().shape), kd.tally.names) == ((1, 2), ['ce', 'kd'])
    new = methods.new_net('resnet8', data)
    assert all(p.equal(q) for p, q in zip(kd.student.parameters(), new.parameters()))

def test_resident_bytes_are_weights_and_momentum(small):
    data, kd = small
    s, t = (sum(v.nbytes for v in m.state_dict().values()) for m in (kd.student, kd.scheme.teacher.model))
    assert resident_bytes(kd) == s + t + 4*num_params(kd.student)
    alone = methods.fit_one_step(methods.new_net('resnet8', data), data)
    assert resident_bytes(alone) == s + 4*num_params(kd.student)

def test_a_cost_is_relative_to_plain_kd(small):
    data, kd = small
    fitnet = methods.fit_one_step(methods.build_nets(['fitnet'], 'resnet14', 'resnet8', data)['fitnet'], data)
    cost = methods.method_cost(fitnet, kd, pairs=1, peaks=1)
    assert cost['extra_params'] == num_params(fitnet.scheme.adapters) > 0
    base = methods.held_bytes(kd, 1)[0]
    assert cost['memory']['median'] == pytest.approx(cost['mb']['median']*2**20 / base, rel=1e-3)
    assert methods.method_cost(kd, kd, pairs=1, peaks=1)['memory']['max'] == pytest.approx(1, rel=1e-3)

def test_a_term_that_sleeps_and_keeps_memory_is_seen(small):
    data, kd = small

    def greedy_loss(s, t):
        time.sleep(.1)
        return kd_loss(s, t) + 0*(s.sum() - torch.ones(1 << 22)).exp().mean()

    method = [CE(.1), Term(greedy_loss, .9, taps=None)]
    scheme = Distill(methods.new_net('resnet8', data), methods.new_net('resnet14', data, 1), method, size=16)
    greedy = methods.method_cost(methods.fit_one_step(scheme, data), kd, pairs=1, peaks=1)
    base = methods.method_cost(kd, kd, pairs=1, peaks=1)
    assert greedy['seconds']['min'] > .1 and greedy['mb']['min'] - base['mb']['min'] > 15

def test_every_method_has_a_cost(tiny):
    names = methods.method_names()
    assert names[0] == 'alone' and {'kd', 'at', 'nst', 'rkd', 'self'} <= set(names)
    assert not {'fn', 'od', 'margin_relu', 'ce'} & set(names)
    net = dict(teacher='resnet14', student='resnet8', num_classes=10, size=16, bs=8, device='cpu')
    costs = methods.bench_methods(pairs=1, **net)
    assert [row['method'] for row in costs] == names
    spreads = [v for row in costs for v in row.values() if isinstance(v, dict)]
    assert all(0 < v['min'] <= v['median'] <= v['max'] for v in spreads)
    assert costs[0]['mb']['median'] < costs[1]['mb']['median']          # alone holds no teacher
    lines = repr(costs).splitlines()
    assert len(lines) == 1 + len(costs) and len(set(map(len, lines))) == 1

# --- rows and sections

def test_a_row_and_its_line():
    row = table_row('speed', 'a', 'b', [3, 1, 2], [3000, 1000, 2000], 'images/s', bs=64)
    assert (row['ratio'], row['value']['median'], row['bs']) == (dict(min=1, median=2, max=3), 2000, 64)
    assert table_line(row).split() == 'a 2.00 1.00 to 3.00 2,000 images/s'.split()
    missing = table_row('speed', 'a', 'b', why='not measured: no GPU')
    assert table_line(missing).split() == 'a – not measured: no GPU'.split()

def test_a_way_that_fails_is_a_row(tiny, monkeypatch):
    there = ways.our_kd

    def without_compiler(*nets, compile=False, **how):
        if compile: raise RuntimeError('no C++ compiler')
        return there(*nets, **how)

    monkeypatch.setattr(ways, 'our_kd', without_compiler)
    rows = ways.bench_speed(*tiny, rounds=2, seconds=.01)
    assert [r['way'] for r in rows] == ['the plain way', 'kdnb', 'kdnb, compile=True']
    assert rows[0]['ratio'] == dict(min=1, median=1, max=1)
    assert rows[2]['why'] == 'not measured: RuntimeError, no C++ compiler'

def test_levers_are_taken_away(tiny):
    first = levers.channels_first(*tiny)
    nets = [*first.learn.scheme.parameters(), *first.learn.scheme.teacher.model.parameters()]
    assert all(p.is_contiguous() for p in nets) and next(first.batches)[0].is_contiguous()
    ours = ways.our_kd(*tiny)
    assert not next(ours.batches)[0].is_contiguous()
    assert ours.learn.opt.defaults['fused'] and not levers.not_fused(*tiny).learn.opt.defaults['fused']
    x = tiny[2].one_batch()[0]
    both = ways.our_kd(*tiny, method='fitnet'), levers.to_the_end(*tiny)
    stops, goes_on = (way.learn.scheme.teacher(x)[0] for way in both)
    assert stops is None and goes_on.shape == (8, 100)

def test_what_a_lever_gives():
    without, with_it = 'without channels last', 'with a folded teacher'
    assert levers.gain_of(without, {'kdnb': [1., 2.], without: [3., 3.]}) == [3, 1.5]
    assert levers.gain_of(with_it, {'kdnb': [3., 3.], with_it: [1., 2.]}) == [3, 1.5]
    assert levers.gain_of('kdnb', {}) is None and levers.gain_of('FitNet', {}) is None

def test_students_together_share_one_pass_of_their_teacher(tiny):
    pair, calls = levers.Together(2, *tiny), []
    teacher = next(iter(pair.shared.values()))
    answer = teacher.forward
    teacher.forward = lambda x: calls.append(len(x)) or answer(x)
    pair.ready()
    assert calls == [8]
    rows = levers.bench_together(*tiny, numbers=(1, 2), rounds=2, seconds=.01)
    assert [(r['students'], r['to']) for r in rows] == [(1, '1 by itself'), (2, '2 by themselves')]

def test_memory_and_start(tiny):
    assert .2 < levers.bench_memory(*tiny, times=1)[1]['ratio']['median'] < 1.5
    rows = levers.bench_start('resnet14', 'resnet8', 64, True, 'cpu', rounds=1)
    assert all(r['value']['min'] > 0 for r in rows) and rows[0]['ratio']['median'] == 1
    with pytest.raises(RuntimeError, match='a fresh process'):
        levers.fresh_start(teacher='resnet99', student='resnet8', n=64, noise=True, device='cpu')

def test_parts_and_kinds_sum_up_to_a_step(tiny):
    rows = parts.bench_parts(*tiny, rounds=2, seconds=.01)
    assert [r['name'] for r in rows if r['section'] == 'parts'] == [*parts.PARTS, 'losses and the rest']
    assert {r['section'] for r in rows} == {'parts', 'kinds', 'bound'}
    for section in ('parts', 'kinds'):
        assert sum(r['ratio']['median'] for r in rows if r['section'] == section) == pytest.approx(1, abs=.05)

def test_kinds_of_operations():
    kinds = dict(
        mkldnn_convolution='convolution', convolution_backward='convolution', native_batch_norm_backward='batch norm',
        clamp_min_='activation', threshold_backward='activation', add_='sums', copy_='copies and casts',
        _fused_sgd_='optimiser', addmm='other', mm='other')
    assert {op: parts.kind_of(f'aten::{op}') for op in kinds} == kinds

def test_operations_and_bytes_are_counted(tiny):
    a, b, x, w = (torch.randn(*shape) for shape in ((4, 8), (8, 16), (2, 3, 8, 8), (5, 3, 3, 3)))
    assert parts.counted(lambda: a @ b) == (2*4*8*16, 4*(4*8 + 8*16 + 4*16))
    assert parts.counted(lambda: torch.conv2d(x, w, padding=1)) == (2*2*5*8*8*3*9, 4*(2*3*64 + 5*27 + 2*5*64))
    operations, moved = parts.counted(ways.our_kd(*tiny))
    assert operations > 2*8*12e6 and moved > 0          # resnet8 has 12 million multiply-accumulates at 32 pixels

def test_the_hardware_has_limits_and_a_step_its_share_of_them(tiny):
    limits = parts.hardware_limits(torch.device('cpu'), n=64, size=2**16)
    assert {'float32', 'copy'} <= limits.keys() and all(v > 0 for rates in limits.values() for v in rates)
    own = name_dtype(ways.our_kd(*tiny).learn.dtype)
    made_up = {own: [1e15], 'copy': [1e15]}                                 # a limit that nothing reaches
    rows = parts.bench_shares(*tiny, made_up, rounds=2, seconds=0, compiled=False)
    assert [r['name'] for r in rows] == [f'{way}, {of}' for way in ('kdnb', 'the student alone')
                                         for of in (f'operations in {own}', 'bytes of a copy')]
    for r in rows:
        assert 0 < r['ratio']['median'] < .1 and r['ratio']['max'] == pytest.approx(r['value']['max']*1e9/1e15)
    assert rows[0]['value']['median'] > 0

def test_a_step_grows(monkeypatch):
    monkeypatch.setattr(growth, 'VALUES', dict(classes=(10, 20_000), methods=(1, 2)))
    rows = [*growth.bench_growth(4, 2, 1, 0, 'cpu')]
    assert [r['name'] for r in rows] == ['classes 10', 'classes 20,000', 'methods 1', 'methods 2', 'batch 4', 'batch 8']
    assert all(r['value']['median'] > 0 for r in rows)

def test_a_section_that_fails_is_a_row(monkeypatch):
    def fails(plan): raise RuntimeError('out of memory')
    monkeypatch.setitem(benchmark.sections, 'memory', ('', fails))
    row, = bench_all(['memory'], quick=True, device='cpu')['rows']
    assert (row['section'], row['ratio'], row['why']) == ('memory', None, 'failed: RuntimeError, out of memory')

# --- the command

@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "The whole benchmark on tiny nets, in a process of its own: exit code, output, errors, file."
    path = tmp_path_factory.mktemp('bench') / 'new' / 'bench.json'
    child = start('--pairs', '1', '--write', str(path))
    out, err = child.communicate(timeout=600)
    return child.returncode, out, err, path

def test_the_table_and_nothing_else_is_printed(whole):
    code, out, err, path = whole
    assert (code, err) == (0, ''), err                  # the profiler's log among it
    heads = [block.split(':')[0] for block in out.strip('\n').split('\n\n')]
    assert heads[:-1] == [*SECTIONS]
    assert os.listdir(path.parent) == ['bench.json'] and 'QUICK' in out.splitlines()[-1]

def test_the_file_holds_what_tables_are_made_of(whole):
    found = json.loads(whole[3].read_text())
    wanted = 'device torch torchvision python kdnb date command threads cores pairs data quick minutes'.split()
    assert {*wanted} <= found['about'].keys() and found['about']['command'].startswith('python -m bench --quick')
    assert {r['section'] for r in found['rows']} == {*benchmark.sections, 'kinds', 'bound', 'shares'}
    for r in found['rows']:
        assert {'section', 'name', 'to', 'ratio', 'value', 'unit'} <= r.keys()
        if r['ratio'] is None:
            assert r['why'].startswith('not measured'), r
        else:
            assert all(0 <= v['min'] <= v['median'] <= v['max'] for v in (r['ratio'], r['value']))
    names = [r['name'] for r in found['rows'] if r['section'] == 'levers']
    assert names == ['the plain way', 'kdnb', *levers.levers][:-1]      # without compile=True
    assert [r['method'] for r in found['methods']['rows']] == ['kd', 'at']
    assert method_cards(whole[3]).about == found['methods']['about']

def test_readme_can_be_made_of_it(whole):
    speed = Speed(whole[3])
    assert 'QUICK' in speed.paragraph() and speed.goals().count('not measured: no GPU') == 3
    assert 'backward' in speed.profile() and 'without channels last' in speed.levers()
    assert 'operations in' in speed.limits() and '| width² | 1 | 2 |' in speed.growth()
    assert f"{speed.rows('speed', way='kdnb')[0]['ratio']['median']:.2f}" in speed.paragraph()

def test_ctrl_c_is_one_sentence_and_nothing_is_written(tmp_path):
    child = start('--pairs', '100000', '--write', str(tmp_path / 'bench.json'))
    try:
        assert child.stdout.readline() == '\n' and child.stdout.readline().startswith('speed:')     # it measures
        time.sleep(2)
        os.killpg(child.pid, signal.SIGINT)             # as a terminal does: the loader's workers get it, too
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait()
    told = 'python -m bench: interrupted, nothing is written'
    assert (child.returncode, err.strip(), os.listdir(tmp_path)) == (130, told, [])

def test_make_bench_starts_it():
    command = ['make', '-n', 'bench', 'ARGS=--only speed']
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert any(re.search(r'python -m bench --only speed$', line) for line in lines)

def test_methods_and_the_command_are_written(tmp_path, capsys):
    path = tmp_path / 'new' / 'costs.json'
    words = [*TINY, '--pairs', '1', '--only', 'methods', '--methods', 'rkd', 'kd(T=2)+at', '--write', str(path)]
    assert run_benchmark(words) == 0
    written = json.loads(path.read_text())
    assert [r['method'] for r in written['methods']['rows']] == ['rkd', 'kd(T=2)+at']
    for about in (written['about'], written['methods']['about']):
        assert "--methods rkd 'kd(T=2)+at'" in about['command']
    assert capsys.readouterr().out.endswith('costs.json\n')

@pytest.mark.parametrize('words, told', [
    ('--methods kd rdk', 'rkd'), ('--methods kd(T=0)', 'T'), ('--methods at(taps=9)', 'stage'),
    ('--pairs 0', 'pairs must be'), ('--threads 0', 'threads must be'), ('--write .', 'is a folder')])
def test_a_mistake_is_one_sentence_and_nothing_is_measured(words, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_benchmark([*TINY, '--write', 'costs.json', *words.split()]) == 1
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines()), os.listdir(tmp_path)) == ('', 1, []) and told in err

def test_a_section_that_is_unknown():
    with pytest.raises(ValueError, match='did you mean levers'):
        bench_all(['levels'], quick=True)

def test_a_file_in_the_way_is_told_before_anything_is_measured(tmp_path, capsys):
    (tmp_path / 'thesis').write_text('x')
    assert run_benchmark([*TINY, '--write', str(tmp_path / 'thesis' / 'costs.json')]) == 1
    out, err = capsys.readouterr()
    assert out == '' and err.startswith('python -m bench: ') and len(err.splitlines()) == 1
    assert (tmp_path / 'thesis').read_text() == 'x'

# --- a file told as Markdown

def made_up(section, name, ratio, value=None, unit='', **more):
    def spread(v): return v and dict(min=.9*v, median=v, max=1.1*v)
    return dict(section=section, name=name, to='', ratio=spread(ratio), value=spread(value), unit=unit) | more

ABOUT = dict(
    device='CPU, 4 threads', threads=4, cores=4, data='noise', pairs=5, quick=False, date='2026-01-01', torch='2.9',
    command='python -m bench', minutes=12.)
WAYS = {'the plain way': (1, 400), 'kdnb': (2.4, 960), 'kdnb, compile=True': (2.6, 1040)}
SAMPLE = [
    *(made_up('speed', 'x', *WAYS[way], 'images/s', bs=bs, way=way, nets=['resnet56', 'resnet20'])
      for bs in (64, 128) for way in WAYS),
    made_up('together', '8', .6, .5, 's/step', students=8), made_up('memory', 'm', .7, 90, 'MB', bs=64, way='kdnb'),
    made_up('start', 'import kdnb, beyond that', .0002, .0005, 's'),
    *(made_up(section, name, share, .02, 's', nets=nets)
      for nets in (['resnet56', 'resnet20'], ['wrn_40_2', 'wrn_16_2'])
      for section, name, share in (('parts', 'teacher', .3), ('parts', 'backward', .7), ('kinds', 'convolution', .6),
                                   ('bound', 'no faster than the student alone', 3.5))),
    made_up('levers', 'without x', 2, gives=dict(min=1, median=1.5, max=2)),
    made_up('limits', 'a copy', 1, 20, 'GB/s'),
    *(made_up('growth', 'x', v, (5 + 2*v*v)/1000, 's/step', what='width', at=v) for v in (1, 2, 4)),
    dict(section='shares', name='compiled', to='', ratio=None, value=None, unit='', why='not measured: no compiler')]

def told(folder, rows=SAMPLE, **about):
    path = folder / 'bench.json'
    path.write_text(json.dumps(dict(about=ABOUT | about, rows=rows, methods=None)))
    return Speed(path)

def test_a_file_is_told(tmp_path):
    speed = told(tmp_path)
    assert (len(speed.rows('speed', way='kdnb')), speed.rows('shares')) == (2, [])
    text = speed.paragraph()
    assert '| resnet56 → resnet20 | 64 | 1, 400/s | **2.40** (2.16 to 2.64), 960/s |' in text
    assert '8 students beside one teacher take **0.60** (0.54 to 0.66)' in text and '0.0005' in text
    assert speed.levers().splitlines()[-1] == '| without x | **2.00** (1.80 to 2.20) | **1.50** (1.00 to 2.00) |'
    assert '| teacher | **30%** (27% to 33%) | **30%** (27% to 33%) |' in speed.profile()

def test_growth_over_the_work_is_a_line(tmp_path):
    line = Line.through(told(tmp_path).rows('growth'))
    numbers = *map(pytest.approx, (4.5, 1.8)), pytest.approx(0)         # of the least times
    assert (line.work, line.base, line.slope, line.off) == ([1, 4, 16], *numbers)
    assert told(tmp_path).growth().splitlines()[-1] == '| width² | 1 | 4 | 6 to 33 | 4.5 + 1.8 · width² | 0% |'
    assert told(tmp_path, []).growth() == ''

def test_each_file_is_a_machine(tmp_path):
    told(tmp_path)
    other = dict(about=ABOUT | dict(machine='Linux x86_64, AVX2'), rows=[], methods=dict(rows=[{}, {}]))
    (tmp_path/'bench-other.json').write_text(json.dumps(other))
    both = machines(tmp_path)
    assert [s.path.name for s in both] == ['bench-other.json', 'bench.json']           # the most methods first
    assert both[0].machine == 'CPU, 4 threads, 4 cores, Linux x86_64, AVX2' and both[1].machine.endswith('4 cores')

def test_goals_are_met_or_missed_or_not_measured(tmp_path):
    lines = told(tmp_path).goals().splitlines()[2:]
    assert [line.split('|')[-2].strip() for line in lines] == ['**missed**', '**missed**', '', '', '', 'yes', 'yes']
    assert told(tmp_path, device='NVIDIA X').goals().count('not measured here') == 2
    assert told(tmp_path, [], device='NVIDIA X').goals().count('not measured') == 7

def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / 'bench.json').write_text('{}')
    with pytest.raises(ValueError, match='make it again'):
        Speed(tmp_path / 'bench.json')
    with pytest.raises(OSError, match='write it with make bench'):
        Speed(tmp_path / 'no.json')
