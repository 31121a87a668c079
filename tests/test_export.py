"""An exported student answers as it does in kdnb, where there is no kdnb; what cannot be exported is told in words."""
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from kdnb.all import Data, Learner, Run, export, load_data, predict, resnet, show_tradeoff
from kdnb.cli import kdnb_export, kdnb_predict
from kdnb.models import OwnImages, load_model, set_own_images

pytest.importorskip('onnxruntime')


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A folder with a run and its files in all formats."
    folder = tmp_path_factory.mktemp('left')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('KDNB_RUNS', str(folder))
        data = load_data('digits', size=16, n_train=100, device='cpu')
        learn = Learner(resnet(8), data, run='small', cbs=[]).fit(2)
        tables = {path: export('small', folder/path, int8=path.endswith('.onnx'))
                  for path in ('small.onnx', 'small.pt2', 'hub')}
    return folder, data, learn, tables


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.setenv('KDNB_RUNS', str(place[0]))
    monkeypatch.chdir(place[0])
    return place


def test_each_file_answers_as_the_net_does(here):
    for table in here[3].values():
        assert table[1].difference < 1e-4 and table[1].agreement == 100
        assert table[1].score == table[0].score


def test_int8_stands_in_the_table(here):
    row = here[3]['small.onnx'][2]
    assert row.name == 'int8' and row.difference > 0 and row.agreement > 80
    assert row.path.stat().st_size < .6*here[3]['small.onnx'][1].bytes


WITHOUT_KDNB = '''
import sys
sys.modules['kdnb'] = None                  # importing it fails
import json, numpy as np
x = np.load('pixels.npy')
import onnxruntime
session = onnxruntime.InferenceSession('small.onnx')
about = json.loads(session.get_modelmeta().custom_metadata_map['about'])
z = session.run(None, {'images': x})[0]
import torch
extra = {'about.json': ''}
net = torch.export.load('small.pt2', extra_files=extra).module()
far = abs(net(torch.from_numpy(x)).detach().numpy() - z).max()
print(json.dumps([about, json.loads(extra['about.json']), float(far), [about['classes'][i] for i in z.argmax(1)]]))
'''


@pytest.mark.slow
def test_files_need_no_kdnb(here):
    import numpy as np
    folder, data, learn, _ = here
    np.save(folder/'pixels.npy', data.test.x[:7].numpy())
    found = subprocess.run([sys.executable, '-c', WITHOUT_KDNB], cwd=folder, capture_output=True, text=True, check=True)
    about, other, far, names = json.loads(found.stdout.splitlines()[-1])
    logits, _ = predict(load_model('small'), data.test)
    assert about == other and about['classes'] == data.classes and about['size'] == 16 and far < 1e-4
    assert names == [data.classes[i] for i in logits[:7].argmax(1)]


def test_batch_norms_are_folded_in(here):
    import onnx
    names = {node.op_type for node in onnx.load('small.onnx').graph.node}
    assert 'Conv' in names and 'BatchNormalization' not in names


def test_a_folder_is_as_the_hub_has_them(here):
    assert {p.name for p in Path('hub').iterdir()} == {
        'model.safetensors', 'config.json', 'preprocessor_config.json', 'README.md'}
    config = json.loads(Path('hub/config.json').read_text())
    assert list(config['id2label'].values()) == here[1].classes
    again = load_model(Path('hub/model.safetensors'), model=resnet(8))
    assert torch.equal(predict(again, here[1].test)[0], predict(load_model('small'), here[1].test)[0])


@pytest.mark.slow
def test_ranges_of_int8_never_come_from_test(here, monkeypatch):
    data, asked = here[1], []
    in_order = type(data.test).in_order
    monkeypatch.setattr(type(data.test), 'in_order', lambda self: asked.append(self) or in_order(self))
    monkeypatch.setattr('kdnb.deploy.exporting.write_int8', lambda path, out, pixels: (
        asked.append(pixels), out.write_bytes(path.read_bytes())))
    export(here[2], 'other.onnx', int8=True)
    assert asked[0] is data.valid and len(asked[1]) == min(256, len(data.valid.y)) and asked[2] is data.test


@pytest.mark.slow
def test_a_net_with_images_of_its_own(here):
    own = set_own_images(resnet(8), OwnImages((.5, .5, .5), (.2, .2, .2), 32))
    assert export(own, 'own.pt2', data=here[1])[1].difference < 1e-3
    export(own, 'own', data=here[1])
    assert json.loads(Path('own/config.json').read_text())['pretrained_cfg']['mean'] == [.5, .5, .5]


