"Names that no terminal and no file takes are shown as escapes; names that look like patterns are names first."

import io
import os
from pathlib import Path

import pytest
from PIL import Image

import kdnb.cli as commands
from kdnb.data import load_data
from kdnb.deploy import predict
from kdnb.experiments import load_results, report_page
from kdnb.models import resnet
from kdnb.schemes import Distill
from kdnb.show import compare, show_history
from kdnb.text import Table
from kdnb.train import Learner, stamp

pytestmark = pytest.mark.skipif(os.name != 'posix', reason='file names are bytes on POSIX alone')

TEACHER, TAUGHT, CLASS, PHOTO = map(os.fsdecode, (b'run-\xff[1]*', b't-\xfe', b'cat\xff', b'1\xfd.png'))


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('names')
    with pytest.MonkeyPatch.context() as m:
        m.setenv('KDNB_RUNS', str(root / 'runs'))
        m.setattr(Learner, 'callbacks', [])
        data = load_data('digits', size=8, n_train=60, bs=20, device='cpu')
        Learner(resnet(8), data, run=TEACHER, cbs=None).fit(1)
        Learner(Distill(resnet(8), root / 'runs' / TEACHER, 'kd'), data, run=TAUGHT, cbs=None).fit(1)
        for name in CLASS, 'dog':
            (root / 'photos' / name).mkdir(parents=True)
            for i in range(6): Image.new('RGB', (8, 8), (i*9, 0, 0)).save(root / 'photos' / name / f'{i}{PHOTO[1:]}')
        yield root


@pytest.fixture(autouse=True)
def here(root, monkeypatch, tmp_path):
    monkeypatch.setenv('KDNB_RUNS', str(root / 'runs'))
    monkeypatch.chdir(tmp_path)


def test_tables_in_all_forms():
    results = load_results('*')
    assert len(results) == 2
    table = results.table()
    for text in (table.text(), table.csv(), table.markdown(), table.latex(), table.html(), repr(results)): text.encode()
    assert {row['taught_by'] for row in results if 'taught_by' in row} == {TEACHER}


def test_one_epoch_is_no_epochs():
    text = load_results('*').table().text()
    assert '1 epoch, 60 images seen' in text and '1 epochs' not in text and ' · 1 epoch · ' in stamp(TEACHER)


@pytest.mark.parametrize('name', ['=1+1', '+1-1', '-2+3', '@SUM(A1)', '=cmd|x'])
def test_a_name_is_no_formula_and_no_markup(name):
    table = Table([name, 'test'], [[name, -1.5]], name)
    head, row = table.csv().splitlines()
    assert head.startswith("'" + name) and row == f"'{name},-1.5"
    odd = '|a `b` *c* $d$ <e> &f \\input{g} _h_'
    text = Table([odd], [[odd]])
    assert '<e>' not in text.html() and '\\input{' not in text.latex() and ' &f' not in text.latex()
    assert r'\|a \`b\` \*c\* \$d\$ \<e> &f \\input{g} \_h\_' in text.markdown()


def test_a_name_that_is_a_pattern_is_a_name_first():
    found, = load_results(TEACHER)
    assert found['run'] == TEACHER and len(load_results('run-*')) == 1


def test_a_report_and_commands(root, capsys):
    page = report_page('*', pictures=1)
    page.encode()
    assert r'run-\udcff[1]*' in page and 'could not be made' not in page
    assert commands.kdnb_report(['*']) == 0 and Path('report.html').read_text(encoding='utf-8')
    assert commands.kdnb_test([TEACHER, '--device', 'cpu']) == 0
    config = str(root / 'runs' / TEACHER / 'config.json')
    assert commands.kdnb_train(['--config', config, '--run', TAUGHT + '2']) in (0, 1)
    out = capsys.readouterr()
    (out.out + out.err).encode()


def test_class_folders(root, capsys):
    data = load_data(root / 'photos', size=8, bs=4, valid=0, device='cpu')
    learn = Learner(resnet(8, 2), data, run='folder', cbs=None).fit(1)
    shown = predict('folder', root / 'photos' / CLASS / PHOTO, which='last')
    for text in (shown.text(), shown.html(), shown.csv(), repr(data), data._repr_html_(), repr(learn)): text.encode()
    assert r'1\udcfd.png' in shown.text()
    found = compare(data, teacher=learn, alone=resnet(8, 2))
    found.fig.savefig(io.BytesIO())
    rows = [dict(epoch=1, ce=1., train_acc=3., valid_acc=3.)]
    show_history({TEACHER: rows}).savefig(io.BytesIO())


def test_what_is_no_image_is_named(root):
    odd = root / 'photos' / 'dog' / os.fsdecode(b'bad\xfe.png')
    odd.write_text('no image')
    try:
        with pytest.warns(UserWarning, match=r'bad\\udcfe.png cannot be read'):
            load_data(root / 'photos', size=8, bs=4, valid=0, device='cpu')
        with pytest.raises(OSError, match='cannot be read as an image'):
            load_data(root / 'photos', size=8, bs=4, valid=0, device='cpu', strict=True)
    finally:
        odd.unlink()
