"What a notebook cannot show of the benchmark: that both ways learn the same, a real Ctrl-C, a clean stderr, `make "
"bench`, a file from end to end."

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bench.baseline import bench_data, named_nets, plain_loader, plain_optimiser, plain_step
from bench.benchmark import _sections, kdnb_bench
from docs.cards import method_cards
from docs.speed import Speed
from kdnb.schemes import Distill
from kdnb.train import Learner, begin_fit, open_epoch, train_step

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = 'import sys; from bench.benchmark import kdnb_bench; sys.exit(kdnb_bench())'
TINY = '--quick --device cpu --threads 1'.split()
ENV = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}


def start(*words):
    return subprocess.Popen(
        [sys.executable, '-c', PROGRAM, *TINY, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENV,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # what a shell started in the background would have it ignore


# --- both ways learn the same


def flat(student): return torch.cat([p.detach().flatten() for p in student.parameters()])


def train_both(nets, batches, T=4):
    "The distance of the two students after each step, as a part of the way that they have gone; the losses of both."
    (teacher, plain), (twin, ours) = named_nets(*nets, 100), named_nets(*nets, 100)
    data = bench_data(bs=16, n=96, device='cpu', noise=True)
    opt, learn = plain_optimiser(plain), Learner(Distill(ours, twin, 'kd'), data, amp='off', cbs=None)
    begin, apart, losses = flat(plain), [], []
    begin_fit(learn, 240, False)
    open_epoch(learn)
    plain.train()
    teacher.eval()
    for x, y in batches(data):
        losses.append(
            (
                plain_step(plain, teacher, opt, x.contiguous(), y, T)[0],
                (train_step(learn, x, y), learn.tally.steps[-1].sum().item())[1]))
        apart.append(((flat(plain) - flat(ours)).norm() / (flat(plain) - begin).norm()).item())
    buffers = [(a, b) for (n, a), (_, b) in zip(plain.named_buffers(), ours.named_buffers()) if a.is_floating_point()]
    return apart, losses, buffers


@pytest.mark.parametrize('nets', [('resnet20', 'resnet8'), ('wrn_16_2', 'wrn_10_1'), ('resnet8x4', 'resnet8')])
def test_both_ways_learn_the_same_of_the_same_batches(quiet, nets):
    apart, losses, buffers = train_both(nets, lambda data: data.train.epoch(0, 0))
    assert len(apart) == 6 and max(apart) < 5e-3, apart
    for a, b in losses:
        assert abs(a - b) < 1e-3 * a
    for a, b in buffers:
        assert torch.allclose(a, b, rtol=1e-2, atol=1e-3)  # BatchNorm's statistics


def test_both_ways_learn_the_same_of_the_loaders_batches(quiet):
    assert max(train_both(('resnet14', 'resnet8'), lambda data: plain_loader(data, workers=0))[0]) < 5e-3


def test_another_loss_shows(quiet):
    assert train_both(('resnet14', 'resnet8'), lambda data: data.train.epoch(0, 0), T=2)[0][0] > 0.05


# --- the command


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "The whole benchmark on tiny nets, in a process of its own, and what it said."
    path = tmp_path_factory.mktemp('bench') / 'new' / 'bench.json'
    child = start('--pairs', '1', '--write', str(path))
    out, err = child.communicate(timeout=300)
    return child.returncode, out, err, path


def test_the_table_and_nothing_else_is_printed(whole):
    code, out, err, path = whole
    assert (code, err) == (0, ''), err  # the profiler's log among it
    assert [l.split(':')[0] for l in out.split('\n\n') if ':' in l.splitlines()[0]][:-1] == [
        *_sections,
        'methods',
    ] or out.count('\n\n') == len(_sections) + 1
    assert os.listdir(path.parent) == ['bench.json']


def test_the_file_holds_what_tables_are_made_of(whole):
    found = json.loads(whole[3].read_text())
    assert {
        'device',
        'torch',
        'torchvision',
        'python',
        'kdnb',
        'date',
        'command',
        'threads',
        'cores',
        'pairs',
        'data',
        'quick',
        'minutes',
    } <= found['about'].keys()
    assert {r['section'] for r in found['rows']} == {*_sections, 'kinds', 'bound'}
    for r in found['rows']:
        assert {'section', 'name', 'to', 'ratio', 'value', 'unit'} <= r.keys()
        assert (
            r['why'].startswith('not measured')
            if r['ratio'] is None
            else all(0 <= v['min'] <= v['median'] <= v['max'] for v in (r['ratio'], r['value'])))
    assert [r['method'] for r in found['methods']['rows']] == ['kd', 'at'] and method_cards(whole[3]).about == found[
        'methods'
    ]['about']


def test_readme_can_be_made_of_it(whole):
    s = Speed(whole[3])
    assert (
        'QUICK' in s.paragraph()
        and s.goals().count('not measured: no GPU') == 3
        and 'backward' in s.profile()
        and 'without channels last' in s.levers())
    assert f"{s.rows('speed', way='kdnb')[0]['ratio']['median']:.2f}" in s.paragraph()


def test_ctrl_c_is_one_sentence_and_nothing_is_written(tmp_path):
    child = start('--pairs', '100000', '--write', str(tmp_path / 'bench.json'))
    try:
        assert child.stdout.readline() == '\n' and child.stdout.readline().startswith('speed:')  # it measures
        time.sleep(2)
        os.killpg(child.pid, signal.SIGINT)  # as a terminal does: the loader's workers get it, too
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait()
    assert (child.returncode, err.strip(), os.listdir(tmp_path)) == (
        130,
        'kdnb_bench: interrupted, nothing is written',
        [])


def test_make_bench_starts_it():
    line = next(
        l
        for l in subprocess.run(
            ['make', '-n', 'bench', 'ARGS=--only speed'], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        if 'kdnb_bench' in l)
    assert re.search(r'bench.benchmark.*kdnb_bench.*--only speed$', line)


def test_a_file_in_the_way_is_told_before_anything_is_measured(tmp_path, capsys):
    (tmp_path / 'thesis').write_text('x')
    assert kdnb_bench([*TINY, '--write', str(tmp_path / 'thesis' / 'costs.json')]) == 1
    out, err = capsys.readouterr()
    assert (
        out == ''
        and err.startswith('kdnb_bench: ')
        and len(err.splitlines()) == 1
        and (tmp_path / 'thesis').read_text() == 'x')
