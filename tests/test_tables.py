"A CSV with labels in place of class folders: one class an image, or several; in Python and in the commands."

import json

import pytest
import torch
from PIL import Image

from kdnb.all import Learner, load_data, load_model, predict, resnet
from kdnb.cli import kdnb_distill, kdnb_test, kdnb_train
from kdnb.experiments import load_run_data, repeat_options

COLOURS = {'red': 0, 'green': 1, 'blue': 2}


@pytest.fixture
def photos(tmp_path):
    "A folder of 40 images; the file's number in three bits says which colours are bright."
    folder = tmp_path/'photos'
    (folder/'more').mkdir(parents=True)
    for i in range(40):
        bright = [200*(i >> k & 1) + 20 for k in range(3)]
        Image.new('RGB', (8, 8), tuple(bright)).save(folder/path_of(i))
    return folder


def path_of(i): return f"{'more/' if i % 2 else ''}{i:02}.png"
def names_of(i): return [name for name, k in COLOURS.items() if i >> k & 1]


def write(folder, head, row, numbers=range(40), name='labels.csv'):
    (folder/name).write_text('\n'.join([head, *(row(i) for i in numbers)]), encoding='utf-8')


def load(folder, **options):
    return load_data(folder, labels='labels.csv', device='cpu', **dict(dict(bs=8, augment=None), **options))


def test_one_class_an_image_needs_no_class_folders(photos):
    write(photos, 'label,file', lambda i: f"\"{'not red' if i % 2 == 0 else 'red'}\",{path_of(i)}", reversed(range(40)))
    data = load(photos)
    assert data.classes == ['not red', 'red'] and not data.multi_label and len(data.test) == 8
    pixels = data.test.x[:, 0, 0, 0]
    assert torch.equal(pixels > 100, data.test.y == 1)
    labels = data.labels
    write(photos, '\ufefffile,label', lambda i: f"./{path_of(i)},{'not red' if i % 2 == 0 else 'red'}")
    assert load(photos).labels == labels, 'the order of the rows does not count'


@pytest.mark.parametrize('head, row', [
    ('file,labels', lambda i: f"{path_of(i)},{';'.join(names_of(i))}"),
    ('file,labels', lambda i: f"{path_of(i)},{' '.join(names_of(i))}"),
    ('file,blue,green,red', lambda i: f'{path_of(i)},{i >> 2 & 1},{i >> 1 & 1},{i & 1}')])
def test_several_classes_an_image(photos, head, row):
    write(photos, head, row)
    data = load(photos)
    assert data.classes == ['blue', 'green', 'red'] and data.multi_label
    bright = data.test.x[:, :, 0, 0] > 100
    assert torch.equal(bright.flip(1).long(), data.test.y)


def test_columns_with_one_1_a_row_are_class_numbers(photos, capsys):
    write(photos, 'file,even,odd', lambda i: f'{path_of(i)},{(i + 1) % 2},{i % 2}')
    data = load(photos)
    assert data.classes == ['even', 'odd'] and not data.multi_label
    assert 'each image has exactly one of 2 classes' in capsys.readouterr().out


def test_a_split_column_says_which_is_which(photos):
    parts = ['train', 'train', 'val', 'test']
    write(photos, 'file,label,split', lambda i: f'{path_of(i)},{i % 5},{parts[i % 4]}')
    data = load(photos)
    assert [len(s) for s in (data.train, data.valid, data.test)] == [20, 10, 10]
    assert data.describe()['valid'] == 'own' and data.classes == [*'01234']


@pytest.mark.parametrize('head, row, says', [
    ('image,label', 'a.png,x', "labels.csv has no column 'file' .it has image, label.: give that name to the one"),
    ('file', 'a.png', "has nothing beside 'file': give one column 'label' or 'labels'"),
    ('file,label,age', '00.png,x,3', "has the columns label, age beside 'file': give one column"),
    ('file,age,red', '00.png,31,1', "column 'age' of labels.csv holds '31': a column beside file, label and split is"),
    ('file,label', '00.png,', '00.png has no label in labels.csv: name its class'),
    ('file,label', '99.png,x', '1 of 2 files of labels.csv are not in .*, the first is 99.png'),
    ('file,label', '00.png,x\n./00.png,y', 'labels.csv has 2 rows for 00.png: keep one'),
    ('file,label', '../x.png,x', "names '../x.png', which is no file below"),
    ('file,label', '/etc/hosts,x', "names '/etc/hosts', which is no file below"),
    ('file,label', '00.png,x,y', 'line 3 of labels.csv has 3 cells and the first line 2'),
    ('file,label,label', '00.png,x,y', 'give each a name of its own'),
    ('file,label,split', '00.png,x,dev', "has the split 'dev': write train, valid or test")])
