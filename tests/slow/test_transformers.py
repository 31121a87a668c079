"""A vision transformer of timm is taught by recipe `vit`, its process is killed, and the run ends as if it were not."""
import json
import os
import signal
import subprocess
import sys

import house
import pytest

pytestmark = pytest.mark.slow

PROGRAM = '''
import json, os, signal, sys
import torch
from kdnb.all import *
from kdnb.schemes import Distill
import timm

run, epochs, kill = sys.argv[1], 2, sys.argv[2] == 'kill'
torch.set_num_threads(1)

class Kill(Callback):
    def after_batch(self, learn):
        if kill and learn.epoch == 1 and len(learn.tally.steps) == 2: os.kill(os.getpid(), signal.SIGKILL)

data = load_data('digits', size=16, n_train=256, bs=64, device='cpu', recipe='vit')
with seeded(0):
    net = timm.create_model('vit_tiny_patch16_224', img_size=16, patch_size=4, depth=2, num_classes=data.num_classes)
    teacher = resnet(8, data.num_classes)
learn = Learner(Distill(net, teacher, 'kd'), data, run=run, recipe='vit', cbs=[EMA(.99), Kill()]).fit(epochs)
decays = sorted({(group['weight_decay'], min(p.ndim for p in group['params'])) for group in learn.opt.param_groups})
rows = [{k: v for k, v in r.items() if k not in ('seconds', 'images_per_second')} for r in learn.history]
print(json.dumps([weights_hash(learn.student), weights_hash(learn.average.model), rows, learn.result, decays]))
'''

def train(run, kill: str) -> subprocess.CompletedProcess:
    env = {**os.environ, 'PYTHONPATH': str(house.ROOT), 'OMP_NUM_THREADS': '1', 'MPLBACKEND': 'Agg'}
    command = [sys.executable, '-c', PROGRAM, str(run), kill]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)

def test_a_transformer_is_killed_and_goes_on(tmp_path):
    pytest.importorskip('timm', reason='timm is not installed')
    whole = train(tmp_path/'whole', 'no')
    assert whole.returncode == 0, whole.stderr
    assert train(tmp_path/'run', 'kill').returncode == -signal.SIGKILL
    again = train(tmp_path/'run', 'no')
    assert again.returncode == 0, again.stderr
    first, second = (json.loads(p.stdout.splitlines()[-1]) for p in (whole, again))
    assert first == second
    assert {'valid_acc', 'ema_acc'} <= first[2][-1].keys()
    assert first[4][0][0] == 0 and first[4][-1] == [.05, 2]         # vectors and positions are spared
    optimiser = json.loads((tmp_path/'run'/'config.json').read_text())['optimiser']
    assert (optimiser['opt'], optimiser['warmup'], optimiser['mixup'], optimiser['no_decay']) == ('adamw', 5, .8, True)
