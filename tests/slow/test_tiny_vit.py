"""A tiny ViT learns from resnet18 on photographs with recipe `vit`, is killed, and goes on bit for bit.

Of the ten classes of imagenette224 it takes 30 images each for train and 5 for test, at 160 pixels, the smallest ViT
of timm, and a teacher that saw them for one epoch: REDUCED.
"""
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kdnb.data import Data, load_data
from kdnb.files import data_root
from kdnb.models import create_model, weights_hash
from kdnb.schemes import Distill
from kdnb.seeds import seeded
from kdnb.train import Callback, Learner

HERE = Path(__file__).resolve()
CHILD = '''
import sys
sys.path[:0] = [sys.argv[1]]
from test_tiny_vit import Kill, taught
taught(sys.argv[2], sys.argv[3], sys.argv[4], [Kill()])
'''


class Kill(Callback):
    "Ends the process in the second epoch, as a scheduler does."
    def after_batch(self, learn):
        if learn.epoch == 1 and len(learn.tally.steps) == 4: os.kill(os.getpid(), signal.SIGKILL)


def some_photos(place: Path, into: Path) -> Path:
    "A folder of links to the first images of each class."
    for split, n in (('train', 30), ('val', 5)):
        for folder in sorted(p for p in (place/split).iterdir() if p.is_dir()):
            (into/split/folder.name).mkdir(parents=True)
            for file in sorted(folder.iterdir())[:n]:
                (into/split/folder.name/file.name).symlink_to(file)
    return into


def photos(folder: str) -> Data:
    return load_data(folder, bs=25, size=160, valid=0, recipe='vit', device='cpu')


def taught(folder: str, teacher: str, run: str | None = None, cbs=None) -> Learner:
    torch.set_num_threads(1)
    data = photos(folder)
    with seeded(0):
        student = create_model('timm/test_vit', data.num_classes)
    return Learner(Distill(student, teacher, 'kd'), data, run=run, recipe='vit', cbs=cbs).fit(2)


def trained_teacher(folder: str, run: Path) -> str:
    "A resnet18 that saw the images once."
    data = photos(folder)
    with seeded(0):
        net = create_model('torchvision/resnet18', data.num_classes)
    learn = Learner(net, data, run=run, opt=torch.optim.AdamW, lr=1e-3, cbs=None).fit(1)
    assert learn.history[0]['train_acc'] > 15, 'no better than drawing lots'
    return str(run)


TIMES = 'seconds', 'images_per_second'


def rows(learn): return [{k: v for k, v in row.items() if k not in TIMES} for row in learn.history]


@pytest.mark.filterwarnings('ignore:recipe')            # the teacher is trained by another one
def test_a_tiny_vit_goes_on_bit_for_bit(tmp_path):
    pytest.importorskip('timm')
    place = data_root()/'imagenette224'
    if not (place/'train').is_dir(): pytest.skip(f'no photographs: {place} is not there, see $KDNB_DATA')
    folder, run = str(some_photos(place, tmp_path/'photos')), str(tmp_path/'run')
    teacher = trained_teacher(folder, tmp_path/'teacher')
    child = subprocess.run([sys.executable, '-c', CHILD, str(HERE.parent), folder, teacher, run], capture_output=True)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    whole, cut = taught(folder, teacher), taught(folder, teacher, run)
    assert (Path(run)/'result.json').exists() and cut.reduced.startswith('REDUCED: 2 of 300 epochs')
    assert rows(whole) == rows(cut) and weights_hash(whole.student) == weights_hash(cut.student)
    assert all(0 < row['kd'] < 1e3 for row in rows(cut))
