"What the model notebooks cannot show: another process, a compiled model, every name that is listed."
import os, subprocess, sys
import pytest, torch
from kdnb.models.zoo import create_model, list_models, load_model, save_model, weights_hash

def test_loads_by_run_name_in_a_fresh_process(tmp_path):
    model = create_model('resnet8x4', 7)
    (tmp_path/'teacher').mkdir()
    save_model(model, tmp_path/'teacher'/'best.pt')
    code = "from kdnb.models.zoo import *; m = load_model('teacher'); print(weights_hash(m), m.call['depth'], m.call['num_classes'])"
    out = subprocess.run([sys.executable, '-c', code], env={**os.environ, 'KDNB_RUNS': str(tmp_path)}, capture_output=True, text=True, check=True).stdout
    assert out.split() == [weights_hash(model), '8', '7']

def test_a_compiled_model_is_saved_as_itself(tmp_path):
    model = create_model('resnet8')
    save_model(torch.compile(model), tmp_path/'m.pt')
    assert weights_hash(load_model(tmp_path/'m.pt')) == weights_hash(model)

def test_a_function_from_a_file_is_never_called(tmp_path, monkeypatch):
    (tmp_path/'mynets.py').write_text("from torch import nn\ndef small(num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(12, num_classes))\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    model = create_model('mynets:small', 3)
    save_model(model, tmp_path/'m.pt')
    with pytest.raises(ValueError, match='must not run code'): load_model(tmp_path/'m.pt')
    assert weights_hash(create_model('mynets:small', 3, weights=tmp_path/'m.pt')) == weights_hash(model)

@pytest.mark.parametrize('name', [*list_models(), 'torchvision/googlenet', 'torchvision/inception_v3'])
def test_logits_in_training_too(name):
    model = create_model(name, 7)
    size = 299 if 'inception' in name else 32
    assert model.train()(torch.randn(2, 3, size, size)).shape == (2, 7)
    assert model.call['num_classes'] == 7

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_on_a_gpu(tmp_path):
    model = create_model('resnet8').cuda().to(memory_format=torch.channels_last)
    save_model(model, tmp_path/'m.pt')
    again = load_model(tmp_path/'m.pt')
    assert next(again.parameters()).device.type == 'cpu' and weights_hash(again) == weights_hash(model)
    assert weights_hash(load_model(tmp_path/'m.pt', model=create_model('resnet8').cuda())) == weights_hash(model)
