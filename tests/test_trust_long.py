"Long runs and many of them: what an epoch, a table and a report cost does not grow with what was there before."

import json
import os
import shutil
import time
from statistics import median
from types import SimpleNamespace

import pytest
from torch import nn

from kdnb.experiments import load_results, report_page
from kdnb.models import resnet, weights_hash
from kdnb.train import HistoryEnd, Learner, Run, read_history, write_progress

pytestmark = pytest.mark.usefixtures('quiet')


def row(epoch): return dict(epoch=epoch, lr=.05, loss=1/epoch, ce=1/epoch, train_acc=90., valid_acc=80.125, seconds=1.5)


class Long:
    "What `write_progress` reads of a learner that has come to an epoch, in a folder."
    def __init__(self, folder, epochs):
        model = nn.Linear(4, 2)
        part = SimpleNamespace(state_dict=dict)
        self.student, self.scheme = model, SimpleNamespace(students=[model, model], state_dict=dict)
        self.opt = self.sched = self.scaler = part
        self.run, self.best, self.average = Run(folder), dict(epoch=1, valid_acc=80.), None
        self.run.path.mkdir(parents=True)
        self.epoch, self.history = epochs - 1, [row(e) for e in range(1, epochs)]
        lines = [json.dumps(r) + '\n' for r in self.history]
        self.run.write('history.jsonl', ''.join(lines).encode())
        self.end = HistoryEnd(lines)

    def step(self):
        self.epoch += 1
        self.history.append(row(self.epoch))
        start = time.perf_counter()
        write_progress(self)
        return time.perf_counter() - start


def test_saving_costs_the_same_at_the_end(tmp_path):
    early, late = Long(tmp_path / 'early', 2), Long(tmp_path / 'late', 2000)
    for _ in range(3): early.step(), late.step()
    pairs = [(early.step(), late.step()) for _ in range(15)]
    ratio = median(b for _, b in pairs)/median(a for a, _ in pairs)
    print(f'saving at epoch 2,000 takes {ratio:.2f} times what it takes at epoch 2')
    assert ratio < 1.5
    sizes = [(long.run.path / 'last.pt').stat().st_size for long in (early, late)]
    assert abs(sizes[1] - sizes[0]) < 300
    assert [r['epoch'] for r in read_history(late.run)] == list(range(1, 2018))


def test_a_history_is_appended_and_synced(tmp_path, monkeypatch):
    long, real, synced = Long(tmp_path / 'long', 5), os.fsync, []
    long.step()
    file = long.run.path / 'history.jsonl'
    before, content = file.stat(), file.read_bytes()
    monkeypatch.setattr(os, 'fsync', lambda f: (synced.append(os.fstat(f).st_ino), real(f)))
    long.step()
    assert file.stat().st_ino == before.st_ino in synced and file.read_bytes().startswith(content)


@pytest.fixture(scope='module')
def one(tmp_path_factory):
    "A finished run with its weights taken away."
    from kdnb.data import load_data
    data = load_data('digits', size=8, n_train=100, bs=20, device='cpu')
    folder = tmp_path_factory.mktemp('one') / 'run-0'
    Learner(resnet(8), data, run=folder, cbs=None).fit(2)
    return folder


def copies(one, root, n):
    "A folder of n runs that differ in their seeds."
    config = json.loads((one / 'config.json').read_text())
    for seed in range(n):
        folder = root / f'run-{seed}'
        folder.mkdir(parents=True)
        (folder / 'config.json').write_text(json.dumps(config | dict(seed=seed)))
        for name in 'result.json', 'history.jsonl': shutil.copy(one / name, folder)
    return root


def seconds(call):
    "Processor time of this process: other processes on the machine count for nothing."
    start = time.process_time()
    call()
    return time.process_time() - start


def test_two_hundred_runs_are_read_in_a_moment(one, tmp_path):
    root = copies(one, tmp_path / 'many', 200)
    assert seconds(lambda: load_results(f'{root}/*')) < .5


@pytest.mark.slow
def test_two_thousand_runs_are_read_in_a_second(one, tmp_path):
    root = copies(one, tmp_path / 'many', 2000)
    taken = min(seconds(lambda: load_results(f'{root}/*')) for _ in range(4))
    print(f'load_results of 2,000 runs: {taken:.2f} s')
    assert taken < 1


@pytest.mark.slow
def test_a_report_of_five_hundred_runs(one, tmp_path, monkeypatch):
    root = copies(one, tmp_path / 'many', 500)
    monkeypatch.chdir(tmp_path)
    taken = seconds(lambda: report_page(f'{root}/*', pictures=0))
    print(f'the report of 500 runs: {taken:.2f} s')
    assert taken < 5


def test_a_hundred_epochs_go_on_where_they_were(data, tmp_path):
    class Stop(Exception): pass

    from kdnb.train import Callback

    class At(Callback):
        def after_epoch(self, learn):
            if learn.epoch == 7: raise Stop

    whole = Learner(resnet(8), data, run=tmp_path / 'whole', cbs=None)
    weights = {k: v.clone() for k, v in whole.student.state_dict().items()}
    whole.fit(9)
    student = resnet(8)
    student.load_state_dict(weights)
    with pytest.raises(Stop): Learner(student, data, run=tmp_path / 'cut', cbs=[At()]).fit(9)
    student.load_state_dict(weights)
    again = Learner(student, data, run=tmp_path / 'cut').fit(9)
    same = [{k: v for k, v in r.items() if k not in ('seconds', 'images_per_second')} for r in again.history]
    assert [{k: r[k] for k in s} for r, s in zip(whole.history, same, strict=True)] == same
    assert weights_hash(again.student) == weights_hash(whole.student)
