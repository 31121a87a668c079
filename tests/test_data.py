"""What the data notebook cannot show: torchvision's own transforms as the judge, a fake CIFAR on disk, and the same
stream on a GPU."""

import hashlib
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets
from torchvision.transforms import RandomResizedCrop, v2
from torchvision.transforms.v2 import functional as TF

import kdnb.data.digits_cifar
import kdnb.data.downloads
import kdnb.data.loading
import kdnb.data.sources
from kdnb.data import Data, Split, TrainSplit, draw_epoch, draw_resized_windows, known_sources, load_data, source

pytestmark = pytest.mark.slow

RAW = (0.0, 0.0, 0.0), (1 / 255,) * 3  # constants that leave pixels as they are


def marked(n, size=32):
    "Images in which every pixel has a colour of its own, so that a crop can be told from any other."
    at = torch.arange(size * size).view(size, size)
    return torch.stack([at % 251 + 1, at // 251 + 1, at % 13 + 1]).byte().expand(n, -1, -1, -1).contiguous()


def train(n, augment, bs=512): return TrainSplit(marked(n), torch.arange(n), *RAW, bs, 'cpu', augment)


@pytest.mark.parametrize('mode', ['constant', 'reflect'])
def test_each_image_is_torchvisions_crop(mode):
    split = train(300, 'crop_flip' + ('+reflect' if mode == 'reflect' else ''))
    padded = TF.pad(marked(1)[0], [4], padding_mode=mode)
    draws = draw_epoch(300, 4, 32, 7, 3)
    xb = torch.cat([xb for xb, yb in split.epoch(7, 3)])
    for image, (_, oy, ox, flip, *_) in zip(xb, draws.T.tolist()):
        want = TF.crop(padded, oy, ox, 32, 32)
        assert torch.equal(image, (TF.horizontal_flip(want) if flip else want).float())


def test_all_crops_and_flips_are_equally_frequent():
    """The images themselves say which of the 9 x 9 x 2 they are: chi-square against equal shares, as torchvision's
    own transforms pass it."""
    n = 162 * 40
    windows = torch.stack([TF.crop(TF.pad(marked(1)[0], [4]), oy, ox, 32, 32) for oy in range(9) for ox in range(9)])
    names = {w.numpy().tobytes(): k for k, w in enumerate(torch.cat([windows, windows.flip(3)]))}

    def chi2(images):
        counts = np.bincount([names[i.byte().contiguous().numpy().tobytes()] for i in images], minlength=162)
        assert counts.min() > 0
        return ((counts - 40) ** 2 / 40).sum()

    ours = chi2(torch.cat([xb for xb, yb in train(n, 'crop_flip').epoch(0, 0)]))
    torch.manual_seed(0)
    theirs = v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()])
    assert ours < 230 and chi2([theirs(i) for i in marked(n)]) < 230  # 161 degrees of freedom: mean 161, deviation 18


def test_augmentation_none_and_crop():
    xb = torch.cat([xb for xb, yb in train(20, None).epoch(0, 0)])
    assert torch.equal(xb.byte(), marked(20))
    windows = {
        TF.crop(TF.pad(marked(1)[0], [4]), oy, ox, 32, 32).numpy().tobytes() for oy in range(9) for ox in range(9)}
    assert all(
        i.byte().contiguous().numpy().tobytes() in windows for xb, yb in train(200, 'crop').epoch(0, 0) for i in xb)


def test_labels_follow_their_images():
    x = torch.arange(100, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous()
    split = TrainSplit(x, torch.arange(100), *RAW, 16, 'cpu', 'crop_flip+reflect')
    for xb, yb in split.epoch(0, 0):
        assert torch.equal(xb[:, 0, 4, 4].long(), yb)


def test_plain_iteration_follows_the_global_generator():
    split, order = train(50, 'crop_flip'), lambda: torch.cat([yb for xb, yb in split]).tolist()
    torch.manual_seed(1)
    a, b = order(), order()
    torch.manual_seed(1)
    assert order() == a != b
    torch.manual_seed(1)
    before = torch.get_rng_state()
    list(split.epoch(0, 0))
    assert torch.equal(torch.get_rng_state(), before)  # a keyed epoch leaves it alone


def test_normalisation_is_torchvisions():
    x = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    mean, std = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
    xb, yb = next(iter(Split(x, torch.arange(5), mean, std, 5, 'cpu')))
    want = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])(x)
    assert torch.allclose(xb, want, atol=1e-5)


