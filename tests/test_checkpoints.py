"""Files of weights that other people wrote: wrappings, prefixes, counters, formats."""

import sys

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from kdnb.models import create_model, load_model, read_weights, resnet, save_model, weights_hash

MODEL = create_model('resnet8', 7)
STATE = MODEL.state_dict()


def before(prefix, state=STATE): return {prefix + k: v for k, v in state.items()}


PREFIXES = 'module.', '_orig_mod.', 'model.', 'net.', 'backbone.', 'module._orig_mod.model.net.'


@pytest.mark.parametrize('prefix', PREFIXES)
@pytest.mark.parametrize('place', ['', 'state_dict', 'net', 'ema', 'state_dict_ema', 'model/state_dict', 'ema/module'])
def test_any_prefix_that_all_keys_share_in_any_wrapping(tmp_path, prefix, place):
    if place == 'ema/module':
        saved = {'ema': before('module.' + prefix)}
    else:
        saved = before(prefix)
        for key in reversed(place.split('/') if place else []):
            saved = {key: saved, 'epoch': 3, 'optimizer': {'state': {}, 'lr': 0.1}}
    torch.save(saved, tmp_path / 'm.pth')
    assert weights_hash(read_weights(tmp_path / 'm.pth')['state']) == weights_hash(MODEL)
    assert weights_hash(load_model(tmp_path / 'm.pth', model=resnet(8, 7))) == weights_hash(MODEL)
    assert weights_hash(create_model('resnet8', 7, weights=tmp_path / 'm.pth')) == weights_hash(MODEL)


class Around(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = resnet(8, 7)


def test_a_model_whose_own_keys_share_a_prefix_keeps_it(tmp_path):
    for name, state in ('bare', STATE), ('own', before('net.')), ('more', before('module.net.')):
        torch.save(state, tmp_path / f'{name}.pth')
        assert weights_hash(load_model(tmp_path / f'{name}.pth', model=Around()).net) == weights_hash(MODEL)
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).state_dict(), tmp_path / 'one.pth')
    load_model(tmp_path / 'one.pth', model=nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    save_model(net := nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), tmp_path / 'ours.pt')
    again = load_model(tmp_path / 'ours.pt', model=nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    assert weights_hash(again) == weights_hash(net)


def test_a_part_of_a_net_gets_a_head_whatever_its_keys_share(tmp_path, capsys):
    net = create_model('torchvision/squeezenet1_1', 7)
    torch.save({k: v for k, v in net.state_dict().items() if k.startswith('features.')}, tmp_path / 'm.pth')
    tuned = create_model('torchvision/squeezenet1_1', 7, weights=tmp_path / 'm.pth')
    assert tuned.features[3].squeeze.weight.equal(net.features[3].squeeze.weight)
    assert 'starts fresh (no classes in the weights, 7 asked for)' in capsys.readouterr().out


def test_counters_are_no_weights(tmp_path):
    averaged = AveragedModel(resnet(8, 7)).state_dict()
    assert 'n_averaged' in averaged
    counted = {**STATE, 'total_ops': torch.zeros(1, dtype=torch.float64), 'stem.total_params': torch.zeros(1)}
    old = {k: v for k, v in STATE.items() if not k.endswith('num_batches_tracked')}
    more = {**STATE, 'head.num_batches_tracked': torch.tensor(7), 'epoch': 7}
    for state in averaged, counted, old, more:
        torch.save(state, tmp_path / 'm.pth')
        load_model(tmp_path / 'm.pth', model=resnet(8, 7))
        create_model('resnet8', 7, weights=tmp_path / 'm.pth')
    torch.save(old, tmp_path / 'm.pth')
    assert weights_hash(load_model(tmp_path / 'm.pth', model=resnet(8, 7))) == weights_hash(MODEL)


def test_safetensors(tmp_path, monkeypatch):
    save_file = pytest.importorskip('safetensors.torch').save_file
    file = tmp_path / 'model.safetensors'
    save_file(before('model.'), file, metadata={'format': 'pt'})
    assert weights_hash(load_model(file, model=resnet(8, 7))) == weights_hash(MODEL)
    assert weights_hash(create_model('resnet8', 7, weights=file)) == weights_hash(MODEL)
    whole = file.read_bytes()
    for part in whole[:-1], whole[:200]:
        file.write_bytes(part)
        with pytest.raises(OSError, match='model.safetensors is cut short, damaged or not a model file'):
            load_model(file, model=resnet(8, 7))
    file.write_bytes(whole)
    monkeypatch.setitem(sys.modules, 'safetensors.torch', None)
    with pytest.raises(ValueError, match=r"model.safetensors is a safetensors file: .* pip install 'kdnb\[export\]'"):
        load_model(file, model=resnet(8, 7))


def test_messages_name_the_format(tmp_path, capsys):
    torch.save({'model': before('module.')}, tmp_path / 'm.pth')
    for ask in (
        lambda: create_model('resnet14', 7, weights=tmp_path / 'm.pth'),
        lambda: load_model(tmp_path / 'm.pth', model=resnet(14, 7)),
        lambda: load_model(tmp_path / 'm.pth')):
        with pytest.raises(ValueError, match="m.pth .a file of torch.save, under model, before each key 'module.'. "):
            ask()
    torch.save({'epoch': 3, 'args': 'x'}, tmp_path / 'none.pth')
    with pytest.raises(OSError, match=r'none.pth .a file of torch.save. holds a dict of epoch, args and no weights'):
        load_model(tmp_path / 'none.pth', model=resnet(8, 7))
    torch.save({'model': STATE, 'model_ema': before('', resnet(8, 7).state_dict())}, tmp_path / 'two.pth')
    assert weights_hash(load_model(tmp_path / 'two.pth', model=resnet(8, 7))) == weights_hash(MODEL)
    assert 'weights under model, model_ema: those under model are taken' in capsys.readouterr().out
