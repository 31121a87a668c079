"""Tuning: valid scores choose, trials are runs that go on, and what a space may not hold is told in words."""
import builtins
import json
import re

import pytest

from kdnb.all import Data, Learner, load_results, resnet, seeded, tune
from kdnb.cli import kdnb_tune
from kdnb.experiments import write_method
from kdnb.files import run_path
from kdnb.methods import parse_method
from kdnb.systems import sweep_presets

optuna = pytest.importorskip('optuna')
SPACE = {'kd.T': (1, 16), 'kd.weight': (.1, .99)}


@pytest.fixture(scope='module')
def teacher(data):
    with seeded(0):
        return Learner(resnet(8), data, cbs=None).fit(2)


@pytest.fixture
def asked(quiet, data, teacher):
    return dict(student='resnet8', teacher=teacher, space=SPACE, data=data, epochs=2, seeds=2, name='few')


@pytest.fixture
def found(asked, monkeypatch):
    monkeypatch.setattr(optuna.trial.Trial, 'should_prune', lambda self: False)
    return tune(**asked, trials=4)


def test_best_of_valid_and_fresh_seeds(found, runs):
    whole = [t for t in found.study.trials if t.state.name == 'COMPLETE']
    assert len(found.study.trials) == 4 and found.search['best'] == max(t.value for t in whole)
    row = json.loads((runs/f'few-{re.sub("[^a-zA-Z0-9.]+", "-", found.best).strip("-")}-0/history.jsonl'
                      ).read_text().splitlines()[-1])
    assert row['epoch'] == 2
    assert len(found.fresh['best']) == len(found.fresh['default']) == 2
    gain = found.search['best'] - found.search['default']
    assert f'gain in the search {gain:+.2f}, of fresh seeds ' in str(found) and 'was luck' in str(found)
    assert len(load_results(str(runs/'few-kd*'))) >= 4 + 2 + 3
    shares = found.importance()
    assert set(shares) == set(SPACE) and sum(shares.values()) == pytest.approx(1)
    assert [*found.show_importance().axes[0].get_yticklabels()][0].get_text() in SPACE


def test_test_images_choose_nothing(asked, monkeypatch):
    words = write_method('kd', {'kd.T': 3})
    assert words == 'kd(T=3)'
    monkeypatch.setattr('kdnb.experiments.tuning._Tuning.valid', lambda self, words, seeds: [0. for _ in seeds])
    seen = []
    monkeypatch.setattr('kdnb.experiments.tuning._fit_trial', lambda plan, trial, words: (
        seen.append(plan.column) or 1., False))
    tune(**asked, trials=3)
    assert seen == ['valid_acc']*3


def test_an_interrupted_trial_goes_on(asked, monkeypatch, runs):
    fit, made = Learner.fit, []

    def stopped(self, epochs, fresh=False):
        made.append(self.run)
        if len(made) == 2: raise KeyboardInterrupt
        return fit(self, epochs, fresh)

    monkeypatch.setattr(Learner, 'fit', stopped)
    with pytest.raises(KeyboardInterrupt):
        tune(**asked, trials=3)
    done = tune(**asked, trials=3)
    assert str(made[2]) == str(made[1])                   # the same values, so the same run
    assert sorted(t.state.name for t in done.study.trials if t.state.name != 'PRUNED')[-1] == 'FAIL'
    assert sum(t.state.name in ('COMPLETE', 'PRUNED') for t in done.study.trials) == 3


def test_what_lags_behind_is_ended(asked, monkeypatch):
    monkeypatch.setattr(optuna.trial.Trial, 'should_prune', lambda self: self.number % 2 == 1)
    found = tune(**asked, trials=4)
    assert [t.state.name for t in found.study.trials] == ['COMPLETE', 'PRUNED']*2
    assert found.study.trials[1].intermediate_values.keys() == {1}
    with pytest.raises(ValueError, match='2 trials ran to the end: importance needs four'):
        found.importance()


def test_lists_are_a_grid(asked):
    grid = asked | dict(space={'kd.T': [2, 4], 'kd.weight': [.5, .9]})
    found = tune(**grid, trials=4)
    assert len({tuple(t.params.values()) for t in found.study.trials}) == 4