def test_several_classes_an_image(here):
    x, y = torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8), (torch.rand(40, 4) > .5).float()
    data = Data((x, y), (x, y), (x, y), [*'abcd'], bs=20, device='cpu')
    table = export(resnet(8, 4), 'several.pt2', data=data)
    assert table.score_name == 'mAP' and table[1].score == pytest.approx(table[0].score, abs=.1)


def test_files_in_the_picture_of_costs(here):
    fig = show_tradeoff({'learner': here[2]} | here[3]['small.onnx'].points(), 'parameters')
    assert {t.get_text() for t in fig.axes[0].texts} == {'learner', 'kdnb', 'onnx', 'int8'}


class Branching(nn.Module):
    def forward(self, x): return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


class Bessel(nn.Module):
    def forward(self, x): return torch.special.bessel_j1(x.mean((2, 3)))


def test_mistakes_are_sentences(here, monkeypatch):
    data = here[1]
    for how, says in (
            (('small', 'small.tflite'), "'small.tflite' is no format: end the path in .onnx"),
            (('small', 'small.pt2', 'coreml'), "'coreml' is no format"),
            (('nowhere', 'x.onnx'), 'nowhere'),
            (('small', 'nowhere/x.onnx'), 'there is no folder nowhere'),
            (('small', 'small.onnx', 'safetensors'), 'small.onnx is a file already'),
            (('small', 'x.pt2', None, data, True), 'int8 is made from ONNX'),
            ((resnet(8), 'x.onnx'), 'is not known: give data='),
            ((3, 'x.onnx', None, data), 'int cannot be exported'),
            ((Branching(), 'x.pt2', None, data), 'cannot be written as torch.export'),
            ((Bessel(), 'x.onnx', None, data), 'cannot be written as ONNX .*bessel_j1.*: give a path without')):
        with pytest.raises((ValueError, OSError, TypeError), match=says) as e:
            export(*how)
        assert '\n' not in str(e.value)
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == 'onnxscript' else there(name))
    with pytest.raises(RuntimeError, match=r"needs the package onnxscript: pip install 'kdnb\[export\]'"):
        export('small', 'x.onnx')


@pytest.mark.parametrize('path, file', [('small.onnx', 'small.onnx'), ('small.pt2', 'small.pt2'),
                                        ('hub', 'hub/model.safetensors'), ('hub', 'hub/config.json')])
def test_a_process_that_dies_leaves_the_old_file(here, monkeypatch, path, file):
    old = Path(file).read_bytes()

    def die(*_): raise SystemExit

    monkeypatch.setattr('os.replace', die)
    with pytest.raises(SystemExit): export('small', path)
    assert Path(file).read_bytes() == old


def test_a_run_without_names_of_classes_says_so(here, recwarn):
    from PIL import Image
    Image.fromarray(here[1].test.x[0].permute(1, 2, 0).numpy()).save('0.png')
    run = Run('small')
    config = run.json('config.json')
    try:
        run.save_json('config.json', config | dict(about=config['about'] | dict(classes=None)))
        with pytest.warns(UserWarning, match='keeps no names of its classes'):
            assert predict('small', '0.png').records()[0]['class 1'].isdigit()
    finally:
        run.save_json('config.json', config)


@pytest.mark.parametrize('command', [kdnb_predict, kdnb_export])
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit):
        command(['-h'])
    assert f'example: {command.__name__} ' in capsys.readouterr().out


@pytest.mark.slow
def test_commands(here, capsys):
    from PIL import Image
    Image.fromarray(here[1].test.x[0].permute(1, 2, 0).numpy()).save('1.png')
    assert kdnb_predict(['small', '1.png', '--top', '1', '--json']) == 0
    row = json.loads(capsys.readouterr().out)[0]
    assert row['class 1'] in here[1].classes and 0 < row['probability 1'] <= 100
    assert kdnb_export(['small', 'again.pt2', '--weights', 'last', '--json']) == 0
    assert [row['file'] for row in json.loads(capsys.readouterr().out)] == [None, 'again.pt2']
    assert kdnb_export(['small', 'again.tflite']) == 1
    assert 'kdnb_export: ' in capsys.readouterr().err
    assert kdnb_predict(['small', 'absent.jpg']) == 1
    assert 'there is no file absent.jpg' in capsys.readouterr().err
