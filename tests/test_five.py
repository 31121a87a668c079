"Every command of the table of the five systems, typed as the table shows it, with a few words after it that make it "
"small."

import shlex

import numpy as np
import pytest
import torch

from docs.five import five_systems, five_table
from kdnb.cli import kdnb_distill, kdnb_sweep, kdnb_test, kdnb_train
from kdnb.train import Learner, Run

COMMANDS = dict(kdnb_train=kdnb_train, kdnb_distill=kdnb_distill, kdnb_test=kdnb_test, kdnb_sweep=kdnb_sweep)


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "Noise of ten classes; ImageNet's nets get it twice as large."
    place, rng = tmp_path_factory.mktemp('five'), np.random.RandomState(0)
    noise = lambda n: (rng.randint(0, 256, (n, 16, 16, 3)).astype(np.uint8), np.arange(n) % 10)
    (x, y), (xt, yt) = noise(140), noise(10)
    np.savez(place / 'noise.npz', x_train=x, y_train=y, x_test=xt, y_test=yt)
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as m:
        m.setenv('KDNB_RUNS', str(place / 'runs'))
        m.setattr(Learner, 'callbacks', [])
        yield place
    torch.set_num_threads(n)


def small(words, place):
    "What is typed after a command."
    data = ['--data', str(place / 'noise.npz'), '--device', 'cpu']
    if words[0] == 'kdnb_test': return data
    data += ['--epochs', '1', '--valid', '10']
    if words[0] == 'kdnb_sweep': return [*data, '--size', '8']  # its batches are the recipe's 128
    few = (
        '2' if words[-1] == 'resnet110-1' else '10'
    )  # so deep a teacher needs some steps, or its statistics are those of no image
    return [
        *data,
        '--size',
        '32' if 'imagenet' in words else '8',
        '--n-train',
        '20',
        '--bs',
        few,
        '--amp',
        'off',
        '--lr',
        '.001']


@pytest.mark.parametrize('row', five_systems, ids=lambda r: f"{r['system']}: {r['source']}")
def test_a_command_of_the_table_runs(place, capsys, row):
    for command in row['ours']:
        words = shlex.split(command)
        if '--tensorboard' in words:
            pytest.importorskip('tensorboard')
        assert COMMANDS[words[0]]([*words[1:], *small(words, place)]) == 0, capsys.readouterr().err
        if '--run' in words:
            assert Run(words[words.index('--run') + 1]).json('result.json')['last']['test_acc'] >= 0


def test_the_table_shows_what_is_typed():
    table = five_table()
    assert (
        all(f'<code>{c}</code>' in table for r in five_systems for c in (r['theirs'], *r['ours']))
        and len(table.splitlines()) == len(five_systems) + 2)
    assert {r['system'] for r in five_systems} == {
        'ReduceNet',
        'KD with PyTorch',
        'Distillation',
        'JointRD',
        'OD-cheap-convolution'}
