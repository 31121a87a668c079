"""What is remembered of a teacher is what it says, or is refused: other images, another teacher, a killed process, a
full disk, a damaged file."""

import copy
import errno
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from test_engine import waits
from test_runs import At, Stop, throw, whole
from torch import nn

from kdnb.cli import kdnb_distill, kdnb_train
from kdnb.data import Data, load_data
from kdnb.experiments import sweep
from kdnb.measure import evaluating
from kdnb.methods import Term
from kdnb.models import load_model, resnet, weights_hash
from kdnb.schemes import Distill, Frozen, JointRD
from kdnb.seeds import seeded
from kdnb.train import Learner, Run, fit_together, remember

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('quiet')]
ASKED = dict(size=8, n_train=100, bs=20, device='cpu')


def net(seed=0, depth=8, classes=10):
    with seeded(seed):
        return resnet(depth, classes)


@pytest.fixture
def teacher(): return net(9, 14)


@pytest.fixture
def root(tmp_path): return tmp_path / 'kept'


def files(root): return sorted(p for p in root.rglob('*') if p.is_file() and p.name != 'lock')


def sentence(e): return '\n' not in str(e.value) and len(str(e.value)) < 500


class Rounds(nn.Module):
    "A teacher that says what half precision can hold."

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x): return self.net(x).half().float()


class Counts(nn.Module):
    "A teacher that counts the images it is shown."

    def __init__(self, net):
        super().__init__()
        self.net, self.seen = net, 0

    def forward(self, x):
        self.seen += len(x)
        return self.net(x)


# --- what is said


@pytest.mark.parametrize('augment', [None, 'crop_flip', 'crop_flip+reflect+cutout', 'resized_crop'])
def test_the_logits_are_those_of_the_live_teacher_on_the_same_view(root, teacher, augment):
    data = load_data('digits', **ASKED | dict(n_train=101, augment=augment))  # one image more than five batches
    known = remember(teacher, data, views=3, amp='off', root=root)
    for epoch in range(4):
        numbers = []
        for (x, y, there), (_, _, image) in zip(
            known.recall(data.train, 5, epoch), data.train.view(epoch % 3, 5, epoch)):
            z, features = there['taught']
            with torch.no_grad(), evaluating(teacher):
                live = teacher(x)
            assert (
                features == {} and z.dtype == torch.float32 and ((z - live).abs() <= live.abs() * 2**-11 + 1e-5).all())
            assert torch.equal(y, data.train.y[image])
            numbers += image.tolist()
        assert len(numbers) == 100 == len({*numbers})  # the one that is left out has been asked too
    assert all(torch.isfinite(known.open(v)).all() and known.open(v).shape == (101, 10) for v in range(3))


def test_views_stay_and_the_order_does_not(data, root, teacher):
    known = remember(teacher, data, views=2, root=root)

    def looks(seed, epoch):
        return {i: v for x, _, image in data.train.view(epoch % 2, seed, epoch) for i, v in zip(image.tolist(), x)}

    def order(seed, epoch): return [i for *_, image in data.train.view(epoch % 2, seed, epoch) for i in image.tolist()]

    def labels(seed, epoch): return [y.tolist() for _, y, _ in known.recall(data.train, seed, epoch)]

    first = looks(0, 0)
    for seed, epoch in ((0, 2), (1, 0), (1, 4)):
        assert order(seed, epoch) != order(0, 0) and all(
            torch.equal(first[i], v) for i, v in looks(seed, epoch).items())
    assert not all(torch.equal(first[i], v) for i, v in looks(0, 1).items())
    for seed, epoch in ((0, 0), (0, 3), (4, 1)):
        assert labels(seed, epoch) == [
            y.tolist() for _, y in data.train.epoch(seed, epoch)
        ]  # the order of the live run


@pytest.mark.parametrize('method', ['kd', 'dkd', 'dist', 'wttm'])
def test_without_augmentation_one_view_is_the_live_teacher_rounded(root, teacher, method):
    data = load_data('digits', **ASKED, augment=None)

    def learn(who, epochs): return Learner(Distill(net(), who, method), data, amp='off', seed=3).fit(epochs)

    known = remember(teacher, data, views=1, amp='off', root=root)
    assert whole(learn(known, 3))[::2] == whole(learn(Rounds(teacher), 3))[::2]  # weights and history, bit for bit
    live, told = (learn(who, 1).history[0] for who in (teacher, known))
    assert abs(live['loss'] - told['loss']) < 1e-2 * live['loss']