def test_a_table_that_does_not_fit_is_refused_in_a_sentence(photos, head, row, says):
    columns = head.split(',')
    first = {'file': path_of(1), 'label': 'x', 'split': 'train', 'red': '1'}
    (photos/'labels.csv').write_text('\n'.join([head, ','.join(first.get(c, '0') for c in columns), row]))
    with pytest.raises((ValueError, OSError), match=says) as e: load(photos)
    assert '\n' not in str(e.value)


def test_tables_that_are_none_are_refused(photos):
    for text, says in (('', 'has no rows'), ('file,label', 'has no rows')):
        (photos/'labels.csv').write_text(text)
        with pytest.raises(ValueError, match=says): load(photos)
    (photos/'labels.csv').write_bytes(b'file,label\nk\xe4se.png,x')
    with pytest.raises(OSError, match='cannot be read as a table .*: save it as CSV in UTF-8'): load(photos)
    with pytest.raises(OSError, match="'none.csv' is no file, here or in"): load_data(photos, labels='none.csv')
    with pytest.raises(ValueError, match='digits has its own labels'): load_data('digits', labels='labels.csv')
    with pytest.raises(OSError, match='give labels=, a table of files and labels'): load_data(photos/'more')


def test_commands_train_and_score_with_a_table_and_the_average(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('KDNB_RUNS', str(tmp_path/'runs'))
    write(photos, 'file,labels', lambda i: f"{path_of(i)},{' '.join(names_of(i))}")
    where = ['--data', str(photos), '--labels', 'labels.csv', '--bs', '8', '--student', 'resnet8', '--epochs', '1']
    assert kdnb_train([*where, '--run', 'teacher', '--callback', 'ema']) == 0
    assert 'test mAP' in capsys.readouterr().out
    assert kdnb_distill([*where, '--teacher', 'teacher', '--run', 'taught', '--method', 'kd']) == 1
    assert 'kd needs one class an image, and those of photos may have several: take bkd' in capsys.readouterr().err
    assert kdnb_distill([*where, '--teacher', 'teacher', '--run', 'taught', '--method', 'bkd']) == 0
    capsys.readouterr()
    assert kdnb_test(['teacher', '--data', str(photos), '--json']) == 0
    told = json.loads(capsys.readouterr().out)
    assert {'last', 'best', 'ema'} <= told.keys() and set(told['ema']['by_class']) == {*COLOURS}
    assert told['ema']['mAP'] == pytest.approx(told['ema']['recorded'], abs=1e-3)
    assert kdnb_test(['teacher', '--data', str(photos), '--weights', 'ema']) == 0
    out = capsys.readouterr().out
    assert out.startswith('ema  test mAP ') and 'last' not in out
    assert kdnb_test(['taught', '--data', str(photos), '--weights', 'ema']) == 1
    assert 'taught has no ema.pt yet: train one with cbs=[EMA()]' in capsys.readouterr().err
    options = repeat_options(tmp_path/'runs/taught/config.json')
    assert (options['--labels'], options['--method']) == ('labels.csv', 'CE(1) + BKD(1, T=1)')
    answers = predict('teacher', photos/path_of(7), which='ema').records()
    z = predict(load_model('teacher', 'ema'), load(photos, valid=0).test)[0]
    assert len(answers) == 1 and z.shape[1] == 3
    with pytest.raises(ValueError, match="unknown checkpoint 'first'"):
        predict('teacher', photos/path_of(7), which='first')


def test_a_run_is_told_what_it_learnt_from(photos, tmp_path):
    write(photos, 'file,labels', lambda i: f"{path_of(i)},{' '.join(names_of(i))}")
    learn = Learner(resnet(8, 3), load(photos), run=tmp_path/'run', cbs=None).fit(1)
    config = json.loads((learn.run.path/'config.json').read_text())
    assert config['about']['table'] == 'labels.csv'
    again = load_run_data(config, 'run', photos)
    assert torch.equal(again.test.y, learn.data.test.y)
    write(photos, 'file,labels', lambda i: f"{path_of(i)},{' '.join(names_of(i + 1))}")
    with pytest.raises(ValueError, match='this is not the data of the run: .*other labels than before'):
        load_run_data(config, 'run', photos)
