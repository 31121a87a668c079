"A film lies in its run's folder, is whole whatever happened to the run, and changes nothing."

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import matplotlib
import pytest
import torch

matplotlib.use('agg')
from kdnb.callbacks import Film, read_film, show_film
from kdnb.models import plainnet, resnet, weights_hash
from kdnb.schemes import Distill, JointRD, Online
from kdnb.seeds import seeded
from kdnb.train import Learner, Run, fit_together

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('quiet')]


def student(seed=1):
    with seeded(seed):
        return resnet(8)


def taught(data, run=None, seed=1, cbs=(), method='at'):
    return Learner(Distill(student(seed), student(0), method, size=8), data, run=run, cbs=[Film(6), *cbs])


CHILD = '''
import sys, time, torch; from pathlib import Path
torch.set_num_threads(1); sys.path.insert(0, sys.argv[1])
import test_film as t
from kdnb.data import load_data
from kdnb.train import Callback
data = load_data('digits', size=8, n_train=100, bs=20, device='cpu'); t.Learner.callbacks = []
class Wait(Callback):
    def after_epoch(self, learn):
        if learn.epoch == 2: (Path(sys.argv[2])/'ready').touch(); time.sleep(300)
learn = t.taught(data, sys.argv[2] + '/killed'); learn.cbs.insert(0, Wait()); learn.fit(4)
'''


def test_a_killed_run_has_its_film_whole(data, tmp_path):
    "Killed after last.pt of epoch 2 was written, and before its frame was taken."
    env = os.environ | dict(
        OMP_NUM_THREADS='1',
        PYTHONPATH=os.pathsep.join([str(Path(__file__).parent.parent), *filter(None, [os.environ.get('PYTHONPATH')])]))
    child = subprocess.Popen([sys.executable, '-c', CHILD, str(Path(__file__).parent), str(tmp_path)], env=env)
    try:
        end = time.time() + 120
        while not (tmp_path / 'ready').exists():
            assert child.poll() is None and time.time() < end
            time.sleep(0.05)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert read_film(Run(tmp_path / 'killed'))['epochs'] == [0, 1]
    film, whole = (read_film(taught(data, run).fit(4).run) for run in (tmp_path / 'killed', None))
    assert film['epochs'] == whole['epochs'] == [0, 1, 2, 4] and torch.equal(
        torch.stack(film['frames']), torch.stack(whole['frames']))
    assert len(show_film(tmp_path / 'killed').axes) == 4 * (1 + 4 + 1)


def test_learning_together_each_has_its_film(data):
    learners = [taught(data, f'run-{m}', method=m) for m in ('at', 'kd')]
    fit_together(learners, 2, cbs=None)
    for learn in learners:
        assert weights_hash(learn.student) == weights_hash(
            Learner(Distill(student(1), student(0), learn.run.path.name[4:], size=8), data).fit(2).student)
    assert [read_film(learn.run)['epochs'] for learn in learners] == [[0, 1, 2]] * 2
    assert (
        not torch.equal(*(read_film(learn.run)['frames'][-1] for learn in learners))
        and 'run-kd' not in show_film(learners[0]).texts[0].get_text())
    with pytest.raises(ValueError, match='a film is of one learner'):
        fit_together([taught(data), taught(data, seed=2)], 1, cbs=[Film()])


def test_one_camera_for_two_learners(data):
    camera = Film(6)
    a, b = (Learner(student(s), data, cbs=[camera]) for s in (1, 2))
    a.fit(1)
    b.fit(1)
    assert not torch.equal(read_film(a.run)['frames'][-1], read_film(b.run)['frames'][-1])
    assert len(show_film({'a': a, 'b': b}, n=2).axes) == 2 * 2 * 3


@pytest.mark.parametrize(
    'scheme', [lambda: Online([student(1), student(2)], size=8), lambda: JointRD(plainnet(8), student(0), size=8)])
def test_other_schemes_are_filmed(data, scheme):
    learn = Learner(scheme(), data, cbs=[Film(6)]).fit(1)
    assert read_film(learn.run)['epochs'] == [0, 1] and (read_film(learn.run)['goal'] is None) == isinstance(
        learn.scheme, Online)
    show_film(learn)


def test_aread_film_other_images_begins_anew_and_says_so(data, capsys):
    class Stop(Exception):
        pass

    class At3(Film):
        def after_epoch(self, learn):
            super().after_epoch(learn)
            if learn.epoch == 3: raise KeyboardInterrupt

    def begin(run):
        with pytest.raises(KeyboardInterrupt):
            Learner(student(), data, run=run, cbs=[At3(6)]).fit(4)

    begin('same')
    assert read_film(Learner(student(), data, run='same', cbs=[Film(6)]).fit(4).run)['epochs'] == [0, 1, 2, 4]
    begin('other')
    capsys.readouterr()
    assert read_film(Learner(student(), data, run='other', cbs=[Film(data.examples(9, 'valid')[0])]).fit(4).run)[
        'epochs'
    ] == [4]
    assert 'its film was of other images or another place; a new one begins at epoch 3' in capsys.readouterr().out


def test_mistakes_are_one_sentence(data):
    for make, said in [
        (lambda: Film('first'), 'images is a whole number'),
        (lambda: Film(torch.zeros(1, 3, 8, 8)), '2 or more'),
        (lambda: Film(True), 'whole number'),
        (lambda: Film(epochs=3), 'epochs are whole numbers'),
        (lambda: Learner(student(), data, cbs=[Film(stage=9)]).fit(1), 'stage 9 is not there'),
        (lambda: Learner(student(), data, cbs=[Film(taps={'studnet': 'x'})]).fit(1), 'did you mean student'),
        (lambda: Learner(student(), data, cbs=[Film(teacher='run')]).fit(1), 'teacher is str'),
        (lambda: show_film(Learner(student(), data)), 'has no film')]:
        with pytest.raises((ValueError, TypeError), match=said):
            make()
