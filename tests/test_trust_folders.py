"Image folders as they are found: links, loops, pipes, sockets and devices end nothing, and are counted."

import os
import socket

import pytest
from PIL import Image

from kdnb.data import read_folder
from kdnb.errors import FileTrouble

def photo(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (8, 8)).save(path)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)                                 # the path of a socket is at most 108 letters
    for name in 'cats', 'dogs':
        for i in range(5): photo(tmp_path/'photos'/name/f'{i}.png')
    return tmp_path/'photos'


def read(root, capsys):
    "(number of images of each class, what is told)."
    capsys.readouterr()
    train, _, test, classes = read_folder(root)
    count = [sum(int((part.y == c).sum()) for part in (train, test)) for c in range(len(classes))]
    return dict(zip(classes, count, strict=True)), capsys.readouterr().out


def test_what_is_plain_is_not_told(root, capsys): assert read(root, capsys) == ({'cats': 5, 'dogs': 5}, '')


def test_loops_and_links_to_other_classes(root, capsys):
    for place, target in {'all': '.', 'up': '..', 'pets': 'cats', 'cats/again': '.', 'cats/dogs': '../dogs',
                          'cats/top': '../..', 'dogs/round': 'round', 'dogs/lost': '/nowhere'}.items():
        (root/place).symlink_to(target)
    count, told = read(root, capsys)
    assert count == {'cats': 5, 'dogs': 5}
    assert '6 linked again' in told and '2 linked to nothing' in told


def test_a_folder_behind_links_counts_once(root, capsys):
    photo(root.parent/'more/one.png')
    photo(root.parent/'more/sub/two.png')
    for place, target in {'cats/a': '../../more/sub', 'cats/b': '../../more', 'dogs/c': '../../more'}.items():
        (root/place).symlink_to(target)
    count, told = read(root, capsys)
    assert count == {'cats': 7, 'dogs': 5} and '2 linked again' in told


def test_an_image_behind_links_counts_once(root, capsys):
    photo(root.parent/'pool/x.png')
    for place, target in {'cats/0 again.png': '0.png', 'cats/a/0.png': '../0.png', 'cats/x.png': '../../pool/x.png',
                          'dogs/x.png': '../../pool/x.png', 'cats/me.png': 'me.png'}.items():
        (root/place).parent.mkdir(exist_ok=True)
        (root/place).symlink_to(target)
    count, told = read(root, capsys)
    assert count == {'cats': 6, 'dogs': 5} and '3 linked again' in told and '1 linked to nothing' in told


def test_classes_of_links_alone(tmp_path, capsys):
    for i in range(5): photo(tmp_path/f'pool/{i}.png')
    for i in range(5):
        (tmp_path/'photos'/'ab'[i % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path/'photos'/'ab'[i % 2]/f'{i}.png').symlink_to(tmp_path/f'pool/{i}.png')
    assert read(tmp_path/'photos', capsys) == ({'a': 3, 'b': 2}, '')


def test_pipes_sockets_and_devices(root, capsys):
    os.mkfifo(root/'cats/pipe.png')
    os.mkfifo(root/'beside.png')
    (root/'dogs/zero.png').symlink_to('/dev/zero')
    with socket.socket(socket.AF_UNIX) as s:
        s.bind('photos/dogs/socket.jpg')
        count, told = read(root, capsys)
    assert count == {'cats': 5, 'dogs': 5} and '4 no regular file' in told


def test_a_class_of_pipes_alone_is_refused(root):
    (root/'birds').mkdir()
    os.mkfifo(root/'birds/pipe.png')
    with pytest.raises(FileTrouble, match='birds holds no images'): read_folder(root)
