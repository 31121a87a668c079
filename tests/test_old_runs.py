"""Runs that an earlier version of kdnb made still load, and go on to the end that they would have had.

`KDNB_EXACT=1` demands the same numbers to the last bit, and trains all finished runs anew; that is for the machine and
the torch that made them. `old_runs/README.md` says what there is.
"""
import json
import os
import re
import sys
from pathlib import Path

import pytest
import torch

from kdnb.all import Callback, Distill, Learner, load_model, seeded

OLD = Path(__file__).resolve().parent/'old_runs'
sys.path.insert(0, str(OLD))
import make  # noqa: E402 - found by the line above

EXACT = os.environ.get('KDNB_EXACT') == '1'
EXPECTED = json.loads((OLD/'expected.json').read_text(encoding='utf-8'))


@pytest.fixture(autouse=True)
def steady():
    with make.steady():
        yield


@pytest.fixture
def runs(tmp_path, monkeypatch):
    "A copy of all old runs, where kdnb looks for runs."
    monkeypatch.setenv('KDNB_RUNS', str(tmp_path))
    return make.copy_runs(tmp_path)


@pytest.fixture
def run(request):
    "The name of a run that this torch can load: some configurations quote how torch prints a layer."
    config = (OLD/request.param/'config.json').read_text(encoding='utf-8')
    quotes = 'BatchNorm2d' in config or '"structure"' in config
    if quotes and repr(torch.nn.BatchNorm2d(8)) != EXPECTED['torch']['batch_norm']:
        pytest.skip('this torch prints a BatchNorm2d in other words than the one that made the old runs')
    return request.param


def each(names):
    return pytest.mark.parametrize('run', names, indirect=True)


class Watch(Callback):
    "Which epochs are trained."
    def __init__(self):
        self.trained = []

    def after_epoch(self, learn):
        self.trained.append(learn.history[-1]['epoch'])


def check_order(learn, folder):
    "Parameters in another order would get each other's momentum, and where their sizes differ the process may crash."
    saved = torch.load(folder/'last.pt', weights_only=True)['train']['opt']['state']
    trained = [p.shape for p in learn.scheme.parameters() if p.requires_grad]
    assert [s['momentum_buffer'].shape for s in saved.values()] == trained, 'the order of parameters has changed'


def content(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob('*')) if p.is_file()}


def config_of(folder):
    "The text of a configuration, without what is not compared."
    config = json.loads((folder/'config.json').read_text(encoding='utf-8'))
    del config['about']
    return json.dumps(config, indent=1)


def differences(now, then, at=''):
    "Where two facts differ: by a bit with KDNB_EXACT=1, else by more than 1e-4 (above 10: by more than 1e-5 of it)."
    if isinstance(then, dict) and isinstance(now, dict):
        if list(now) != list(then):
            return [f'{at}: {list(now)} for {list(then)}']
        return [d for k in then for d in differences(now[k], then[k], f'{at}.{k}')]
    if isinstance(then, list) and isinstance(now, list) and len(now) == len(then):
        return [d for i, (a, b) in enumerate(zip(now, then)) for d in differences(a, b, f'{at}[{i}]')]
    if isinstance(then, float) and isinstance(now, float) and not EXACT:
        return [] if abs(now - then) <= max(1e-4, 1e-5*abs(then)) else [f'{at}: {now!r} for {then!r}']
    return [] if now == then else [f'{at}: {now!r} for {then!r}']


def facts(learn, run, same_weights=EXACT):
    "What there is to compare, and what is expected; hashes of weights only where they must be the same."
    now, then = make.facts(learn, run), EXPECTED[run]
    return [{k: v for k, v in of.items() if same_weights or not k.endswith('_hash')} for of in (now, then)]


@each(make.FINISHED)
def test_a_finished_run_is_loaded(run, runs):
    before, watch = content(runs), Watch()
    learn = make.learner(run, cbs=[watch]).fit(make.EPOCHS)
    assert differences(*facts(learn, run, same_weights=True), run) == []
    assert watch.trained == [] and content(runs) == before, 'it was loaded, and nothing was written'


@each(make.INTERRUPTED)
def test_an_interrupted_run_goes_on(run, runs):
    before, watch = content(runs), Watch()
    assert f'{run}/last.pt' in before and f'{run}/result.json' not in before
    learn = make.learner(run, cbs=[watch])
    check_order(learn, runs/run)
    learn.fit(make.EPOCHS)
    assert differences(*facts(learn, run), run) == []
    assert watch.trained == [*range(make.CUT_AFTER + 1, make.EPOCHS + 1)]
    after = content(runs)
    written = {k for k in after if after[k] != before.get(k)}
    own = {f'{run}/{f}' for f in ('best.pt', 'config.json', 'history.jsonl', 'last.pt', 'result.json')}
    assert written <= own and f'{run}/result.json' in written, 'the run alone was written; no teacher was asked anew'
    assert config_of(runs/run) == config_of(OLD/run)


BEGINS_OTHERWISE = 'ofd', 'review', 'joint'         # their connectors begin as their authors' today; review reads more


@pytest.mark.skipif(not EXACT, reason='trained from the start, a run is the same only where it was made: KDNB_EXACT=1')
@each([name for name in make.FINISHED if name not in BEGINS_OTHERWISE])
def test_a_run_that_is_made_anew_is_the_old_one(run, runs):
    learn = make.learner(run).fit(make.EPOCHS, fresh=True)
    assert differences(*facts(learn, run), run) == []
    assert config_of(runs/run) == config_of(OLD/run)


def test_a_run_of_a_method_that_has_changed_is_refused_in_words_and_still_scored(runs):
    "ReviewKD has a level more today, and reads the teacher before the activation."
    with seeded(1):
        scheme = Distill(make.narrow(), 'teacher', 'review', size=make.SIZE)
    for run in 'review', 'review-cut':
        learn = Learner(scheme, make.data('reducenet'), run=run, recipe='reducenet', lr=.03, amp='off', seed=2)
        with pytest.raises(ValueError, match='was run differently: the method is .* you ask for .*reading='):
            learn.fit(make.EPOCHS)
    assert differences(make.logits_of(load_model('review', 'last'), 'review'), EXPECTED['review']['last']) == []


def test_the_old_runs_can_be_given_away():
    "No path of the machine that made them is in them, and they are small."
    files = content(OLD)
    files = {k: v for k, v in files.items() if '__pycache__' not in k}
    private = re.compile(rb'(?<![\w./])/(home|root|work|tmp|Users|mnt|opt|usr|var)/|site-packages')
    assert [k for k, v in files.items() if private.search(v)] == []
    assert sum(map(len, files.values())) < 3e6


def test_the_weights_of_a_run_come_without_a_learner(runs):
    for where in ('alone', runs/'alone'):     # its name, its path
        assert differences(make.logits_of(load_model(where, 'last'), 'alone'), EXPECTED['alone']['last']) == []
