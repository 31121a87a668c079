"""Runs of the zoo are scored again from their stored weights: on drawn images everywhere, on CIFAR-100 where it is."""
import pytest

from docs.zoo import score_again
from kdnb.data import read_zoo
from kdnb.files import data_root

DRAWN = 'shapes-teacher', 'shapes-resnet8-alone-5', 'shapes-resnet8-kd-5'
PHOTOGRAPHS = 'short-resnet20-0', 'short-resnet8-0', 'short-resnet8-by-resnet20-kd-0'
CIFAR = data_root()/'cifar-100-python'

def check_score(name: str) -> None:
    kept = read_zoo()[name]
    assert abs(score_again(name) - kept['test_again']) <= .1        # elsewhere a few images may fall on the other side
    assert abs(kept['test_again'] - kept['test']) <= .1             # as in full precision

@pytest.mark.parametrize('name', DRAWN)
def test_on_drawn_images(name): check_score(name)

@pytest.mark.skipif(not CIFAR.is_dir(), reason=f'CIFAR-100 is not in {CIFAR}: its folder is named by $KDNB_DATA')
@pytest.mark.parametrize('name', PHOTOGRAPHS)
def test_on_photographs(name): check_score(name)