def test_order_is_pinned():
    "A seed names the same run in every version of kdnb."
    assert draw_epoch(6, 4, 32, 0, 0).tolist() == [
        [3, 1, 2, 4, 5, 0],
        [6, 1, 5, 5, 1, 4],
        [0, 1, 7, 8, 3, 2],
        [1, 1, 0, 1, 1, 1],
        [0, 27, 13, 8, 3, 3],
        [7, 8, 8, 29, 1, 1]]
    assert load_data('digits', device='cpu').describe()['split'] == 'e618a9a7f546'


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    "Tiny files in CIFAR-100's form, with their own hashes, and an address that leads nowhere."
    folder, md5 = tmp_path / 'cifar-100-python', {}
    folder.mkdir()

    def put(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        md5[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()

    rng = np.random.RandomState(0)
    for name, n in (('train', 60), ('test', 20)):
        put(name, dict(data=rng.randint(0, 256, (n, 3072)).astype(np.uint8), fine_labels=[i % 3 for i in range(n)]))
    put('meta', dict(fine_label_names=['apple', 'bear', 'clock']))
    monkeypatch.setattr(datasets.CIFAR100, 'train_list', [['train', md5['train']]])
    monkeypatch.setattr(datasets.CIFAR100, 'test_list', [['test', md5['test']]])
    monkeypatch.setattr(datasets.CIFAR100, 'meta', dict(filename='meta', key='fine_label_names', md5=md5['meta']))
    monkeypatch.setattr(datasets.CIFAR100, 'url', 'file:///nowhere/cifar-100-python.tar.gz')
    return tmp_path


def test_cifar(cifar, monkeypatch):
    monkeypatch.setattr(kdnb.data.digits_cifar, 'download', lambda *_: pytest.fail('touched the network'))
    data = load_data('cifar100', root=cifar, bs=16, device='cpu')
    raw = datasets.CIFAR100(cifar, train=False)
    assert (
        data.classes == ['apple', 'bear', 'clock']
        and len(data.train) == 54
        and len(data.valid) == 6
        and data.mean == (0.5071, 0.4867, 0.4408))
    assert np.array_equal(data.test.x.permute(0, 2, 3, 1).numpy(), raw.data) and data.test.y.tolist() == raw.targets
    monkeypatch.setenv('KDNB_DATA', str(cifar))
    crd = load_data('cifar100', recipe='crd', bs=16, device='cpu')
    assert crd.mean == (0.5071, 0.4867, 0.4408) and crd.describe()['split'] == data.describe()['split']


@pytest.mark.parametrize('name', ['train', 'test', 'meta'])
def test_cifar_damaged(cifar, name):
    f = cifar / 'cifar-100-python' / name
    f.write_bytes(f.read_bytes()[:-9])
    cut = f.read_bytes()
    with pytest.raises(OSError, match=f'{name} is damaged .* delete it'):
        load_data('cifar100', root=cifar)
    assert f.read_bytes() == cut


def test_cifar_missing(cifar):
    (cifar / 'cifar-100-python' / 'test').unlink()
    with pytest.raises(OSError, match=r'cifar-100-python/test is missing.*root= or \$KDNB_DATA'):
        load_data('cifar100', root=cifar)


def test_an_interrupted_download_goes_on(cifar, monkeypatch, tmp_path_factory):
    folder, there = cifar / 'cifar-100-python', tmp_path_factory.mktemp('server') / 'cifar-100-python.tar.gz'
    archive, part = cifar / there.name, cifar / f'{there.name}.part'
    with tarfile.open(there, 'w:gz') as t:
        t.add(folder, arcname=folder.name)
    monkeypatch.setattr(datasets.CIFAR100, 'url', there.as_uri())
    monkeypatch.setattr(datasets.CIFAR100, 'tgz_md5', hashlib.md5(there.read_bytes()).hexdigest())
    (folder / 'train').unlink()
    mine = (folder / 'test').stat().st_mtime_ns

    def interrupted(answer, part, *_):
        part.write_bytes(there.read_bytes()[:100])
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(kdnb.data.downloads, '_receive_rest', interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_data('cifar100', root=cifar)
    assert part.exists() and not archive.exists() and not (folder / 'train').exists()
    data = load_data('cifar100', root=cifar, bs=16, device='cpu')
    assert (
        len(data.train) == 54
        and archive.exists()
        and not part.exists()
        and (folder / 'test').stat().st_mtime_ns == mine
    )  # what was there is left alone
    shutil.rmtree(folder)
    monkeypatch.setattr(datasets.CIFAR100, 'url', 'file:///nowhere')
    assert len(load_data('cifar100', root=cifar, bs=16, device='cpu').train) == 54  # the archive is there


def test_archives_and_folders(tmp_path):
    a = np.random.RandomState(0).randint(0, 256, (40, 12, 10, 3)).astype(np.uint8)
    np.savez(
        tmp_path / 'cifar10.npz', x_train=a, y_train=np.arange(40)[:, None] % 4, x_test=a[:8], y_test=np.arange(8) % 4)
    mine = load_data(tmp_path / 'cifar10.npz', size=8, bs=8, device='cpu')
    assert (mine.num_classes, len(mine.train), len(mine.valid), len(mine.test)) == (4, 36, 4, 8)
    assert mine.mean != (0.4914, 0.4822, 0.4465)  # a file's name brings no constants
    for part in ('.', 'train', 'val'):
        for i, im in enumerate(a):
            f = tmp_path / ('alone' if part == '.' else 'split') / part / ['cat', 'dog'][i % 2] / f'{i}.png'
            f.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(im[:10]).save(f)
    alone, split = (load_data(d, root=tmp_path, bs=8, device='cpu') for d in ('alone', 'split'))
    assert alone.classes == split.classes == ['cat', 'dog'] and (
        len(alone.train),
        len(alone.test),
        len(split.test),
    ) == (29, 8, 40)
    first = np.stack([a[i, :10] for i in sorted(range(0, 40, 2), key=lambda i: f'{i}.png')])
    assert (
        np.array_equal(split.test.x[:20].permute(0, 2, 3, 1).numpy(), first)
        and split.test.y.tolist() == [0] * 20 + [1] * 20)
    (tmp_path / 'split' / 'val' / 'dog').rename(tmp_path / 'split' / 'val' / 'dogs')
    with pytest.raises(ValueError, match='class dog is in only one'):
        load_data('split', root=tmp_path)


@pytest.mark.gpu
def test_gpu_and_cpu_make_the_same_batches():
    cpu, gpu = (load_data('digits', size=32, augment='crop_flip+reflect+cutout', device=d) for d in ('cpu', 'cuda'))
    for (xa, ya), (xb, yb) in zip(cpu.train.epoch(3, 1), gpu.train.epoch(3, 1)):
        assert xb.is_cuda and torch.equal(ya, yb.cpu()) and torch.allclose(xa, xb.cpu(), atol=1e-5)


@pytest.mark.gpu
def test_no_batch_waits_for_the_gpu():
    data = load_data('digits', size=32, augment='crop_flip+cutout', device='cuda')
    batches = data.train.epoch(0, 0)
    next(batches)
    torch.cuda.set_sync_debug_mode('error')
    try:
        list(batches)
        list(data.test)
    finally:
        torch.cuda.set_sync_debug_mode('default')


# --- random windows


def test_windows_are_distributed_as_torchvisions():
    "Area and ratio of 20,000 windows of ours and of torchvision's: two-sample Kolmogorov-Smirnov."
    from scipy.stats import ks_2samp

    n, size = 20_000, 64
    top, left, h, w = draw_resized_windows(n, size, 0, 0)
    torch.manual_seed(0)
    like = torch.empty(3, size, size)
    theirs = torch.tensor([RandomResizedCrop.get_params(like, [0.08, 1], [3 / 4, 4 / 3]) for _ in range(n)]).T
    for ours, their in (
        (h * w, theirs[2] * theirs[3]),
        (h / w, theirs[2] / theirs[3]),
        (top, theirs[0]),
        (left, theirs[1])):
        assert ks_2samp(ours, their).pvalue > 1e-3


def test_windows_do_not_depend_on_other_epochs():
    assert torch.equal(draw_resized_windows(10, 32, 0, 1), draw_resized_windows(10, 32, 0, 1)) and not torch.equal(
        draw_resized_windows(10, 32, 0, 1), draw_resized_windows(10, 32, 0, 2))


# --- files


def photos(folder, n=24, size=None, classes='ab', seed=0):
    "Class folders of JPEGs that differ in size, or all of one size."
    rng = np.random.RandomState(seed)
    for i in range(n):
        h, w = (size, size) if size else rng.randint(40, 70, 2)
        f = folder / classes[i % len(classes)] / f'{i:03}.jpg'
        f.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(
            np.kron(rng.randint(0, 256, (h // 8 + 1, w // 8 + 1, 3)), np.ones((8, 8, 1)))[:h, :w].astype(np.uint8)
        ).save(f)
    return folder


def parts(folder, names=('train', 'test'), **k):
    for i, name in enumerate(names):
        photos(folder / name, seed=i, **k)
    return folder


def batches(split): return [(x, y) for x, y in split]


def same(a, b):
    return len(a) == len(b) and all(torch.equal(xa, xb) and torch.equal(ya, yb) for (xa, ya), (xb, yb) in zip(a, b))


@pytest.mark.parametrize('augment', [None, 'crop_flip', 'crop+reflect+cutout'])
def test_held_and_streamed_are_the_same(tmp_path, augment):
    parts(tmp_path)
    held, streamed = (
        load_data(tmp_path, size=32, bs=8, augment=augment, device='cpu', stream=s) for s in (False, True))
    assert 'streamed to cpu by 2 workers (as asked)' in repr(streamed) and 'MiB on cpu' in repr(held)
    assert held.describe() == streamed.describe()
    for epoch in (0, 1):
        assert same(list(held.train.epoch(3, epoch)), list(streamed.train.epoch(3, epoch)))
    assert same(batches(held.valid), batches(streamed.valid)) and same(batches(held.test), batches(streamed.test))
    for split in ('train', 'test'):
        assert same([held.examples(5, split)], [streamed.examples(5, split)])
    assert same([held.examples(4, per_class=2)], [streamed.examples(4, per_class=2)])


def test_windows_come_from_the_files(tmp_path):
    parts(tmp_path / 'odd')
    parts(tmp_path / 'even', size=80)
    odd, even, asked = (
        load_data(tmp_path / 'odd', size=80, bs=8, device='cpu'),
        load_data(tmp_path / 'even', bs=8, device='cpu'),
        load_data(tmp_path / 'even', bs=8, device='cpu', stream=True))
    assert (
        odd.augment == even.augment == 'resized_crop'
        and odd.streams
        and 'windows are cut from the files' in repr(odd)
        and not even.streams
        and '(up to 4 GiB are held)' in repr(even))
    assert odd.describe()['stream'] and asked.describe()['stream'] and 'stream' not in even.describe()
    assert same(list(odd.train.epoch(0, 1)), list(odd.train.epoch(0, 1)))


def test_what_does_not_fit_streams(tmp_path, monkeypatch):
    monkeypatch.setattr('kdnb.data.loading._held_limit', 10_000)
    data = load_data(parts(tmp_path), size=32, bs=8, device='cpu')
    assert data.streams and data.test.held == 0 and '0.0 GiB as pixels, and up to 9.31323e-06 are held' in repr(data)


def test_a_stream_leaves_the_global_generator_alone(tmp_path):
    data = load_data(parts(tmp_path), size=32, bs=8, device='cpu', stream=True)
    before = torch.get_rng_state()
    list(data.train.epoch(0, 0))
    list(data.test)
    assert torch.equal(torch.get_rng_state(), before)


def test_broken_files_are_named_and_counted(tmp_path):
    parts(tmp_path)
    for name in ('000.jpg', '004.jpg'):
        (tmp_path / 'train' / 'a' / name).write_bytes(b'no photograph')
    with pytest.warns(
        UserWarning,
        match=r'2 of 24 images left out: .*a/000.jpg cannot be read as an image \(UnidentifiedImageError\).*004.jpg'):
        held = load_data(tmp_path, size=32, bs=4, valid=0, device='cpu', augment=None)
    assert (
        len(held.train) == 22 and held.describe()['n_train'] == 24
    )  # what was asked for, so that the same call is the same run
    streamed = load_data(tmp_path, size=32, bs=4, valid=0, device='cpu', augment=None, stream=True)
    with pytest.warns(UserWarning, match='cannot be read') as told:
        seen = sum(len(y) for x, y in streamed.train.epoch(0, 0))
    assert (
        seen == 22 and len(streamed.train.skipped) == 2 and sum('cannot be read' in str(w.message) for w in told) == 2)
    assert sum(len(y) for x, y in streamed.train.epoch(0, 1)) == 22
    for stream in (False, True):
        with pytest.raises(OSError, match='cannot be read as an image .*: replace or delete it'):
            list(load_data(tmp_path, size=32, bs=4, device='cpu', stream=stream, strict=True).train.epoch(0, 0))


def test_a_class_that_cannot_be_read(tmp_path):
    photos(tmp_path / 'train', 8, classes='a')
    photos(tmp_path / 'test', 8)
    with pytest.raises(ValueError, match='class b is in only one'):
        load_data(tmp_path, size=32, bs=2)
    (tmp_path / 'train' / 'b').mkdir()
    with pytest.raises(OSError, match='b holds no images'):
        load_data(tmp_path, size=32, bs=2)


def test_sizes_that_differ_in_a_stream(tmp_path):
    photos(tmp_path / 'train', size=32)
    photos(tmp_path / 'test', size=32)
    Image.new('RGB', (20, 24)).save(tmp_path / 'train' / 'b' / '023.jpg')
    with pytest.raises(ValueError, match='023.jpg has 24 x 20 pixels and others 32 x 32: give size='):
        load_data(tmp_path, bs=4, valid=0, device='cpu', stream=True)


def test_own_valid_images(tmp_path):
    "CINIC-10's layout: train, valid and test; the set's own valid images are valid unless a share is asked for."
    parts(tmp_path / 'cinic10', ('train', 'valid', 'test'), size=32)
    data = load_data('cinic10', root=tmp_path, bs=8, recipe='cinic10', device='cpu')
    assert (len(data.train), len(data.valid), len(data.test), data.augment, data.mean) == (
        24,
        24,
        24,
        'resized_crop',
        (0.4789, 0.4723, 0.4304))
    assert (
        data.describe()['valid'] == 'own'
        and not data.streams
        and load_data('cinic10', root=tmp_path, recipe='cinic10', n_train=8, bs=8, device='cpu').reduced
        == '8 of 24 training images')
    with Image.open(tmp_path / 'cinic10' / 'valid' / 'a' / '000.jpg') as im:
        assert torch.equal(data.valid.images(torch.tensor([0]))[0], TF.pil_to_tensor(im))
    cut = load_data('cinic10', root=tmp_path, valid=0.25, bs=8, device='cpu')
    assert (len(cut.train), len(cut.valid)) == (18, 6) and 'valid' not in cut.describe()


def test_imagenets_layout(tmp_path):
    parts(tmp_path / 'imagenet', ('train', 'val'), classes=('n01', 'n02'))
    data = load_data('imagenet', root=tmp_path, bs=8, device='cpu')
    assert (data.size, data.classes, data.mean, data.augment, len(data.test)) == (
        224,
        ['n01', 'n02'],
        (0.485, 0.456, 0.406),
        'resized_crop',
        24)
    torch.save(
        ({'n01': ('tench', 'Tinca tinca'), 'n02': ('goldfish',)}, ['n01', 'n02']), tmp_path / 'imagenet' / 'meta.bin')
    assert load_data('imagenet', root=tmp_path / 'imagenet', bs=8, device='cpu').classes == ['tench', 'goldfish']
    with pytest.raises(OSError, match='register at image-net.org'):
        load_data('imagenet', root=tmp_path / 'nowhere')


def test_a_run_on_a_stream(tmp_path, monkeypatch):
    "Killed workers, a Ctrl-C in the middle: the run goes on, and is what it would have been."
    from kdnb.models import resnet
    from kdnb.seeds import seeded
    from kdnb.train import Callback, Learner

    monkeypatch.setenv('KDNB_RUNS', str(tmp_path / 'runs'))

    def data():
        return load_data(
            parts(tmp_path / 'd', size=40), size=32, bs=8, device='cpu', stream=True, augment='resized_crop')

    def learner(run, cbs=None):
        with seeded(0):
            return Learner(resnet(8, 2), data(), run=run, amp='off', cbs=cbs)

    class Stop(Callback):
        def after_batch(self, learn):
            if learn.epoch == 1: raise KeyboardInterrupt

    whole = learner('whole').fit(3)
    broken = learner('broken', cbs=[Stop()])
    with pytest.raises(KeyboardInterrupt):
        broken.fit(3)
    broken.cbs = None
    broken.fit(3)  # in the same process: new workers
    assert [r['loss'] for r in broken.history] == [r['loss'] for r in whole.history] and broken.result == whole.result


def test_a_dataset_streams_with_its_targets():
    class Items(torch.utils.data.Dataset):
        targets = [i % 3 for i in range(30)]

        def __len__(self): return 30

        def __getitem__(self, i): return np.full((16, 16, 3), i * 8, np.uint8), self.targets[i]

    held, streamed = (Data(Items(), None, Items(), classes='abc', bs=8, device='cpu', stream=s) for s in (False, True))
    assert (
        same(list(held.train.epoch(0, 0)), list(streamed.train.epoch(0, 0))) and held.describe() == streamed.describe())


@pytest.mark.gpu
def test_a_stream_to_a_gpu(tmp_path):
    cpu, gpu = (load_data(parts(tmp_path), size=32, bs=8, device=d, stream=True) for d in ('cpu', 'cuda'))
    for (xa, ya), (xb, yb) in zip(cpu.train.epoch(3, 1), gpu.train.epoch(3, 1)):
        assert xb.is_cuda and torch.equal(ya, yb.cpu()) and torch.allclose(xa, xb.cpu(), atol=1e-5)


def test_imagenets_archives_are_torchvisions_business(tmp_path, monkeypatch):
    "Where only the archives are there, torchvision is asked to check and unpack them, each split once."
    (tmp_path / 'imagenet').mkdir()
    (tmp_path / 'imagenet' / 'ILSVRC2012_devkit_t12.tar.gz').write_bytes(b'')
    asked = []

    def unpack(root, split):
        asked.append(split)
        photos(root / split, classes=('n01', 'n02'))

    monkeypatch.setattr(datasets, 'ImageNet', unpack)
    assert load_data('imagenet', root=tmp_path, bs=8, device='cpu').num_classes == 2 and asked == ['train', 'val']
    load_data('imagenet', root=tmp_path, bs=8, device='cpu')
    assert asked == ['train', 'val']


def test_imagenets_archives_that_are_damaged(tmp_path):
    (tmp_path / 'imagenet').mkdir()
    (tmp_path / 'imagenet' / 'ILSVRC2012_devkit_t12.tar.gz').write_bytes(b'cut short')
    with pytest.raises((OSError, RuntimeError), match='ILSVRC2012_devkit_t12.tar.gz'):
        load_data('imagenet', root=tmp_path)


# --- what users' folders and Datasets look like


def test_folders_that_are_called_like_splits(tmp_path):
    for names in (('Train', 'Test'), ('training', 'testing')):
        parts(tmp_path / names[0], names)
        with pytest.raises(ValueError, match='is called like a split: name splits train, test'):
            load_data(tmp_path / names[0], size=32)
    parts(tmp_path / 'own', ('train', 'validation', 'test'))
    assert len(load_data(tmp_path / 'own', size=32, bs=8, device='cpu').valid) == 24


def test_copies_that_jupyter_and_macs_leave_are_no_images(tmp_path):
    photos(tmp_path, 20)
    (tmp_path / 'a' / '.ipynb_checkpoints').mkdir()
    (tmp_path / '__pycache__').mkdir()
    for f in ('.ipynb_checkpoints/000-checkpoint.jpg', '._000.jpg'):
        shutil.copy(tmp_path / 'a' / '000.jpg', tmp_path / 'a' / f)
    data = load_data(tmp_path, size=32, bs=4, device='cpu')
    assert data.classes == ['a', 'b'] and sum(data.describe()[n] for n in ('n_train', 'n_valid', 'n_test')) == 20


def test_own_valid_images_are_not_dropped_silently(tmp_path):
    parts(tmp_path, ('train', 'valid', 'test'))
    with pytest.warns(UserWarning, match='own 24 valid images are not used, as valid=0 asks for others'):
        load_data(tmp_path, size=32, bs=8, valid=0, device='cpu')


def test_labels_with_a_gap(tmp_path):
    x = np.zeros((4, 8, 8, 3), np.uint8)
    for y in ([1, 2, 3, 4], [0, 1, 3, 3], [0, 10**10, 1, 2], [-1, 0, 1, 2]):
        np.savez(tmp_path / 'a.npz', x_train=x, y_train=y, x_test=x, y_test=y)
        with pytest.raises(ValueError, match='number the classes 0, 1, 2'):
            load_data(tmp_path / 'a.npz', bs=1, valid=0)


def test_targets_are_believed_only_if_items_say_the_same():
    class Items(torch.utils.data.Dataset):
        targets = [i % 2 for i in range(30)]

        def __len__(self): return 30

        def __getitem__(self, i):
            return np.full((16, 16, 3), i * 8, np.uint8), 2 - self.targets[i]  # as a target_transform does

    data = Data(Items(), None, Items(), classes='abc', bs=8, device='cpu', stream=True)
    assert data.train.y.tolist() == [2 - i % 2 for i in range(30)] and all(
        set(y.tolist()) <= {1, 2} for x, y in data.train)


@pytest.mark.parametrize('stream', [False, True])
def test_an_item_that_cannot_be_read(stream):
    class Items(torch.utils.data.Dataset):
        def __len__(self): return 12

        def __getitem__(self, i):
            if i == 5: raise OSError('no such photograph')
            return np.full((16, 16, 3), i * 8, np.uint8), i % 3

    with pytest.warns(UserWarning, match='1 of 12 images left out: no such photograph'):
        data = Data(Items(), None, Items(), classes='abc', bs=4, device='cpu', stream=stream)
    assert sorted(torch.cat([y for x, y in data.train.in_order()]).tolist()) == sorted(
        i % 3 for i in range(12) if i != 5)


def test_pixels_whose_white_nobody_knows(tmp_path):
    photos(tmp_path, 20, size=8)
    Image.fromarray(np.full((8, 8), 70000, np.int32)).save(tmp_path / 'a' / 'deep.tif')
    with pytest.warns(UserWarning, match='deep.tif cannot be read as an image .TypeError: 32 bits a pixel'):
        data = load_data(tmp_path, bs=4, device='cpu')
    assert len(data.train.skipped) + len(data.test.skipped) + len(data.valid.skipped) == 1


@pytest.mark.parametrize(
    'wrong, says',
    [
        (dict(size=-1), 'size=-1'),
        (dict(size=10**8), 'from 1 to 10,000'),
        (dict(size=4.0), 'size=4.0'),
        (dict(workers='2'), "workers='2'"),
        (dict(workers=-1), 'workers=-1'),
        (dict(classes=2), 'such as range'),
        (dict(classes='aa'), "two classes are called 'a'")])
def test_wrong_arguments_of_data(wrong, says):
    pair = torch.zeros(8, 3, 8, 8, dtype=torch.uint8), [0, 1] * 4
    with pytest.raises((ValueError, TypeError), match=says):
        Data(pair, None, pair, **{'classes': 'ab', 'bs': 4, 'device': 'cpu', **wrong})


def test_a_dataset_that_gives_its_items_in_order_only():
    class Stream(torch.utils.data.IterableDataset):
        def __len__(self): return 8

        def __iter__(self): return ((np.full((8, 8, 3), i, np.uint8), i % 2) for i in range(8))

    class Half(torch.utils.data.Dataset):
        def __len__(self): return 8

    pair = torch.zeros(8, 3, 8, 8, dtype=torch.uint8), [0, 1] * 4
    for wrong in Stream(), Half():
        with pytest.raises(TypeError, match='one after the other: give list'):
            Data(wrong, None, pair, 'ab', bs=4, device='cpu')
    assert len(Data(list(Stream()), None, pair, 'ab', bs=4, device='cpu').train) == 8


def test_a_device_without_memory():
    with pytest.raises(ValueError, match="device 'meta' cannot be used here"):
        load_data('digits', device='meta')


def test_a_folder_of_anything_is_refused_without_reading_all_of_it(tmp_path, monkeypatch):
    """One that has no images is told before those that have are listed to the end; an image two levels down is one, a
    hidden one is none."""
    for f in 'a/deep/0.png', 'b/.hidden/0.png', 'b/.0.png', 'b/notes.txt', 'c/0.png':
        (tmp_path / f).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f).touch()
    monkeypatch.setattr(datasets.folder, 'make_dataset', None)  # which walks through all
    with pytest.raises(OSError, match='b holds no images'):
        load_data(tmp_path)


def test_a_word_as_label():
    class Items(torch.utils.data.Dataset):
        def __len__(self): return 4

        def __getitem__(self, i): return np.zeros((8, 8, 3), np.uint8), 'cat'

    with pytest.raises(TypeError, match="item 0 of Items has the label 'cat': give the integer number"):
        Data(Items(), None, Items(), classes='ab', bs=2, device='cpu')


def test_ctrl_c_at_the_whole_group(tmp_path):
    """As a terminal or Jupyter sends it: to all processes at once. The workers do not listen, and the next epoch has
    new ones."""
    parts(tmp_path, size=40)
    program = f'''if 1:
        import os, signal
        from kdnb.all import *
        data = load_data({str(tmp_path)!r}, size=32, bs=4, device='cpu', stream=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for epoch in range(4):
            try:
                for k, _ in enumerate(data.train.epoch(0, epoch)):
                    if k == 1: os.killpg(os.getpgrp(), signal.SIGINT)
            except KeyboardInterrupt: print('interrupted', len(list(data.train.epoch(0, 9))))'''

    out = subprocess.run(
        [sys.executable, '-c', program], capture_output=True, text=True, start_new_session=True, timeout=120)
    assert out.stdout.split('\n')[:-1] == ['interrupted 6'] * 4, out.stderr[-2000:]


# --- a data set of your own, by name


@pytest.fixture
def stripes(monkeypatch):
    "A data set that a decorator names; its splits are a pair and a list of items."
    monkeypatch.setattr(kdnb.data.sources, 'known_sources', names := dict(known_sources))
    monkeypatch.setattr(kdnb.data.loading, 'known_sources', names)

    @source('stripes', stats=((0.5,) * 3, (0.25,) * 3), augment='crop', toy=True)
    def make_stripes(root):
        items = [(np.full((8, 8, 3), i, np.uint8), i % 2) for i in range(40)]
        return items, None, (torch.zeros(6, 1, 8, 8, dtype=torch.uint8), [0, 1] * 3), ['even', 'odd']

    return names


def test_a_named_source(stripes):
    data = load_data('stripes', bs=8, recipe='distillation', device='cpu')
    assert (data.name, data.augment, data.mean, data.reduced) == ('stripes', 'crop+reflect', (0.5,) * 3, 'stripes')
    assert (len(data.train), len(data.valid), len(data.test), data.classes) == (36, 4, 6, ['even', 'odd'])
    with pytest.raises(ValueError, match="unknown data set 'stripe': did you mean stripes"):
        load_data('stripe')
    with pytest.raises(ValueError, match="data set 'stripes' is taken by .*make_stripes: choose another name"):
        source('stripes')(lambda root: None)


def test_one_more_module_is_one_more_data_set(tmp_path):
    "In a copy of the package, a module that no other file names."
    shutil.copytree(Path(kdnb.__file__).parent, tmp_path / 'kdnb', ignore=shutil.ignore_patterns('__pycache__'))
    (tmp_path / 'kdnb' / 'data' / 'waves.py').write_text('''if 1:
        import numpy as np
        from kdnb.data.sources import source
        @source('waves')
        def _read_waves(root):
            x = np.zeros((40, 1, 8, 8), np.uint8)
            return (x, [0, 1] * 20), None, (x[:4], [0] * 4), 'ab'
        ''')
    program = "from kdnb.data import load_data; print(load_data('waves', bs=4, device='cpu').describe()['n_train'])"
    env = {**os.environ, 'PYTHONPATH': str(tmp_path)}
    out = subprocess.run(
        [sys.executable, '-c', program], capture_output=True, text=True, env=env, cwd=tmp_path, timeout=120)
    assert out.stdout == '36\n', out.stderr[-2000:]
