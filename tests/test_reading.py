"""One decoder for files and Datasets, what is left out of a folder, what an item may be, and broken images anywhere."""

import os

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.datasets import ImageFolder

from kdnb.data import Data, DatasetItems, ImageFiles, StreamSplit, image_file_endings, load_data, read_image

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3


class Items(torch.utils.data.Dataset):
    "Items that are given, or what an item raises."

    def __init__(self, items, targets=None):
        self.items = items
        if targets is not None:
            self.targets = targets

    def __len__(self): return len(self.items)

    def __getitem__(self, i):
        if isinstance(self.items[i], Exception): raise self.items[i]
        return self.items[i]


def both(file, image):
    "The pixels of a file and of the same image as an item: they must be the same."
    from_file = read_image(file)
    with Image.open(file) as im:
        assert torch.equal(DatasetItems([(im, 0)]).read(0)[0], from_file)
    if image is not None:
        assert torch.equal(DatasetItems([(image, 0)]).read(0)[0], from_file)
    return from_file


@pytest.mark.parametrize('ending', ['jpg', 'png', 'tif', 'webp'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_photographs_stand_upright(tmp_path, ending, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    image = Image.fromarray(np.random.RandomState(0).randint(0, 256, (12, 8, 3)).astype(np.uint8))
    image.save(tmp_path / f'a.{ending}', exif=exif)
    with Image.open(tmp_path / f'a.{ending}') as im:
        want = np.asarray(ImageOps.exif_transpose(im).convert('RGB'))
    assert (both(tmp_path / f'a.{ending}', None).permute(1, 2, 0).numpy() == want).all()


def test_sixteen_bits_palettes_and_transparency_look_the_same_from_files_and_datasets(tmp_path):
    deep = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(deep).save(tmp_path / 'deep.png')
    assert (both(tmp_path / 'deep.png', Image.fromarray(deep))[0].numpy() == deep // 257).all()
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[..., 2] = 200
    rgba[:4, :, 3] = 255
    clear = Image.fromarray(rgba)
    white_below = np.full((8, 8, 3), 255)
    white_below[:4] = (0, 0, 200)
    palette = Image.fromarray(np.repeat([[0], [1]], 4, 0).repeat(8, 1).astype(np.uint8), 'P')
    palette.putpalette([0, 0, 200, 10, 20, 30])
    palette.info['transparency'] = 1
    grey = Image.merge('LA', (Image.new('L', (8, 8), 50), clear.getchannel('A')))
    for name, image, want in (
        ('a.png', clear, white_below),
        ('p.png', palette, white_below),
        ('la.png', grey, np.where(white_below == 255, 255, 50))):
        image.save(tmp_path / name)
        found = both(tmp_path / name, image)
        assert (found.permute(1, 2, 0).numpy() == (want if name != 'la.png' else want[..., :1])[..., :3]).all() or (
            name == 'la.png' and (found[:, :4] == 50).all() and (found[:, 4:] == 255).all())
    for array in rgba, torch.from_numpy(rgba).permute(2, 0, 1):
        assert torch.equal(DatasetItems([(array, 0)]).read(0)[0], read_image(tmp_path / 'a.png'))


def test_thirty_two_bits_are_refused_from_both(tmp_path):
    long = Image.fromarray(np.full((8, 8), 70000, np.int32))
    long.save(tmp_path / 'long.tif')
    for read in (lambda: read_image(tmp_path / 'long.tif'), lambda: DatasetItems([(long, 0)]).read(0)):
        with pytest.raises(OSError, match='cannot be read as an image .TypeError: 32 bits a pixel'):
            read()


def test_a_folder_is_read_alike_as_a_folder_and_as_torchvisions_dataset(tmp_path):
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[:4] = (0, 0, 200, 255)
    exif = Image.Exif()
    exif[274] = 6
    for c in 'ab':
        (tmp_path / c).mkdir()
        for i in range(6):
            Image.fromarray(rgba).save(tmp_path / c / f'{i}.png')
        Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(tmp_path / c / 'deep.png')
        Image.fromarray(GREY).save(tmp_path / c / 'turned.jpg', exif=exif)
    folder = ImageFolder(tmp_path)
    named = load_data(tmp_path, bs=4, valid=0, device='cpu')
    given = Data(folder, None, folder, 'ab', bs=4, device='cpu')
    sums = [x.sum((1, 2, 3)).sort()[0] for x in (torch.cat([named.train.x, named.test.x]), given.test.x)]
    assert torch.equal(*sums)
    assert given.test.y.tolist() == folder.targets
    for transform in dict(transform=lambda im: im), dict(target_transform=lambda y: 1 - y):
        changed = ImageFolder(tmp_path, **transform)
        y = Data(changed, None, changed, 'ab', bs=4, device='cpu', stream=True).test.y.tolist()
        assert y == [changed[i][1] for i in range(len(changed))]


# --- folders


def image(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(GREY).save(file)


def test_what_is_left_out_of_a_folder_is_counted_by_its_ending(tmp_path, capsys):
    for c in 'ab':
        for i in range(10):
            image(tmp_path / c / f'{i}.png')
    for f in 'a/x.gif', 'a/y.gif', 'b/deep/notes.txt', 'b/README', 'b/.DS_Store':
        (tmp_path / f).parent.mkdir(exist_ok=True)
        (tmp_path / f).touch()
    image(tmp_path / 'lost.png')
    os.mkfifo(tmp_path / 'a' / 'pipe.png')
    (tmp_path / 'a' / 'gone.png').symlink_to('nowhere.png')
    data = load_data(tmp_path, bs=4, valid=0, device='cpu')
    assert len(data.train) + len(data.test) == 20
    told = capsys.readouterr().out
    for words in (
        '2 .gif', '1 .txt', '1 without an ending', '1 hidden', '1 linked to nothing', '1 no regular file',
        '1 outside the class folders'):
        assert words in told
    assert all(ending in told for ending in image_file_endings)


def test_a_folder_of_images_only_says_nothing(tmp_path, capsys):
    for c in 'ab':
        for i in range(10):
            image(tmp_path / c / f'{i}.png')
    load_data(tmp_path, bs=4, valid=0, device='cpu')
    assert capsys.readouterr().out == ''


def test_links_are_followed_once(tmp_path, capsys):
    for i in range(6):
        image(tmp_path / 'set' / 'a' / f'{i}.png')
        image(tmp_path / 'set' / 'b' / 'deep' / f'{i}.png')
        image(tmp_path / 'elsewhere' / f'{i}.png')
    for link, to in (
        ('a/round', '..'), ('a/to_b', '../b'), ('a/to_deep', '../b/deep'), ('a/up', '../../..'), ('b/self', 'self'),
        ('b/more', '../../elsewhere'), ('b/again', '../../elsewhere')):
        (tmp_path / 'set' / link).symlink_to(to)
    (tmp_path / 'set' / 'c').symlink_to('../elsewhere')  # a class folder may be a link
    (tmp_path / 'elsewhere' / 'back').symlink_to('../set')
    data = load_data(tmp_path / 'set', bs=4, valid=0, device='cpu', size=8)
    y = torch.cat([data.train.y, data.test.y])
    assert y.bincount().tolist() == [6, 6, 6] and data.classes == ['a', 'b', 'c']
    assert 'linked again' in capsys.readouterr().out


def test_a_pipe_is_no_image(tmp_path):
    os.mkfifo(tmp_path / 'pipe.png')
    with pytest.raises(OSError, match='pipe.png cannot be read as an image .TypeError: it is no regular file'):
        read_image(tmp_path / 'pipe.png')


# --- items


def test_items_may_be_dicts_and_hold_more(capsys):
    want = Data([(GREY, i % 2) for i in range(8)], None, [(GREY, 0)] * 4, 'ab', bs=4, device='cpu')
    for keys in ('image', 'label'), ('img', 'labels'), ('pixel_values', 'label'):
        items = Items([dict(zip((*keys, 'path'), (GREY, i % 2, 'a.png'))) for i in range(8)])
        capsys.readouterr()
        for stream in False, True:
            data = Data(items, None, [(GREY, 0)] * 4, 'ab', bs=4, device='cpu', stream=stream)
            assert data.train.y.tolist() == want.train.y.tolist()
            list(data.train.epoch(0, 0))
        told = "item 0 of Items holds more than an image and a label: 'path' is ignored"
        assert capsys.readouterr().out.count(told) == 2
    triples = Items([(Image.fromarray(GREY), i % 2, i) for i in range(8)])
    assert len(Data(triples, None, triples, 'ab', bs=4, device='cpu').train) == 8
    assert 'a third value is ignored' in capsys.readouterr().out


@pytest.mark.parametrize(
    'label, says',
    [
        (None, 'no label .None.: give the integer number'),
        (1.5, 'the label 1.5: give the integer number'),
        (float('nan'), 'the label nan: give the integer number'),
        ([[1], [1, 2]], 'the label .*: give the integer number'),
        ('cat', "the label 'cat': give the integer number")])
@pytest.mark.parametrize('stream', [False, True])
def test_a_label_that_is_no_whole_number(label, says, stream):
    items = Items([(GREY, 0)] * 5 + [(GREY, label)])
    with pytest.raises(TypeError, match=f'item 5 of Items has {says}'):
        Data(items, None, items, 'abc', bs=2, device='cpu', stream=stream)


@pytest.mark.parametrize('stream', [False, True])
def test_rows_among_class_numbers_and_one_hot_rows_are_told(stream):
    for label in [0, 0, 1], np.eye(3)[1], torch.tensor([1, 1, 0]):
        items = Items([(GREY, 0)] * 5 + [(GREY, label)])
        with pytest.raises(ValueError, match='the labels of the images are not alike: give each image one class'):
            Data(items, None, items, 'abc', bs=2, device='cpu', stream=stream)
        items = Items([(GREY, np.eye(3)[i % 3]) for i in range(6)])
        with pytest.raises(ValueError, match='each image has exactly one class: give its number'):
            Data(items, None, items, 'abc', bs=2, device='cpu', stream=stream)


@pytest.mark.parametrize('label', [1, True, np.int64(1), np.uint8(1), torch.tensor(1), np.array([1]), [1], 1.0])
def test_a_label_that_is_a_whole_number(label):
    assert DatasetItems([(GREY, label)]).read(0)[1] == 1


def test_items_of_another_form_are_named():
    for item, says in (
        (dict(image=GREY, fine_label=1), "item 0 of list has the keys 'image', 'fine_label': rename one"),
        (GREY, 'item 0 of list is ndarray: give .image, class number.'),
        ((None, 1), 'item 0 of list: the image is NoneType: give a PIL image'),
        ((torch.rand(3, 8, 8), 1), 'item 0 of list: images are torch.float32: give uint8')):
        with pytest.raises((TypeError, ValueError), match=says):
            DatasetItems([item]).read(0)


def test_a_dataset_that_disagrees_with_its_targets_anywhere_is_believed_item_by_item():
    labels = [i % 3 for i in range(40)]
    labels[17] = (labels[17] + 1) % 3
    items = Items([(GREY, label) for label in labels], targets=[i % 3 for i in range(40)])
    data = Data(items, None, items, 'abc', bs=8, device='cpu', stream=True)
    assert data.train.y.tolist() == labels
    for targets in ['x'] * 40, [[1, 0]] * 40, [None] * 40, [0.5] * 40:
        items.targets = targets
        assert Data(items, None, items, 'abc', bs=8, device='cpu', stream=True).train.y.tolist() == labels


# --- broken images


def broken_items(n, at):
    items = [(np.full((8, 8, 3), i, np.uint8), i % 2) for i in range(n)]
    for i in at:
        items[i] = OSError('no such photograph')
    return Items(items, targets=[i % 2 for i in range(n)])


@pytest.mark.parametrize('at', [[0], [0, 1, 2], [4], [39]])
def test_a_broken_image_is_treated_alike_wherever_it_stands(at):
    "Of forty, four are probed for a size, a mean or an example: it makes no difference whether one of these is broken."
    data = Data(broken_items(40, at), None, broken_items(40, at), 'ab', bs=8, device='cpu', stream=True, workers=0)
    assert len(data.train) == 40  # known by their targets, and named when their turn comes
    with pytest.warns(UserWarning, match='no such photograph: left out, as all such files are'):
        seen = sum(len(y) for x, y in data.train.epoch(0, 0))
        seen_in_test = sum(len(y) for x, y in data.test)
    assert seen == seen_in_test == 40 - len(at) and sorted(data.train.skipped) == at
    x, y = data.examples(5)
    want = [i for i in range(40) if i not in at][:5]
    assert (x * data.test.std + data.test.mean).round()[:, 0, 0, 0].tolist() == want
    assert y.tolist() == [i % 2 for i in want]
    x, y = data.examples(4, 'train', per_class=2)
    assert y.tolist() == [0, 0, 1, 1]


def test_examples_of_files_pass_over_the_broken_ones_and_strict_refuses_them(tmp_path):
    for c in 'ab':
        for i in range(6):
            image(tmp_path / 'train' / c / f'{i}.png')
            image(tmp_path / 'test' / c / f'{i}.png')
    (tmp_path / 'test' / 'a' / '0.png').write_bytes(b'no photograph')
    def load(**k): return load_data(tmp_path, size=8, bs=4, valid=0, device='cpu', stream=True, **k)
    with pytest.warns(UserWarning, match='0.png cannot be read'):
        x, y = load().examples(7)
    assert y.tolist() == [0] * 5 + [1] * 2
    with pytest.raises(OSError, match='0.png cannot be read .*: replace or delete it'):
        load(strict=True).examples(7)


def test_a_batch_of_one_broken_image_is_no_batch(tmp_path):
    image(tmp_path / '0.png')
    (tmp_path / '1.png').write_bytes(b'no photograph')
    files = ImageFiles(tmp_path, ['0.png', '1.png'], [0, 1])
    data = Data(files, None, files, 'ab', bs=1, device='cpu', stream=True, workers=0)
    with pytest.warns(UserWarning, match='1.png cannot be read'):
        assert [y.tolist() for x, y in data.train.epoch(0, 0)] == [[0]]
    assert isinstance(data.test, StreamSplit)