def test_nothing_in_a_step_waits_for_the_device(data, root, teacher, monkeypatch):
    monkeypatch.setattr(
        'kdnb.losses.logit.check_labels', lambda s, y: None
    )  # looks at labels, but never at those on a GPU
    assert waits(Learner(Distill(net(), remember(teacher, data, root=root), 'kd'), data)) == []


def test_what_prepares_the_images_prepares_them(data, root, teacher):
    double = Frozen(teacher, prepare=lambda x: nn.functional.interpolate(x, scale_factor=2))
    known = remember(double, data, views=1, amp='off', root=root)
    x, _, there = next(known.recall(data.train, 0, 0))
    z = there['taught'][0]
    assert torch.allclose(z, double(x)[0], atol=1e-2) and not torch.allclose(z, Frozen(teacher)(x)[0], atol=1e-2)
    assert known.folder != remember(teacher, data, views=1, amp='off', root=root).folder
    assert Learner(Distill(net(), known, 'kd', size=8), data).fit(1).result


# --- asked once


def test_the_teacher_is_asked_once(data, root, teacher, capsys):
    counts = Counts(teacher)
    known = remember(counts, data, views=3, root=root)
    assert counts.seen == 1 + 300  # one image for the number of classes
    assert (
        capsys.readouterr().out
        == f'3 views of 100 images, 10 logits each: 5.9 KiB in kept/{known.folder.name}: asking the teacher\n')
    before, counts.seen = [(f, f.stat().st_mtime_ns) for f in files(root)], 0
    remember(counts, data, views=3, root=root)
    assert (
        counts.seen == 1 + 20 and [(f, f.stat().st_mtime_ns) for f in files(root)] == before
    )  # and a batch, to see whether it still says so
    assert capsys.readouterr().out.endswith(': found\n')
    remember(counts, data, views=5, root=root)
    assert capsys.readouterr().out.endswith(': 3 found\n') and len(files(root)) == 5
    counts.seen = 0
    Learner(Distill(net(), known, 'kd'), data).fit(4)
    assert counts.seen <= 30  # the checks before the first step


def test_a_run_says_that_its_teacher_was_remembered(data, root, teacher, tmp_path):
    Learner(Distill(net(), teacher, 'kd'), data, run=tmp_path / 'live').fit(1)
    Learner(Distill(net(), remember(teacher, data, views=2, root=root), 'kd'), data, run=tmp_path / 'told').fit(1)
    a, b = (Run(tmp_path / n).json('config.json') for n in ('live', 'told'))
    assert {k: v for k, v in b.items() if k not in ('remembered', 'about')} == {
        k: v for k, v in a.items() if k != 'about'
    } and b['remembered'] == 2
    with pytest.raises(ValueError, match='the number of remembered views is 2, you ask for 3'):
        Learner(Distill(net(), remember(teacher, data, views=3, root=root), 'kd'), data, run=tmp_path / 'told').fit(1)


@pytest.mark.parametrize('step', [3, 8])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(data, root, teacher, tmp_path, step):
    known = remember(teacher, data, views=2, root=root)

    def learn(run, **options): return Learner(Distill(net(), known, 'kd'), data, run=run, **options)

    with pytest.raises(Stop):
        learn(tmp_path / 'run', cbs=[At(step, throw(Stop))]).fit(3)
    assert whole(learn(tmp_path / 'run').fit(3)) == whole(learn(tmp_path / 'never').fit(3))


def test_several_learn_from_it_together(data, root, teacher):
    known = remember(teacher, data, views=2, root=root)

    def learner(method, known=known): return Learner(Distill(net(), known, method), data, seed=4)

    both = fit_together([learner('kd'), learner('dist')], 3, cbs=None)
    for learn, method in zip(both, ('kd', 'dist')):
        assert whole(learn) == whole(learner(method).fit(3))
    with pytest.raises(ValueError, match='some ask for remembered outputs'):
        fit_together([learner('kd'), learner('kd', teacher)], 1)
    with pytest.raises(ValueError, match='some ask for remembered outputs'):
        fit_together([learner('kd'), learner('kd', remember(teacher, data, views=1, root=root))], 1)


def test_a_sweep_takes_it_as_a_teacher(data, root, teacher):
    "Those who are alone learn by themselves, those who read the file together."
    rows = sweep(
        'resnet8', remember(teacher, data, views=2, root=root), ['alone', 'kd', 'dist'], seeds=1, epochs=1, data=data)
    assert [r['config'].get('remembered') for r in rows] == [None, 2, 2] and not rows.left_out


