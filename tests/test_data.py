"What the data notebook cannot show: torchvision's own transforms as the judge, a fake CIFAR on disk, and the same stream on a GPU."
import hashlib, pickle
import numpy as np, pytest, torch
from PIL import Image
from torchvision import datasets
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF
from kdnb.data import Data, load_data
from kdnb.splits import TrainSplit, Split, _draw_boxes, _draw_epoch

RAW = (0., 0., 0.), (1/255,)*3                   # constants that leave pixels as they are

def marked(n, size=32):
    "Images in which every pixel has a colour of its own, so that a crop can be told from any other."
    at = torch.arange(size*size).view(size, size)
    return torch.stack([at % 251 + 1, at // 251 + 1, at % 13 + 1]).byte().expand(n, -1, -1, -1).contiguous()

def train(n, augment, bs=512): return TrainSplit(marked(n), torch.arange(n), *RAW, bs, 'cpu', augment)

@pytest.mark.parametrize('mode', ['constant', 'reflect'])
def test_each_image_is_torchvisions_crop(mode):
    split = train(300, 'crop_flip' + ('+reflect' if mode == 'reflect' else ''))
    padded = TF.pad(marked(1)[0], [4], padding_mode=mode)
    draws = _draw_epoch(300, 4, 32, 7, 3)
    xb = torch.cat([xb for xb, yb in split.epoch(7, 3)])
    for image, (i, oy, ox, flip, *_) in zip(xb, draws.T.tolist()):
        want = TF.crop(padded, oy, ox, 32, 32)
        assert torch.equal(image, (TF.horizontal_flip(want) if flip else want).float())

def test_all_crops_and_flips_are_equally_frequent():
    "The images themselves say which of the 9 x 9 x 2 they are: chi-square against equal shares, as torchvision's own transforms pass it."
    n = 162*40
    windows = torch.stack([TF.crop(TF.pad(marked(1)[0], [4]), oy, ox, 32, 32) for oy in range(9) for ox in range(9)])
    names = {w.numpy().tobytes(): k for k, w in enumerate(torch.cat([windows, windows.flip(3)]))}
    def chi2(images):
        counts = np.bincount([names[i.byte().contiguous().numpy().tobytes()] for i in images], minlength=162)
        assert counts.min() > 0
        return ((counts - 40)**2 / 40).sum()
    ours = chi2(torch.cat([xb for xb, yb in train(n, 'crop_flip').epoch(0, 0)]))
    torch.manual_seed(0)
    theirs = v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()])
    assert ours < 230 and chi2([theirs(i) for i in marked(n)]) < 230       # 161 degrees of freedom: mean 161, deviation 18

def test_augmentation_none_and_crop():
    xb = torch.cat([xb for xb, yb in train(20, None).epoch(0, 0)])
    assert torch.equal(xb.byte(), marked(20))
    windows = {TF.crop(TF.pad(marked(1)[0], [4]), oy, ox, 32, 32).numpy().tobytes() for oy in range(9) for ox in range(9)}
    assert all(i.byte().contiguous().numpy().tobytes() in windows for xb, yb in train(200, 'crop').epoch(0, 0) for i in xb)

def test_labels_follow_their_images():
    x = torch.arange(100, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous()
    split = TrainSplit(x, torch.arange(100), *RAW, 16, 'cpu', 'crop_flip+reflect')
    for xb, yb in split.epoch(0, 0): assert torch.equal(xb[:, 0, 4, 4].long(), yb)

def test_plain_iteration_follows_the_global_generator():
    split, order = train(50, 'crop_flip'), lambda: torch.cat([yb for xb, yb in split]).tolist()
    torch.manual_seed(1); a, b = order(), order()
    torch.manual_seed(1); assert order() == a != b
    torch.manual_seed(1); before = torch.get_rng_state()
    for xb, yb in split.epoch(0, 0): pass
    assert torch.equal(torch.get_rng_state(), before)           # a keyed epoch leaves it alone

def test_normalisation_is_torchvisions():
    x = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    mean, std = (.5071, .4867, .4408), (.2675, .2565, .2761)
    xb, yb = next(iter(Split(x, torch.arange(5), mean, std, 5, 'cpu')))
    want = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])(x)
    assert torch.allclose(xb, want, atol=1e-5)

def test_order_is_pinned():
    "A seed names the same run in every version of kdnb."
    assert _draw_epoch(6, 4, 32, 0, 0).tolist() == [[3, 1, 2, 4, 5, 0], [6, 1, 5, 5, 1, 4], [0, 1, 7, 8, 3, 2], [1, 1, 0, 1, 1, 1], [0, 27, 13, 8, 3, 3], [7, 8, 8, 29, 1, 1]]
    assert load_data('digits', device='cpu').describe()['split'] == 'e618a9a7f546'

