"""`explore`: knobs where ipywidgets is, a still figure where it is not, and what it refuses."""
import importlib.util
import sys

import pytest
import torch
from torch import nn

from kdnb.data import Data, load_data
from kdnb.models import resnet
from kdnb.schemes import Alone, Distill
from kdnb.show import explore
from kdnb.train import Learner

@pytest.fixture(scope='module')
def few(): return load_data('digits', size=16, n_train=60, bs=20, device='cpu')

@pytest.fixture(scope='module')
def explorer(few): return explore({'teacher': resnet(14), 'alone': resnet(8), 'taught': resnet(8)}, few, n=5)

WIDGET = 'application/vnd.jupyter.widget-view+json'

def test_a_knob_draws_anew(explorer):
    pytest.importorskip('ipywidgets')
    knobs, picture = explorer.widgets().children
    image, stage, T = knobs.children
    seen = [picture.value]
    for knob, value in ((image, 4), (stage, 1), (T, 16.)):
        knob.value = value
        seen.append(picture.value)
    assert len(set(seen)) == 4 and all(page.startswith('<img alt="One image: Image') for page in seen)
    assert 'Image 4, label' in seen[-1] and 'stage 1 of 3' in seen[-1] and 'T = 16' in seen[-1]

def test_a_page_without_a_kernel_has_the_still_figure(explorer, monkeypatch):
    pytest.importorskip('ipywidgets')
    assert set(explorer._repr_mimebundle_()) == {WIDGET, 'text/html', 'text/plain'}
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == 'ipywidgets' else found(name))
    monkeypatch.setitem(sys.modules, 'ipywidgets', None)
    assert set(explorer._repr_mimebundle_()) == {'text/html', 'text/plain'}

def test_the_ipywidgets_of_colab_shows_the_knobs(explorer, monkeypatch):
    "Version 7 has no `_repr_mimebundle_`."
    widgets = pytest.importorskip('ipywidgets')
    monkeypatch.delattr(widgets.Widget, '_repr_mimebundle_', raising=False)
    assert set(explorer._repr_mimebundle_()[WIDGET]) == {'version_major', 'version_minor', 'model_id'}

def test_a_learner_has_its_own_models_and_images(few, quiet):
    learn = Learner(Distill(resnet(8), resnet(14), 'kd', size=16), few)
    assert repr(explore(learn, n=3)) == 'Explorer of teacher, student: 3 images of digits'
    assert repr(explore(Learner(Alone(resnet(8)), few), n=3)) == 'Explorer of student: 3 images of digits'

def test_a_model_without_maps_answers(few):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3*16*16, 10))
    found = explore({'teacher': resnet(14), 'flat': flat}, few, n=2).draw()
    assert [ax.get_title().split('\n')[0] for ax in found.axes[:2]] == ['image', 'teacher']
    assert 'No maps' in explore({'flat': flat}, few, n=2).draw().get_label()

def test_images_of_several_classes_are_refused():
    x, y = torch.zeros(8, 3, 16, 16, dtype=torch.uint8), torch.ones(8, 3, dtype=torch.uint8)
    data = Data((x, y), None, (x, y), ['a', 'b', 'c'], bs=4)
    with pytest.raises(ValueError, match='their one class'): explore({'net': resnet(8, 3)}, data)
