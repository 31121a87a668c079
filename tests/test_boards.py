"TensorBoard's files: whole, in the run folder, and read by TensorBoard itself; without the package one sentence."

import builtins
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from kdnb.callbacks import TensorBoard
from kdnb.cli import kdnb_distill, kdnb_sweep, kdnb_train
from kdnb.models import load_model, resnet, weights_hash
from kdnb.schemes import Online
from kdnb.systems import Preset, sweep_presets
from kdnb.train import Learner, Run, read_history

pytestmark = pytest.mark.slow

SMALL = '--data digits --size 8 --n-train 100 --bs 20 --student resnet8 --device cpu'.split()


def read(run):
    "{tag: [(step, value)]}, and the steps of the pictures."
    files = (
        pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
        .EventAccumulator(str(Run(run).path), size_guidance=dict(scalars=0, images=0))
        .Reload())
    return {t: [(e.step, e.value) for e in files.Scalars(t)] for t in files.Tags()['scalars']}, {
        t: [e.step for e in files.Images(t)] for t in files.Tags()['images']}


def events(run): return sorted(p.name for p in Run(run).path.glob('events.out.tfevents.*'))


def test_a_command_writes_what_tensorboard_reads(quiet, capsys):
    pytest.importorskip('tensorboard')
    assert kdnb_train([*SMALL, '--epochs', '1', '--run', 'teacher']) == 0 and events('teacher') == []
    words = [*SMALL, '--epochs', '6', '--teacher', 'teacher', '--method', 'kd+at', '--run']
    assert kdnb_distill([*words, 'taught', '--tensorboard']) == 0 and kdnb_distill([*words, 'unseen']) == 0
    curves, pictures = read('taught')
    rows, result = read_history(Run('taught')), Run('taught').json('result.json')
    assert set(curves) == {
        'lr',
        'loss/total',
        'loss/ce',
        'loss/kd',
        'loss/at',
        'accuracy/train',
        'accuracy/valid',
        'seconds',
        'images_per_second',
        'test/last',
        'test/best'}
    for tag, column in {
        'loss/at': 'at',
        'lr': 'lr',
        'accuracy/valid': 'valid_acc',
        'images_per_second': 'images_per_second',
    }.items():
        assert curves[tag] == [(r['epoch'], pytest.approx(r[column])) for r in rows]
    assert curves['test/best'] == [(6, pytest.approx(result['best']['test_acc']))] and pictures == {
        'attention': [0, 5, 6]}
    assert weights_hash(load_model('taught', 'last')) == weights_hash(
        load_model('unseen', 'last')
    )  # who watches changes nothing
    before = events('taught')
    assert kdnb_distill([*words, 'taught', '--tensorboard']) == 0 and events('taught') == before and len(before) == 1
    assert (
        kdnb_distill([*words, 'taught', '--fresh']) == 0 and events('taught') == []
    )  # a fresh run has none of the old curves


def test_a_sweep_hands_the_word_on(quiet, capsys, monkeypatch):
    pytest.importorskip('tensorboard')
    monkeypatch.setitem(
        sweep_presets,
        'one',
        Preset('one', 'one', 'digits', 'crd', {}, ((None, 'resnet8'),), weights='crd'))
    assert kdnb_sweep('one --epochs 1 --n-train 100 --size 8 --device cpu --tensorboard'.split()) == 0
    assert len(events('digits-crd-epochs1-n-train100-size8-resnet8-0')) == 1


def test_a_killed_run_goes_on_without_gaps_and_doubles(tmp_path):
    pytest.importorskip('tensorboard')
    words = [*SMALL, '--epochs', '8', '--tensorboard', '--run']
    program = 'import sys; from kdnb.cli import kdnb_train; sys.exit(kdnb_train())'
    env = os.environ | dict(
        KDNB_RUNS=str(tmp_path),
        OMP_NUM_THREADS='1',
        PYTHONPATH=os.pathsep.join([str(Path(__file__).parent.parent), *filter(None, [os.environ.get('PYTHONPATH')])]))
    child = subprocess.Popen(
        [sys.executable, '-c', program, *words, 'killed'], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.time() + 120
        while not (tmp_path / 'killed' / 'last.pt').exists():
            assert child.poll() is None and time.time() < end
            time.sleep(0.01)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    with pytest.MonkeyPatch.context() as m:
        m.setenv('KDNB_RUNS', str(tmp_path))
        m.setattr(Learner, 'callbacks', [])
        done = len(read_history(Run('killed')))
        assert 1 <= done < 8 and kdnb_train([*words, 'killed']) == 0
        curves, pictures = read('killed')
        assert [s for s, _ in curves['lr']] == [*range(1, 9)] == [s for s, _ in curves['loss/ce']]
        assert [v for _, v in curves['loss/ce']] == pytest.approx(
            [r['ce'] for r in read_history(Run('killed'))]
        ) and pictures['attention'][-1] == 8


def test_several_students_and_a_model_without_maps(quiet, data, capsys):
    pytest.importorskip('tensorboard')

    class Flat(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(192, 10)

        def forward(self, x): return self.fc(x.flatten(1))

    Learner(Online([resnet(8), resnet(8)], size=8), data, run='online', cbs=[TensorBoard(every=1)]).fit(1)
    curves, pictures = read('online')
    assert {'accuracy/student_1', 'accuracy/student_2', 'accuracy/joint', 'loss/kd_1', 'loss/joint_ce'} <= set(
        curves
    ) and pictures == {'attention': [0, 1]}
    with pytest.warns(UserWarning, match='TensorBoard gets no attention maps: no attention to show'):
        Learner(Flat(), data, run='flat', cbs=[TensorBoard()]).fit(2)
    assert [s for s, _ in read('flat')[0]['accuracy/valid']] == [1, 2] and read('flat')[1] == {}


def test_without_the_package_it_is_one_sentence(quiet, capsys, monkeypatch):
    real = builtins.__import__

    def no(name, *args, **kwargs):
        if name.startswith(('tensorboard', 'torch.utils.tensorboard')):
            raise ModuleNotFoundError("No module named 'tensorboard'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', no)
    assert kdnb_train([*SMALL, '--epochs', '1', '--tensorboard', '--run', 'never']) == 1
    told = "TensorBoard's files need the package tensorboard (No module named 'tensorboard')"
    assert capsys.readouterr().err == f"kdnb_train: {told}: pip install 'kdnb[tensorboard]'\n"
    assert not Run('never').path.exists()
