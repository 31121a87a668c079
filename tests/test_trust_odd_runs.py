"""One odd folder among runs is left out and counted: no table, report or command ends because of it."""

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdnb.cli import kdnb_report, kdnb_test
from kdnb.data import load_data
from kdnb.errors import Mistake
from kdnb.experiments import load_results, repeat_options, report_page
from kdnb.models import create_model, resnet
from kdnb.schemes import Distill
from kdnb.train import Learner, Run, read_config, read_history
from torture.odd import odd_history, odd_json

pytestmark = pytest.mark.usefixtures('quiet')
QUICK = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp('runs')
    data = load_data('digits', size=8, n_train=60, bs=20, device='cpu')
    teacher = Learner(create_model('resnet8', 10), data, run=root / 'teacher', cbs=None).fit(1)
    for name in 'taught', 'odd':
        Learner(Distill(resnet(8), teacher, 'kd+at'), data, run=root / name, cbs=None).fit(2)
    return root


FILES = {}
FORMS = 'text', 'html', 'csv', 'latex', 'markdown'
NAMES = 'config.json', 'result.json', 'history.jsonl'


def files_of(made):
    if not FILES:
        run = Run(made / 'taught')
        FILES.update({name: run.json(name) for name in ('config.json', 'result.json')}, history=read_history(run))
    return FILES


def write_odd(made, data):
    "Put one to two odd files into the folder `odd`."
    good, folder = files_of(made), made / 'odd'
    for name in NAMES:
        shutil.copy(made / 'taught' / name, folder / name)
    for name in data.draw(st.sets(st.sampled_from(NAMES), min_size=1, max_size=2)):
        odd = odd_history(good['history']) if name == 'history.jsonl' else odd_json(good[name])
        (folder / name).write_bytes(data.draw(odd))


@QUICK
@given(st.data())
def test_tables_of_odd_runs(made, data):
    write_odd(made, data)
    results = load_results(str(made / '*'))
    assert {'teacher', 'taught'} <= {row['run'] for row in results} and len(results) + len(results.left_out) == 3
    table = results.table()
    for text in repr(results), results._repr_html_(), *(getattr(table, form)() for form in FORMS):
        assert '\x1b' not in text and text.encode()


@settings(QUICK, max_examples=60)
@given(st.data())
def test_an_odd_configuration_is_one_sentence(made, data):
    (made / 'odd/config.json').write_bytes(data.draw(odd_json(files_of(made)['config.json'])))
    for read in repeat_options, lambda file: read_config(Run(Path(file).parent)):
        try:
            read(made / 'odd/config.json')
        except Mistake as e: assert '\n' not in str(e) and len(str(e)) < 2000


@pytest.mark.slow
@settings(QUICK, max_examples=2)
@given(st.data())
def test_reports_of_odd_runs(made, data):
    write_odd(made, data)
    page = report_page(str(made / '*'), pictures=0)
    assert 'taught' in page and page.count('<section') == 6


def test_commands_beside_odd_folders(made, tmp_path, capsys):
    root = tmp_path / 'runs'
    shutil.copytree(made, root)
    shutil.copytree(made / 'taught', root / 'odd', dirs_exist_ok=True)
    config = json.loads((root / 'odd/config.json').read_text())
    (root / 'odd/config.json').write_text(json.dumps(config | dict(epochs=[3])))
    shapes = '[]', '3', '{"about": 3}', '{"about": {}, "data": []}', '[' * 10**5, 'NaN', '"\\ud800"'
    for i, text in enumerate(shapes):
        (root / f'odd-{i}').mkdir()
        (root / f'odd-{i}/config.json').write_text(text)
    os.mkfifo(root / 'odd-0/result.json')
    (root / 'odd-1/history.jsonl').mkdir()
    (root / 'odd-2').rename(os.fsdecode(os.fsencode(root) + b'/odd-\xff\n2'))
    assert kdnb_report([str(root / '*'), '--out', str(tmp_path / 'r.html'), '--pictures', '0']) == 0
    page = (tmp_path / 'r.html').read_text()
    assert 'taught' in page and 'left out, ' in page and r'odd-\udcff' in page
    for folder in sorted(os.listdir(os.fsencode(root))):
        if b'odd' not in folder: continue
        capsys.readouterr()
        assert kdnb_test([os.fsdecode(os.path.join(os.fsencode(root), folder))]) == 1
        assert capsys.readouterr().err.count('\n') == 1


def test_a_saved_table_that_is_odd(made, tmp_path):
    load_results(str(made / 't*')).save(tmp_path / 'r.json')
    saved = json.loads((tmp_path / 'r.json').read_text())
    row = saved['rows'][0]
    rows = 3, [{}], [row | dict(seed=[])]
    for odd in [], {}, '[' * 10**5, *(dict(saved, rows=r) for r in rows):
        (tmp_path / 'r.json').write_text(odd if isinstance(odd, str) else json.dumps(odd))
        with pytest.raises(ValueError, match='damaged'): load_results(tmp_path / 'r.json')
