"""The commands of the five systems: each is typed as it stands, with a few words after it that make it small."""

import shlex

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from docs.five import five_sections, five_systems
from kdnb.cli import kdnb_distill, kdnb_sweep, kdnb_test, kdnb_train, train_parser
from kdnb.methods import parse_method
from kdnb.models import create_model
from kdnb.schemes import parse_scheme
from kdnb.systems import loadings, recipes, sweep_presets
from kdnb.train import Learner, Run

COMMANDS = dict(kdnb_train=kdnb_train, kdnb_distill=kdnb_distill, kdnb_test=kdnb_test, kdnb_sweep=kdnb_sweep)

@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "Noise of ten classes; ImageNet's nets get it twice as large."
    place, rng = tmp_path_factory.mktemp('five'), np.random.RandomState(0)
    def noise(n): return rng.randint(0, 256, (n, 16, 16, 3)).astype(np.uint8), np.arange(n) % 10
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

def test_the_page_shows_what_is_typed():
    lines = five_sections().splitlines()
    assert [c for r in five_systems for c in (r['theirs'], *r['ours']) if c not in lines] == []
    assert sum(line.startswith('**Here**') for line in lines) == len(five_systems)
    assert {r['system'] for r in five_systems} == {
        'ReduceNet',
        'KD with PyTorch',
        'Distillation',
        'JointRD',
        'OD-cheap-convolution'}

# --- what is typed means what theirs means

WORDS = [shlex.split(command) for row in five_systems for command in row['ours']]

def test_each_teacher_was_trained_above_and_every_name_is_known():
    runs = set()
    for name, *words in WORDS:
        if name == 'kdnb_sweep':
            assert words[0] in sweep_presets
        elif name == 'kdnb_test':
            assert words[0] in runs
        else:
            args = train_parser().parse_args(words)
            assert {*filter(None, [args.teacher, args.shrink, args.init])} <= runs, words
            assert parse_scheme(args.method) or parse_method(args.method or 'ce', args.weights)
            assert args.student is None or create_model(args.student, 10)
            runs.add(args.run)

def test_the_numbers_of_their_commands_are_those_of_recipes_and_methods():
    assert repr(parse_method('kd', 'distillation')) == 'CE(0.8) + KD(0.2, T=16)'       # --alpha 0.8 --temperature 16
    assert recipes['distillation'].epochs == 200
    cinic = recipes['cinic10']                                                          # --epochs 140 --lr 0.01 -b 96
    assert (cinic.epochs, cinic.lr, loadings['cinic10'].bs) == (140, .01, 96)
    jointrd = recipes['jointrd_imagenet']       # the last word of resnet_imagenet.sh; its ramp is half of these epochs
    assert (jointrd.wd, jointrd.epochs) == (1e-4, 120)

@pytest.mark.parametrize('row', five_systems[:3], ids=lambda row: row['theirs'])
def test_reducenets_loss_is_the_mean_over_images_and_classes(row):
    args = train_parser().parse_args(shlex.split(row['ours'][1])[1:])
    classes = {'cifar10': 10, 'cifar100': 100}[args.data]
    z, zt, y = torch.randn(8, classes), torch.randn(8, classes), torch.arange(8)
    kl = F.kl_div((z/5).log_softmax(1), (zt/5).softmax(1), reduction='none').mean()
    theirs = .7*5**2*kl + .3*F.cross_entropy(z, y)
    ours = sum(term.weight_at(0, 1)*term(z, zt, y) for term in parse_method(args.method, args.weights))
    assert torch.allclose(ours, theirs, atol=1e-5)
