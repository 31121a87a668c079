"""A small share of `make torture`: all its kinds but kills of compiled runs, as the compiler takes seconds to load."""

import random

import pytest

from kdnb.seeds import seed_from
from torture import attacks

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('quiet')]
SHARE = dict(wrong_call=20, wrong_command=6, odd_value=15, damaged_data=12, kill_of_a_rank=1, kill_in_a_sweep=1,
             kill_while_streaming=1, kill=2, bit_flip=5, disk_fault=2, damaged_file=8)


@pytest.fixture(scope='module')
def root(tmp_path_factory): return tmp_path_factory.mktemp('torture')


@pytest.mark.parametrize('name', SHARE)
def test_attacks(name, root, monkeypatch):
    monkeypatch.chdir(root)
    monkeypatch.setenv('KDNB_DATA', str(root / 'data'))
    for number in range(SHARE[name]):
        getattr(attacks, name)(random.Random(seed_from(1, name, number)), root)
