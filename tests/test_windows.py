"""Random windows of photos: a large JPEG is decoded at a part of its size, and the window stays the same."""
import numpy as np
import pytest
import torch
from PIL import Image, JpegImagePlugin
from torchvision.transforms.v2 import RandomResizedCrop

from kdnb.data.reading import ImageFiles, ImageReader, ImageTensors, read_image
from kdnb.seeds import seed_from

def photo(width: int, height: int) -> Image.Image:
    "Waves with an edge: smooth parts, and one that is not."
    y, x = np.indices((height, width))/max(width, height)
    waves = np.stack([np.sin(20*x + 9*y), np.sin(31*y), np.cos(14*x*y + 3*x)], 2)
    waves[height//3:height//2, width//4:width//2] *= -1
    return Image.fromarray((127*(1 + waves)).astype(np.uint8))


def as_torchvision(file, size: int, seed: int) -> torch.Tensor:
    "The window as torchvision cuts it out of all pixels."
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return RandomResizedCrop(size)(read_image(file))


def reader_of(file, size: int, twice: bool = False) -> ImageReader:
    return ImageReader(ImageFiles(file.parent, [file.name], [3]), size, 'resized', twice)


@pytest.fixture
def scales(monkeypatch):
    "By how much JPEGs were made smaller as they were decoded."
    seen, draft = [], JpegImagePlugin.JpegImageFile.draft
    def noted(im, mode, size):
        before = im.width
        draft(im, mode, size)
        seen.append(round(before/im.width))
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, 'draft', noted)
    return seen


def test_a_large_photo_is_decoded_small_and_differs_by_a_level_at_most_in_the_mean(tmp_path, scales):
    file = tmp_path/'x.jpg'
    photo(1030, 771).save(file, quality=92)
    reader = reader_of(file, 64)
    for seed in range(40):
        window, y = reader.one(0, seed)
        off = (window.float() - as_torchvision(file, 64, seed).float()).abs()
        assert y == 3 and window.shape == (3, 64, 64) and off.mean() < 1, (seed, scales[-1:])
    assert {*scales} == {2, 4, 8}


def test_a_small_window_is_as_sharp_as_ever(tmp_path, scales):
    file = tmp_path/'x.jpg'
    photo(500, 375).save(file)
    for seed in range(5):
        assert torch.equal(reader_of(file, 224).one(0, seed)[0], as_torchvision(file, 224, seed))
    assert not scales


@pytest.mark.parametrize('kind', ['rotated.jpg', 'grey.jpg', 'alpha.png', 'colours.png', 'deep.png', 'palette.png'])
def test_odd_files_are_as_they_were(kind, tmp_path):
    file, im, how = tmp_path/kind, photo(90, 70), {}
    if kind == 'rotated.jpg':
        exif = Image.Exif()
        exif[274] = 6
        how = dict(exif=exif)
    im = {'grey.jpg': im.convert('L'), 'alpha.png': im.convert('RGBA'), 'palette.png': im.convert('P'),
          'deep.png': Image.fromarray(np.arange(6300, dtype=np.uint16).reshape(70, 90)*10)}.get(kind, im)
    im.save(file, **how)
    for seed in range(3):
        assert torch.equal(reader_of(file, 64).one(0, seed)[0], as_torchvision(file, 64, seed))


def test_two_views_are_decoded_once_for_the_smaller_window(tmp_path, scales):
    file = tmp_path/'x.jpg'
    photo(1030, 771).save(file, quality=92)
    x, _ = reader_of(file, 64, twice=True).one(0, 5)
    assert x.shape == (2, 3, 64, 64) and len(scales) <= 1
    for k, seed in enumerate((5, seed_from(5, 'view'))):
        assert (x[k].float() - as_torchvision(file, 64, seed).float()).abs().mean() < 1


def test_images_in_memory_have_the_same_windows_and_randomness_is_left_alone(tmp_path):
    file = tmp_path/'x.png'
    photo(80, 80).save(file)
    before = torch.get_rng_state()
    held = ImageReader(ImageTensors(read_image(file)[None], torch.tensor([3])), 32, 'resized')
    assert torch.equal(held.one(0, 9)[0], reader_of(file, 32).one(0, 9)[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_cut_file_is_named(tmp_path):
    file = tmp_path/'x.jpg'
    photo(1030, 771).save(file)
    file.write_bytes(file.read_bytes()[:-3000])
    with pytest.raises(OSError, match='x.jpg cannot be read as an image'):
        reader_of(file, 64).one(0, 0)