def test_the_published_grid(asked, monkeypatch):
    "16 trials, which are the students of the preset kd-grid: (weight of the labels, of KD, temperature)."
    def terms(words):
        return sorted((t['name'], t['weight'], t.get('T')) for t in (t.describe() for t in parse_method(words)))

    monkeypatch.setattr('kdnb.experiments.tuning._Tuning.valid', lambda self, words, seeds: [0. for _ in seeds])
    monkeypatch.setattr('kdnb.experiments.tuning._fit_trial', lambda plan, trial, _: (scores[0]*trial.number, False))
    scores, space = [0.], {'ce.weight, kd.weight': [(.2, .8), (.4, .6), (.6, .4), (.8, .2)], 'kd.T': [2, 4, 8, 16]}
    found = tune(**asked | dict(method='ce(.1)+kd(.9)', space=space), trials=40)
    made, published = ([*map(terms, words)] for words in (
        [t.user_attrs['method'] for t in found.study.trials], sweep_presets['kd-grid'].methods.values()))
    assert len(made) == 16 and sorted(made) == sorted(published)
    with pytest.raises(ValueError, match='all trials have the same score'):
        found.importance()
    scores[0] = 1.
    found = tune(**asked | dict(method='ce(.1)+kd(.9)', space=space, name='other'), trials=16)
    assert set(found.importance()) == set(space) and (run_path('few.optuna')).is_file()


def test_mistakes_are_sentences(asked, monkeypatch, capsys):
    for space, says in (
            ({'kd.temperature': (1, 16)}, "unknown option of kd in the space 'temperature'"),
            ({'dkd.T': (1, 16)}, "unknown term of the space 'dkd'"), ({}, 'the space is empty'),
            ({'kd.T': (16, 1)}, 'kd.T is \\(16, 1\\): give a range'), ({'kd.T': 4}, 'give a range'),
            ({'kd.T': (1, 'a')}, 'give a range'), ({'kd.T': ('a', 'b')}, 'give a range'),
            ({'kd.T': [[1]]}, 'give a range'),
            ({'kd.T': (1, float('inf'))}, 'give a range'), ({'kd.T, kd.weight': [(1, 2, 3)]}, 'tuples of 2 values'),
            ({'kd.T, kd.weight': (1, 2)}, 'tuples of 2 values'), ({'kd.T, kd.w': [(1, 2)]}, 'unknown option of kd')):
        with pytest.raises(ValueError, match=says):
            tune(**asked | dict(space=space))
    for wrong, says in (
            (dict(space=['kd.T']), 'a space is a dict such as'), (dict(space={1: (1, 2)}), "such as 'kd.T', not int"),
            (dict(method=['kd']), "is words such as 'kd.at', not list"), (dict(epochs=0), 'epochs must be a whole'),
            (dict(epochs='2'), 'epochs must be a whole number')):
        with pytest.raises((ValueError, TypeError), match=says):
            tune(**asked | wrong)
    with pytest.raises(ValueError, match='trials must be a whole number'):
        tune(**asked, trials=0)
    digits = asked['data']
    bare = Data((digits.train.x, digits.train.y), None, (digits.test.x, digits.test.y), digits.classes, bs=20)
    with pytest.raises(ValueError, match='tuning chooses by valid images'):
        tune(**asked | dict(data=bare))
    assert kdnb_tune(['--data', 'digits', '--teacher', 'x', '--space', 'kd.T']) == 1
    assert 'write a range as kd.T=1:16' in capsys.readouterr().err
    there = builtins.__import__

    def absent(name, *args, **kwargs):
        if name == 'optuna': raise ImportError("No module named 'optuna'")
        return there(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', absent)
    with pytest.raises(RuntimeError, match=r"needs the package optuna .*: pip install 'kdnb\[tune\]'"):
        tune(**asked)


@pytest.mark.slow
def test_the_command(asked, capsys, runs):
    Learner(resnet(8), asked['data'], run='teacher', cbs=None).fit(1)
    words = ('--data digits --size 8 --n-train 100 --bs 20 --device cpu --student resnet8 --teacher teacher '
             '--space kd.T=2,8 --trials 2 --seeds 1 --epochs 1 --json')
    assert kdnb_tune(words.split()) == 0
    assert [row['method'] for row in json.loads(capsys.readouterr().out)][0] == 'kd'