@pytest.fixture
def cifar(tmp_path, monkeypatch):
    "Tiny files in CIFAR-100's form, with their own hashes, and an address that leads nowhere."
    folder, md5 = tmp_path/'cifar-100-python', {}
    folder.mkdir()
    def put(name, content):
        (folder/name).write_bytes(pickle.dumps(content)); md5[name] = hashlib.md5((folder/name).read_bytes()).hexdigest()
    rng = np.random.RandomState(0)
    for name, n in (('train', 60), ('test', 20)): put(name, dict(data=rng.randint(0, 256, (n, 3072)).astype(np.uint8), fine_labels=[i % 3 for i in range(n)]))
    put('meta', dict(fine_label_names=['apple', 'bear', 'clock']))
    monkeypatch.setattr(datasets.CIFAR100, 'train_list', [['train', md5['train']]])
    monkeypatch.setattr(datasets.CIFAR100, 'test_list', [['test', md5['test']]])
    monkeypatch.setattr(datasets.CIFAR100, 'meta', dict(filename='meta', key='fine_label_names', md5=md5['meta']))
    monkeypatch.setattr(datasets.CIFAR100, 'url', 'file:///nowhere/cifar-100-python.tar.gz')
    return tmp_path

def test_cifar(cifar, monkeypatch):
    monkeypatch.setattr(datasets.CIFAR100, 'download', lambda self: pytest.fail('touched the network'))
    data = load_data('cifar100', root=cifar, bs=16, device='cpu')
    raw = datasets.CIFAR100(cifar, train=False)
    assert data.classes == ['apple', 'bear', 'clock'] and len(data.train) == 54 and len(data.valid) == 6 and data.mean == (.5071, .4867, .4408)
    assert np.array_equal(data.test.x.permute(0, 2, 3, 1).numpy(), raw.data) and data.test.y.tolist() == raw.targets
    monkeypatch.setenv('KDNB_DATA', str(cifar))
    crd = load_data('cifar100', recipe='crd', bs=16, device='cpu')
    assert crd.mean == (.5071, .4867, .4408) and crd.describe()['split'] == data.describe()['split']

@pytest.mark.parametrize('name', ['train', 'test', 'meta'])
def test_cifar_damaged(cifar, name):
    f = cifar/'cifar-100-python'/name
    f.write_bytes(f.read_bytes()[:-9]); cut = f.read_bytes()
    with pytest.raises(OSError, match=f'{name} is damaged .* delete it'): load_data('cifar100', root=cifar)
    assert f.read_bytes() == cut

def test_cifar_missing(cifar):
    (cifar/'cifar-100-python'/'test').unlink()
    with pytest.raises(OSError, match=r'cifar-100-python/test is missing.*root= or \$KDNB_DATA'): load_data('cifar100', root=cifar)

def test_an_interrupted_download_leaves_nothing(cifar, monkeypatch):
    (cifar/'cifar-100-python'/'train').unlink()
    archive = cifar/'cifar-100-python.tar.gz'
    def interrupted(self): archive.write_bytes(b'half'); raise KeyboardInterrupt
    monkeypatch.setattr(datasets.CIFAR100, 'download', interrupted)
    with pytest.raises(KeyboardInterrupt): load_data('cifar100', root=cifar)
    assert not archive.exists()

def test_archives_and_folders(tmp_path):
    a = np.random.RandomState(0).randint(0, 256, (40, 12, 10, 3)).astype(np.uint8)
    np.savez(tmp_path/'cifar10.npz', x_train=a, y_train=np.arange(40)[:, None] % 4, x_test=a[:8], y_test=np.arange(8) % 4)
    mine = load_data(tmp_path/'cifar10.npz', size=8, bs=8, device='cpu')
    assert (mine.num_classes, len(mine.train), len(mine.valid), len(mine.test)) == (4, 36, 4, 8)
    assert mine.mean != (.4914, .4822, .4465)                   # a file's name brings no constants
    for part in ('.', 'train', 'val'):
        for i, im in enumerate(a):
            f = tmp_path/('alone' if part == '.' else 'split')/part/['cat', 'dog'][i % 2]/f'{i}.png'
            f.parent.mkdir(parents=True, exist_ok=True); Image.fromarray(im[:10]).save(f)
    alone, split = (load_data(d, root=tmp_path, bs=8, device='cpu') for d in ('alone', 'split'))
    assert alone.classes == split.classes == ['cat', 'dog'] and (len(alone.train), len(alone.test), len(split.test)) == (29, 8, 40)
    first = np.stack([a[i, :10] for i in sorted(range(0, 40, 2), key=lambda i: f'{i}.png')])
    assert np.array_equal(split.test.x[:20].permute(0, 2, 3, 1).numpy(), first) and split.test.y.tolist() == [0]*20 + [1]*20
    (tmp_path/'split'/'val'/'dog').rename(tmp_path/'split'/'val'/'dogs')
    with pytest.raises(ValueError, match='class dog is in only one'): load_data('split', root=tmp_path)

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_gpu_and_cpu_make_the_same_batches():
    cpu, gpu = (load_data('digits', size=32, augment='crop_flip+reflect+cutout', device=d) for d in ('cpu', 'cuda'))
    for (xa, ya), (xb, yb) in zip(cpu.train.epoch(3, 1), gpu.train.epoch(3, 1)):
        assert xb.is_cuda and torch.equal(ya, yb.cpu()) and torch.allclose(xa, xb.cpu(), atol=1e-5)

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_no_batch_waits_for_the_gpu():
    data = load_data('digits', size=32, augment='crop_flip+cutout', device='cuda')
    batches = data.train.epoch(0, 0)
    next(batches)
    torch.cuda.set_sync_debug_mode('error')
    try:
        for xb, yb in batches: pass
        for xb, yb in data.test: pass
    finally: torch.cuda.set_sync_debug_mode('default')
