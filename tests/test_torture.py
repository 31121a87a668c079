"""A small share of `make torture`."""

import random

import pytest

from kdnb.seeds import seed_from
from torture.attacks import ATTACKS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('quiet')]
SHARE = dict(wrong_call=20, wrong_command=8, odd_value=15, damaged_data=12, kill_of_a_rank=1, kill_in_a_sweep=1,
             kill_while_compiled=1, kill_while_streaming=2, kill=3, bit_flip=8, disk_fault=4, damaged_file=10)


@pytest.fixture(scope='module')
def root(tmp_path_factory): return tmp_path_factory.mktemp('torture')


@pytest.mark.parametrize('attack', ATTACKS, ids=lambda attack: attack.__name__)
def test_attacks(attack, root, monkeypatch):
    monkeypatch.chdir(root)
    monkeypatch.setenv('KDNB_DATA', str(root / 'data'))
    for number in range(SHARE[attack.__name__]):
        attack(random.Random(seed_from(1, attack.__name__, number)), root)
