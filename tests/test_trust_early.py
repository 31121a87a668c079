"""What a run lacks is known when it is opened, not after its last epoch; what can be mended is mended."""

import json
import os
import shutil
from collections import namedtuple

import pytest
import torch
from torch import nn

from kdnb.experiments import load_results
from kdnb.models import load_model, resnet, weights_hash
from kdnb.schemes import Distill, Frozen
from kdnb.seeds import seeded
from kdnb.train import Callback, Learner, load_state, read_history, remember, save_state

pytestmark = pytest.mark.usefixtures('quiet')


def learner(data, cbs=()):
    with seeded(0): return Learner(resnet(8), data, run='early', cbs=cbs)


class StopAt(Callback):
    def __init__(self, epoch): self.epoch = epoch

    def before_step(self, learn):
        if learn.epoch == self.epoch: raise KeyboardInterrupt


@pytest.fixture
def half(data):
    "A run that was interrupted in its third epoch of four."
    with pytest.raises(KeyboardInterrupt): learner(data, [StopAt(2)]).fit(4)
    return learner(data).run.path


def no_step(monkeypatch): monkeypatch.setattr('kdnb.train.loop.one_epoch', lambda learn: pytest.fail('it trains'))


@pytest.mark.parametrize('damage', ['missing', 'cut'])
def test_best_weights(half, data, monkeypatch, damage):
    no_step(monkeypatch)
    file = half / 'best.pt'
    file.unlink() if damage == 'missing' else file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(OSError, match='best.pt of run .early. is'): learner(data).fit(4)


@pytest.mark.parametrize('damage', [
    lambda text: text[:-20], lambda text: text[:-1], lambda text: text + b'{"epo',
    lambda text: text + b'{"epoch": 3}\n',
    lambda text: text[:text.rindex(b'\n', 0, -1) + 1]])
def test_the_history_is_mended(half, data, damage):
    file = half / 'history.jsonl'
    rows = read_history(learner(data).run)
    file.write_bytes(damage(file.read_bytes()))
    learn = learner(data).fit(4)
    assert learn.history[:2] == rows and read_history(learn.run) == learn.history
    for _ in range(2):                                  # of a finished run too
        file.write_bytes(damage(file.read_bytes()))
        assert learner(data).fit(4).history == learn.history == read_history(learn.run)
    assert len(load_results('early')) == 1


@pytest.mark.parametrize('damage', [None, b'', b'{"epoch": 1', b'3\n', b'{"epoch": 1}\n{"epoch": 2}\n'])
def test_a_history_that_is_another_one(half, data, monkeypatch, damage):
    no_step(monkeypatch)
    (half / 'history.jsonl').write_bytes(damage) if damage is not None else (half / 'history.jsonl').unlink()
    with pytest.raises(OSError, match='history.jsonl of run .early. is missing or changed'): learner(data).fit(4)


def test_a_run_that_lost_its_last_checkpoint(half, data, monkeypatch, capsys):
    (half / 'last.pt').unlink()
    with monkeypatch.context() as m:
        no_step(m)
        with pytest.raises(OSError, match='last.pt of run .early. is missing, and its history tells of 2 epochs'):
            learner(data).fit(4)
    first = (half / 'history.jsonl').read_text().splitlines(keepends=True)[0]
    (half / 'history.jsonl').write_text(first)          # killed before its first last.pt
    assert learner(data).fit(4).epoch == 4
    assert 'the first epoch was not kept, so it begins anew' in capsys.readouterr().out


def test_a_run_of_before_with_the_whole_text(half, data):
    learn = learner(data)
    saved = load_state(learn.run, 'last.pt')
    text = (half / 'history.jsonl').read_text()
    saved['train']['history'] = text
    save_state(learn.run, 'last.pt', saved)
    (half / 'history.jsonl').unlink()
    learn.fit(4)
    assert (half / 'history.jsonl').read_text().startswith(text) and len(learn.history) == 4
    assert isinstance(load_state(learn.run, 'last.pt')['train']['history'], dict)


def test_files_of_dead_processes_are_removed(half, data):
    for name in 'last.pt.123.tmp', 'history.jsonl.99999999.tmp', 'config.json.7.tmp': (half / name).write_text('x')
    (half / 'notes.tmp').write_text('mine')
    learner(data).fit(4)
    assert sorted(f.name for f in half.glob('*.tmp')) == ['notes.tmp']


def test_a_disk_that_will_be_full(half, data, monkeypatch):
    no_step(monkeypatch)
    usage = namedtuple('usage', 'total used free')
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage(10**9, 10**9, 10**5))
    with pytest.raises(OSError, match='make room'): learner(data).fit(4)
    with pytest.raises(OSError, match='make room'): Learner(resnet(8), data, run='fresh').fit(1)


def test_a_teacher_that_is_gone(half, data, monkeypatch):
    no_step(monkeypatch)
    for name in 'best.pt', 'last.pt': (half / name).unlink()
    for teacher in 'early', 'never-there':
        with pytest.raises((OSError, ValueError), match=teacher): Distill(resnet(8), teacher, 'kd')


def test_a_view_that_is_gone(data):
    known = remember(resnet(8), data, views=2)
    os.remove(known.file(1))
    with pytest.raises(OSError, match='view 1 is gone'): Learner(Distill(resnet(8), known, 'kd'), data)


class Counting(nn.Module):
    "A net with state that is no tensor."
    def __init__(self):
        super().__init__()
        self.net, self.steps = resnet(8), {'seen': 0, 'names': ['a']}

    def forward(self, x):
        self.steps['seen'] += self.training
        return self.net(x)

    def get_extra_state(self): return self.steps

    def set_extra_state(self, state): self.steps = state


def test_models_with_extra_state(data, tmp_path):
    run = Learner(Counting(), data, run='counts').fit(2).run.path
    again = load_model(run, 'last', model=Counting())
    assert again.steps['seen'] >= 8 and weights_hash(again) == weights_hash(torch.load(run / 'last.pt')['state'])
    torch.save(again.state_dict(), tmp_path / 'bare.pt')
    assert load_model(tmp_path / 'bare.pt', model=Counting()).steps == again.steps
    Learner(Distill(resnet(8), Frozen(again), 'kd'), data, run='taught').fit(1)
    taught, = load_results('taught')
    assert taught['taught_by'] == 'counts' and json.dumps(taught)
