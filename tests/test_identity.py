"A run is loaded, and a teacher teaches, only for the classes and labels that they know."
import json

import numpy as np
import pytest
from PIL import Image

from kdnb.all import Data, Distill, Learner, Run, load_data, resnet, seeded
from kdnb.cli import kdnb_test

@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv('KDNB_RUNS', str(tmp_path/'runs'))
    return tmp_path/'runs'


def make_folder(root, names, n=12):
    "A folder of class folders with images of noise; the k-th class is a little brighter than the one before."
    for k, name in enumerate(names):
        (root/name).mkdir(parents=True)
        for i in range(n):
            noise = np.random.RandomState(100*k + i).randint(0, 200, (8, 8, 3)) + 4*k
            Image.fromarray(noise.astype(np.uint8)).save(root/name/f'{i}.png')
    return root


def insects(root, **options):
    return load_data(root, bs=8, device='cpu', augment=None, **options)


def small(data, run=None, scheme=None):
    with seeded(0):
        student = resnet(8, data.num_classes)
    return Learner(scheme(student) if scheme else student, data, run=run, amp='off', cbs=None)


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path/'insects', ['ant', 'bee'])


def test_a_renamed_class_is_another_data_set(folder):
    small(insects(folder), 'run').fit(1)
    small(insects(folder), 'run').fit(1)
    (folder/'ant').rename(folder/'asp')
    with pytest.raises(ValueError, match="class 0 was 'ant', now it is 'asp'"):
        small(insects(folder), 'run').fit(1)
    (folder/'asp').rename(folder/'wasp')
    with pytest.raises(ValueError, match="class 0 was 'ant', now it is 'bee'"):
        small(insects(folder), 'run').fit(1)


def test_images_that_change_places_are_another_data_set(folder):
    small(insects(folder), 'run').fit(1)
    one, two, aside = folder/'ant'/'1.png', folder/'bee'/'1.png', folder.parent/'aside.png'
    one.rename(aside)
    two.rename(one)
    aside.rename(two)
    with pytest.raises(ValueError, match='images have other labels than before'):
        small(insects(folder), 'run').fit(1)


def test_another_order_is_another_run_and_no_teacher(folder):
    teacher = small(insects(folder), 'run').fit(1)
    turned = insects(folder, classes=['bee', 'ant'])
    assert turned.classes == ['bee', 'ant']
    assert (turned.test.y == 1 - insects(folder).test.y).all()
    with pytest.raises(ValueError, match="another order: class 0 was 'ant', now it is 'bee'"):
        small(turned, 'run').fit(1)
    for given in teacher, 'run':
        with pytest.raises(ValueError, match="the teacher learnt other classes: .* another order"):
            small(turned, scheme=lambda student, given=given: Distill(student, given, 'kd'))


def test_an_order_of_your_own_is_loaded_again(folder, capsys):
    turned = insects(folder, classes=['bee', 'ant'])
    small(turned, 'run').fit(1)
    assert kdnb_test(['run', '--data', str(folder), '--device', 'cpu']) == 0
    said = capsys.readouterr().out
    assert 'bee ' in said and 'ant ' in said and said.index('bee ') < said.index('ant ')


def test_kdnb_test_refuses_other_classes(folder, capsys):
    small(insects(folder), 'run').fit(1)
    (folder/'ant').rename(folder/'asp')
    assert kdnb_test(['run', '--data', str(folder), '--device', 'cpu']) == 1
    assert "class 0 was 'ant', now it is 'asp'" in capsys.readouterr().err


def test_folders_called_by_numbers_are_sorted_as_numbers(tmp_path):
    root = make_folder(tmp_path/'numbers', [f'{k}' for k in range(12)], n=10)
    data = insects(root)
    assert data.classes == [f'{k}' for k in range(12)]
    small(data, 'run').fit(1)
    config = Run('run').json('config.json')
    assert config['about']['classes'] == data.classes and config['data']['order'] == 'numeric'
    # the first kdnb sorted them as text, and kept neither names nor order
    del config['data']['order'], config['about']['classes'], config['about']['labels']
    Run('run').save_json('config.json', config)
    with pytest.raises(ValueError, match='the order of the classes is not given there'):
        small(data, 'run').fit(1)
    with pytest.raises(ValueError, match='the teacher learnt other classes: they are in another order now'):
        small(data, scheme=lambda student: Distill(student, 'run', 'kd'))


def test_a_run_of_the_first_kdnb_has_no_names(folder):
    small(insects(folder), 'run').fit(1)
    config = Run('run').json('config.json')
    del config['about']['classes'], config['about']['labels']
    Run('run').save_json('config.json', config)
    assert small(insects(folder), 'run').fit(1).result
    small(insects(folder), scheme=lambda student: Distill(student, 'run', 'kd'))


def test_names_of_tensors_count_too(runs):
    x, y = np.random.RandomState(0).randint(0, 255, (40, 3, 8, 8)).astype(np.uint8), np.arange(40) % 2
    def own(*classes, y=y):
        return Data((x, y), None, (x, y), classes, bs=8, device='cpu', augment=None)
    small(own('ant', 'bee'), 'run').fit(1)
    with pytest.raises(ValueError, match="class 1 was 'bee', now it is 'wasp'"):
        small(own('ant', 'wasp'), 'run').fit(1)
    with pytest.raises(ValueError, match='the choice of valid images|other labels'):
        small(own('ant', 'bee', y=1 - y), 'run').fit(1)
    assert json.loads((runs/'run'/'config.json').read_text())['about']['classes'] == ['ant', 'bee']
