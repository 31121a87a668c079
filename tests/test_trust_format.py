"""The format of a run: an older one loads, a later one is refused with the version that is needed."""

import json
import re
from pathlib import Path

import pytest
import torch

from kdnb.cli import kdnb_test, kdnb_train
from kdnb.experiments import load_results, repeat_options
from kdnb.files import RUN_FORMAT
from kdnb.models import load_model, resnet
from kdnb.schemes import Distill
from kdnb.train import Learner

pytestmark = pytest.mark.usefixtures('quiet')
TOLD = f'has format 7, and this kdnb reads formats up to {RUN_FORMAT}: it needs kdnb 9.8 or newer'


def made(data, run): return Learner(resnet(8), data, run=run).fit(1).run.path


def change(run, **about):
    config = json.loads((run / 'config.json').read_text())
    kept = {k: v for k, v in (config['about'] | about).items() if v is not None}
    (run / 'config.json').write_text(json.dumps(config | dict(about=kept)))


def test_a_later_format_is_refused_with_the_version(data, capsys):
    run = made(data, 'later')
    assert json.loads((run / 'config.json').read_text())['about']['format'] == RUN_FORMAT
    change(run, format=7, kdnb='9.8')
    for call in (lambda: made(data, 'later'), lambda: repeat_options(run / 'config.json'),
                 lambda: Distill(resnet(8), 'later', 'kd'), lambda: load_model('later')):
        with pytest.raises(OSError, match=TOLD): call()
    for command, words in ((kdnb_test, ['later']), (kdnb_train, ['--config', str(run / 'config.json')])):
        assert command(words) == 1 and TOLD in capsys.readouterr().err
    made(data, 'now')
    results = load_results('*')
    assert [row['run'] for row in results] == ['now'] and TOLD in results.left_out[0]['detail']


@pytest.mark.parametrize('number', [None, 0])
def test_an_older_format_loads(data, number):
    run = made(data, 'older')
    change(run, format=number)
    assert made(data, 'older') == run and len(load_results('older')) == 1


def test_a_later_model_file_is_refused(data, tmp_path):
    run = made(data, 'later')
    saved = torch.load(run / 'last.pt', weights_only=True)
    torch.save(saved | dict(kdnb=7), tmp_path / 'later.pt')
    with pytest.raises(OSError, match='later.pt is a model file of format 7'): load_model(tmp_path / 'later.pt')


def test_the_page_names_the_files_and_fields_that_are_written(data):
    page = Path(__file__).parent.parent.joinpath('docs/format.md').read_text()
    named = {*re.findall(r'`([\w.]+)`', page)}
    run = Learner(Distill(resnet(8), made(data, 'teacher'), 'kd'), data, run='taught').fit(1).run.path
    config = json.loads((run / 'config.json').read_text())
    saved = torch.load(run / 'last.pt', weights_only=True)
    fields = [*config, *config['data'], *config['about'], *saved, *saved['train'], *saved['train']['history']]
    assert [k for k in [*fields, *(f.name for f in run.iterdir())] if k not in named] == []
