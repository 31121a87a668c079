"""A small share of `make torture`; odd calls of `kdnb.all` are counted there, and not yet asked for here."""

import random

import pytest

from kdnb.seeds import seed_from
from torture.attacks import bit_flip, damaged_file, kill, odd_value, wrong_command

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('quiet')]


SHARE = [(kill, 3), (bit_flip, 8), (damaged_file, 10), (odd_value, 20), (wrong_command, 8)]


@pytest.mark.parametrize('attack, tries', SHARE)
def test_attacks(attack, tries, tmp_path):
    for number in range(tries): attack(random.Random(seed_from(1, attack.__name__, number)), tmp_path)