def test_a_scheme_can_be_copied_and_written_down(data, root, teacher):
    scheme = Distill(net(), remember(teacher, data, views=1, root=root), 'kd')
    before = whole(Learner(copy.deepcopy(scheme), data).fit(1))
    assert before == whole(Learner(scheme, data).fit(1))
    assert pickle.loads(pickle.dumps(scheme.memory.asked)) == scheme.memory.asked


# --- what does not fit

OTHER = dict(
    n_train=dict(n_train=120),
    split_seed=dict(split_seed=1),
    size=dict(size=9),
    valid=dict(valid=100),
    augment=dict(augment='crop_flip'),
    padding=dict(augment='crop+reflect'),
    reflect=dict(recipe='distillation'),
    none=dict(augment=None))


@pytest.mark.filterwarnings('ignore:recipe')
@pytest.mark.parametrize('kind', list(OTHER))
def test_other_images_are_refused_and_have_a_folder_of_their_own(data, root, teacher, kind):
    known, other = remember(teacher, data, views=1, root=root), load_data('digits', **ASKED | OTHER[kind])
    with pytest.raises(ValueError, match='does not fit: .*(you ask for|not the same).* Call remember') as e:
        Learner(Distill(net(), known, 'kd'), other)
    assert sentence(e)
    assert remember(teacher, other, views=1, root=root).folder != known.folder


def own(data, x=None, stats=None):
    x = data.train.x if x is None else x
    return Data(
        (x, data.train.y),
        None,
        (data.test.x, data.test.y),
        data.classes,
        20,
        'crop',
        'cpu',
        stats=stats or (data.mean, data.std))


def test_other_pixels_and_another_normalisation_are_refused(data, root, teacher):
    "With the same labels, counts and name."
    x = data.train.x.clone()
    x[50, 0, 0, 0] ^= 1
    known = remember(teacher, own(data), views=1, root=root)
    with pytest.raises(ValueError, match="does not fit: the images' content is not the same"):
        Learner(Distill(net(), known, 'kd'), own(data, x))
    with pytest.raises(ValueError, match="the data's mean"):
        Learner(Distill(net(), known, 'kd'), own(data, stats=((0.5,) * 3, data.std)))
    with pytest.raises(ValueError, match="the data's std"):
        Learner(Distill(net(), known, 'kd'), own(data, stats=(data.mean, (0.5,) * 3)))


@pytest.mark.filterwarnings('ignore:recipe')
def test_what_the_teacher_does_not_see_may_change(data, root, teacher):
    known = remember(teacher, data, views=1, root=root)
    for same in (dict(bs=25), dict(recipe='reducenet')):
        other = load_data('digits', **ASKED | same)
        assert remember(teacher, other, views=1, root=root).folder == known.folder
        known.check(other)


def test_another_teacher_is_refused(data, root, teacher):
    known = remember(teacher, data, views=1, root=root)
    assert remember(net(8, 14), data, views=1, root=root).folder != known.folder
    with torch.no_grad():
        next(teacher.parameters())[0, 0, 0, 0] += 1
    with pytest.raises(ValueError, match='does not fit: the teacher is not the same') as e:
        Learner(Distill(net(), known, 'kd'), data)
    assert sentence(e)


def test_the_same_weights_in_another_forward_are_noticed(data, root, teacher):
    known = remember(teacher, data, views=2, root=root)

    class Louder(type(teacher)):
        def forward(self, x): return 1.2 * super().forward(x)

    teacher.__class__ = Louder
    with pytest.raises(OSError, match='is not what the teacher says now.* Delete it') as e:
        remember(teacher, data, views=2, root=root)
    assert sentence(e)
    shutil.rmtree(known.folder)
    remember(teacher, data, views=2, root=root)


@pytest.mark.parametrize(
    'method, name',
    [
        ('at', 'at'),
        ('kd+sp', 'sp'),
        ('fitnet', 'fitnet'),
        ('rkd', 'rkd'),
        ('ofd', 'ofd'),
        ('nst', 'nst'),
        ('pkt', 'pkt'),
        ('review', 'review')])
