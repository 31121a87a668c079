"""A run is asked about photographs: it answers with names of classes, as its model would with the same pixels."""

import pytest
import torch
from PIL import Image

from kdnb.all import Learner, Run, load_data, predict, resnet

NAMES = [f'digit {i} $x_{i}$' for i in range(10)]


@pytest.fixture
def taught(here):
    whole = load_data('digits', n_train=100, device='cpu')
    for i in range(3):
        Image.fromarray(whole.test.x[i].permute(1, 2, 0).numpy()).save(f'{i}.png')
    return Learner(resnet(8), whole, run='taught', cbs=[]).fit(1)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('KDNB_RUNS', str(tmp_path))
    return tmp_path


def test_it_answers_as_the_model_does(taught):
    logits, _ = predict(taught.student, taught.data.test)
    seen = predict(Run('taught'), [f'{i}.png' for i in range(3)], top=10, which='last')
    for i, row in enumerate(seen.records()):
        p = logits[i].softmax(0)*100
        assert [row[f'class {k}'] for k in range(1, 11)] == [taught.data.classes[c] for c in p.argsort(descending=True)]
        told = torch.tensor([row[f'probability {k}'] for k in range(1, 11)])
        torch.testing.assert_close(told, p.sort(descending=True).values, atol=.01, rtol=0)


def test_one_file_and_names_of_any_kind(here):
    digits = load_data('digits', n_train=100, device='cpu')
    digits.classes = NAMES
    Image.fromarray(digits.test.x[0].permute(1, 2, 0).numpy()).save('0.png')
    Learner(resnet(8), digits, run='named', cbs=[]).fit(1)
    seen = predict(here/'named', here/'0.png', top=1)
    assert seen.records()[0]['class 1'] in NAMES and len(seen) == 1


def test_mistakes_are_sentences(taught, here):
    for how, says in (
            (('taught', 'absent.png'), 'there is no file absent.png'),
            (('nowhere', '0.png'), 'nowhere'),
            (('taught', taught.data.test), 'a run is asked about image files'),
            (('taught', []), 'no files: give the paths')):
        with pytest.raises((ValueError, OSError, TypeError), match=says):
            predict(*how)
    (here/'broken.png').write_bytes(b'no image')
    with pytest.raises(OSError, match='broken.png cannot be read as an image'):
        predict('taught', ['0.png', 'broken.png'])
