"What several files of tests stand on."

import gc
from pathlib import Path

import pytest
import torch

from kdnb.data import load_data
from kdnb.train import Learner

def pytest_configure(config):
    config.addinivalue_line('markers', 'slow: starts processes, trains or compiles: `make slow`')
    config.addinivalue_line('markers', 'gpu: needs a GPU: `make gpu`')

def pytest_collection_modifyitems(items):
    "What stands in tests/slow is slow; other files say so themselves (pytestmark)."
    for item in items:
        if Path(item.path).parent.name == 'slow':
            item.add_marker('slow')
        if item.get_closest_marker('gpu') and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason='needs a GPU'))

def pytest_collection_finish():
    "What a file of tests changes while it is imported, changes the tests of others."
    assert Learner.callbacks, 'a file of tests sets Learner.callbacks'
    gc.collect()
    gc.freeze()                     # what is imported stays: to look through it again takes a second each time

@pytest.fixture
def quiet(monkeypatch, tmp_path):
    "No bars, runs in a folder of the test's own, and one thread: many threads on a busy machine wait for each other."
    monkeypatch.setattr(Learner, 'callbacks', [])
    monkeypatch.setenv('KDNB_RUNS', str(tmp_path / 'runs'))
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


@pytest.fixture(scope='session')
def data(): return load_data('digits', size=8, n_train=100, bs=20, device='cpu')  # five steps an epoch


@pytest.fixture
def runs(monkeypatch, tmp_path):
    "A folder of the test's own for runs; it is not there yet."
    monkeypatch.setenv('KDNB_RUNS', str(tmp_path / 'runs'))
    return tmp_path / 'runs'