def test_a_term_that_looks_inside_is_refused_by_name(data, root, teacher, method, name):
    known = remember(teacher, data, views=1, root=root)
    with pytest.raises(
        ValueError, match=f'^{name} reads places inside the teacher.*give Distill the teacher instead'
    ) as e:
        Distill(net(), known, method, size=8)
    assert sentence(e)


def test_own_terms_too(data, root, teacher):
    known = remember(teacher, data, views=1, root=root)
    with pytest.raises(ValueError, match='^mine reads places'):
        Distill(net(), known, [Term(nn.functional.mse_loss, 1.0, taps='embedding', name='mine')], size=8)
    Learner(Distill(net(), known, [Term(nn.functional.mse_loss, 1.0, taps=None, name='mine')]), data).fit(1)


def test_what_cannot_be_is_refused_before_anything_is_written(data, root, teacher, tmp_path):
    for views in (0, -1, 1.5, True, '4'):
        with pytest.raises(ValueError, match='views=.*a whole number from 1 up'):
            remember(teacher, data, views=views, root=root)
    with pytest.raises(ValueError, match='7 classes'):
        remember(net(0, 8, 7), data, root=root)
    with pytest.raises(TypeError, match='a teacher is'):
        remember(3, data, root=root)
    with pytest.raises(TypeError, match='a teacher is'):
        JointRD(net(), remember(teacher, data, root=tmp_path / 'other'))
    trained = Learner(net(), load_data('digits', **ASKED | dict(valid=50))).fit(1)
    with pytest.raises(ValueError, match='valid images may be among its training images'):
        remember(trained, data, root=root)
    assert not root.exists()


def test_images_that_stream_are_refused(data, root, teacher):
    items = [(x, int(y)) for x, y in zip(data.train.x, data.train.y)]
    streams = Data(items, None, (data.test.x, data.test.y), data.classes, 20, 'crop', 'cpu', stream=True, workers=0)
    with pytest.raises(ValueError, match='stream=False'):
        remember(teacher, streams, root=root)
    with pytest.raises(ValueError, match='stream=False'):
        Learner(Distill(net(), remember(teacher, data, root=root), 'kd'), streams)
    assert len(files(root)) == 4


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), 7e4])
def test_what_half_precision_cannot_hold_is_refused(data, root, teacher, bad):
    with torch.no_grad():
        [*teacher.parameters()][-1][3] = bad  # of the classifier
    with pytest.raises(ValueError, match='no number, or beyond') as e:
        remember(teacher, data, amp='off', root=root)
    assert sentence(e) and files(root) == []


# --- the disk

CHILD = '''
import os, signal, sys, torch; torch.set_num_threads(1); sys.path.insert(0, sys.argv[1])
import test_remembered as t
real, done = os.replace, []
def replace(a, b):
    if len(done) == int(sys.argv[3]): os.kill(os.getpid(), signal.SIGKILL)
    done.append(b); real(a, b)
os.replace = replace
t.remember(t.net(9, 14), t.load_data('digits', **t.ASKED), views=3, root=sys.argv[2])
'''


@pytest.mark.parametrize('written', [0, 2])
def test_a_killed_process_leaves_what_it_had_finished(data, root, teacher, written, capsys):
    "It dies when all of the next view is written to a neighbour that has not been given its name."
    child = subprocess.run(
        [sys.executable, '-c', CHILD, str(Path(__file__).parent), str(root), str(written)],
        capture_output=True,
        text=True,
        timeout=120)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert (
        len([f for f in files(root) if f.suffix == '.npy']) == written
        and len([f for f in files(root) if f.suffix == '.tmp']) == 1)
    capsys.readouterr()
    known = remember(teacher, data, views=3, root=root)
    assert capsys.readouterr().out.endswith(': 2 found\n' if written else ': asking the teacher\n')
    assert [f.name[0] for f in files(root)] == ['0', '1', '2'] and not list(root.rglob('*.tmp'))
    never = remember(teacher, data, views=3, root=root.parent / 'never')
    for v in range(3):
        assert known.file(v).read_bytes() == never.file(v).read_bytes() and known.file(v).name == never.file(v).name


def test_two_processes_at_once_make_one(data, root, teacher):
    children = [
        subprocess.Popen(
            [sys.executable, '-c', CHILD, str(Path(__file__).parent), str(root), '99'],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True)
        for _ in range(2)]
    for c in children:
        out, err = c.communicate(timeout=120)
        assert c.returncode == 0, err
    assert len(files(root)) == 3
    assert remember(teacher, data, views=3, root=root)


def test_a_disk_without_room_is_told_first(data, root, teacher, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage', lambda p: shutil._ntuple_diskusage(10**9, 10**9, 5000))
    with pytest.raises(OSError, match='views that are missing need 7.8 KiB, and .* has 4.9 KiB free: make room') as e:
        remember(teacher, data, root=root)
    assert sentence(e) and files(root) == []
    assert remember(teacher, data, views=2, root=root)  # 3.9 KiB
    with pytest.raises(OSError, match='views that are missing need 5.9 KiB'):
        remember(teacher, data, views=5, root=root)


def test_more_views_than_any_disk_holds_are_refused_before_they_are_counted(data, root, teacher, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage', lambda p: shutil._ntuple_diskusage(10**12, 10**12, 10**9))
    remember(teacher, data, views=2, root=root)
    start = time.perf_counter()
    with pytest.raises(OSError, match='views that are missing need .* GiB, and .* has 953.7 MiB free'):
        remember(teacher, data, views=10**9, root=root)
    assert time.perf_counter() - start < 20 and len(files(root)) == 2


def test_a_disk_that_is_full_all_the_same(data, root, teacher, monkeypatch):
    real, calls = os.fsync, []

    def fsync(f):
        calls.append(f)
        if len(calls) == 2: raise OSError(errno.ENOSPC, 'No space left on device')
        real(f)

    monkeypatch.setattr(os, 'fsync', fsync)
    with pytest.raises(OSError, match='could not write .*No space left on device') as e:
        remember(teacher, data, root=root)
    assert sentence(e) and [f.suffix for f in files(root)] == ['.npy']  # the first view, whole
    assert remember(teacher, data, root=root) and len(files(root)) == 4


@pytest.mark.parametrize('kind', ['short', 'empty', 'flipped', 'another'])
def test_a_damaged_file_is_refused(data, root, teacher, kind):
    known = remember(teacher, data, views=2, root=root)
    f = known.file(1)
    content = bytearray(f.read_bytes())
    content[-7] ^= 1
    f.write_bytes(
        {'short': content[:-20], 'empty': b'', 'flipped': content, 'another': known.file(0).read_bytes()}[kind])
    with pytest.raises(OSError, match=f'{f.name} is damaged .* delete it, and remember again') as e:
        remember(teacher, data, views=2, root=root)
    assert sentence(e)
    remember(teacher, data, views=1, root=root)  # which does not need it
    f.unlink()
    assert remember(teacher, data, views=2, root=root).file(1).name == f.name


def test_a_file_that_went_away_is_a_sentence(data, root, teacher):
    known = remember(teacher, data, views=2, root=root)
    learn = Learner(Distill(net(), known, 'kd'), data)
    known.file(1).unlink()
    with pytest.raises(OSError, match='view 1 is gone from .*: call remember again'):
        learn.fit(2)


def test_training_never_writes_to_the_file(data, root, teacher):
    known = remember(teacher, data, views=1, root=root)
    before = known.file(0).read_bytes()
    z = known.open(0)
    z.zero_()
    assert known.file(0).read_bytes() == before and known.open(0).abs().sum() > 0


def test_where_nothing_is_said_it_is_kept_among_the_runs(data, teacher, tmp_path):
    known = remember(teacher, data, views=1)
    assert known.folder.parent == tmp_path / 'runs' / '.remembered'


# --- as a command


def test_the_command_keeps_it_too(teacher, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = '--data digits --size 8 --n-train 100 --bs 20 --student resnet8 --device cpu --epochs 1'.split()
    assert kdnb_train([*small, '--run', 'teacher']) == 0
    asks = [*small, '--teacher', 'teacher', '--remember', '2']
    for said in ('asking the teacher', 'finished, loaded'):
        assert kdnb_distill(asks) == 0
        assert said in capsys.readouterr().out
    config = Run('digits-resnet8-kd-remember-2-0').json('config.json')
    assert config['remembered'] == 2 and config['teacher'] == weights_hash(load_model('teacher', 'last'))
    for more, why in (
        (['--method', 'at'], 'at reads places inside the teacher'),
        (['--method', 'jointrd'], '--remember keeps the logits of a teacher'),
        (['--remember', '0'], '--remember is a number of views from 1 up, not 0')):
        assert kdnb_distill([*asks, *more]) == 1
        assert why in capsys.readouterr().err
    assert kdnb_train([*small, '--remember', '2']) == 1 and 'add --teacher' in capsys.readouterr().err
