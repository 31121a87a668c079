"What the model notebooks cannot show: another process, a compiled model, every name that is listed, weights of others."

import hashlib
import os
import subprocess
import sys
import time

import pytest
import torch
import torchvision.models as tvm

from kdnb.models import (
    built_by,
    create_model,
    grow,
    head_name,
    list_models,
    load_model,
    model_name,
    resnet,
    save_model,
    weights_hash,
)

pytestmark = pytest.mark.slow

def test_loads_by_run_name_in_a_fresh_process(tmp_path):
    model = create_model('resnet8x4', 7)
    (tmp_path / 'teacher').mkdir()
    save_model(model, tmp_path / 'teacher' / 'best.pt')
    code = (
        "from kdnb.models import load_model, weights_hash; m = load_model('teacher'); "
        "print(weights_hash(m), m.call['depth'], "
        "m.call['num_classes'])")
    out = subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, 'KDNB_RUNS': str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert out.split() == [weights_hash(model), '8', '7']


def test_a_compiled_model_is_saved_as_itself(tmp_path):
    model = create_model('resnet8')
    save_model(torch.compile(model), tmp_path / 'm.pt')
    assert weights_hash(load_model(tmp_path / 'm.pt')) == weights_hash(model)


def test_a_function_from_a_file_is_never_called(tmp_path, monkeypatch):
    (tmp_path / 'mynets.py').write_text(
        "from torch import nn\ndef small(num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(12, num_classes))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    model = create_model('mynets:small', 3)
    save_model(model, tmp_path / 'm.pt')
    with pytest.raises(ValueError, match='must not run code'):
        load_model(tmp_path / 'm.pt')
    assert weights_hash(create_model('mynets:small', 3, weights=tmp_path / 'm.pt')) == weights_hash(model)


@pytest.mark.parametrize('name', [*list_models(), 'torchvision/googlenet', 'torchvision/inception_v3'])
def test_logits_in_training_too(name):
    model = create_model(name, 7)
    size = 299 if 'inception' in name else 32
    assert model.train()(torch.randn(2, 3, size, size)).shape == (2, 7)
    assert model.call['num_classes'] == 7
    assert built_by(model) == model.call and model_name(model.call) == name
    assert model.get_submodule(head_name(model)).weight.shape[0] == 7


@pytest.mark.parametrize(
    'name',
    [
        'resnet8x4',
        'wrn_16_1',
        'wideresnet_16_2',
        'plainnet18',
        'plainnet20_dirac',
        'reducenet20',
        'cheapnet20_shift',
        'cheapnet20_group8',
        'shufflenetv1',
        'shufflenetv2_0.5',
        'shufflev2',
        'mobilenetv2_0.5',
        'vgg8'])
def test_each_is_rebuilt_from_its_file_and_fine_tuned(name, tmp_path, capsys):
    model = create_model(name, 7)
    save_model(model, tmp_path / 'm.pt')
    again = load_model(tmp_path / 'm.pt')
    assert weights_hash(again) == weights_hash(model) and again.call == model.call
    tuned, head = create_model(name, 3, weights=tmp_path / 'm.pt'), head_name(model)
    assert (
        f'm.pt: all is taken over but {head}, which starts fresh (7 classes in the weights, 3 asked for)'
        in capsys.readouterr().out)
    assert tuned.call['num_classes'] == 3 and tuned.get_submodule(head).weight.shape[0] == 3
    mine, theirs = tuned.state_dict(), model.state_dict()
    assert all(mine[k].equal(theirs[k]) for k in theirs if not k.startswith(f'{head}.'))


@pytest.mark.parametrize(
    'spelt,canonical',
    [
        ('wrn-28-4', 'wrn_28_4'),
        ('wrn28_4', 'wrn_28_4'),
        ('wrn 28 4', 'wrn_28_4'),
        ('WRN-28_4', 'wrn_28_4'),
        ('wrn_40_2', 'wrn_40_2'),
        ('wideresnet 16 4', 'wideresnet_16_4'),
        ('plainnet-18', 'plainnet18'),
        ('shufflenetV2-1.0', 'shufflenetv2_1.0'),
        ('shufflenetv2_2', 'shufflenetv2_2.0'),
        ('ShuffleV2', 'shufflev2'),
        ('ShuffleV1', 'shufflenetv1'),
        ('MobileNetV2', 'mobilenetv2_0.5'),
        ('mobilenetv2-1.0', 'mobilenetv2_1.0'),
        ('VGG13', 'vgg13'),
        ('vgg_8', 'vgg8'),
        ('reduce20', 'reducenet20'),
        ('reduce56w2', 'reducenet56w2'),
        ('reducenet20w2e4', 'reducenet20w2e4'),
        ('ResNet50', 'resnet50'),
        ('resnet 32x4', 'resnet32x4'),
        ('CheapNet-56-Shift', 'cheapnet56_shift'),
        ('cheapnet56 group 4', 'cheapnet56_group4'),
        ('plainnet34_imagenet', 'plainnet34_imagenet')])
def test_the_spellings_of_the_source_systems(spelt, canonical):
    assert model_name(create_model(spelt).call) == canonical


@pytest.mark.parametrize(
    'name',
    [
        'wrn_284',
        'wrn',
        'wrn_28_4_2',
        'mobilenet_v2',
        'shufflenet_v2',
        'resnet18.0',
        'vgg8.0',
        'resnet20 w2',
        'reducenet20e4w2',
        'cheapnet56',
        'cheapnet56_group',
        'xresnet20',
        'shufflev2_0.5',
        '',
        '_',
        ' ',
        '*',
        '[',
        '(',
        'wideresnet16',
        'shufflenetv2_x'])
def test_a_name_that_is_nearly_one_is_not_guessed(name):
    with pytest.raises(ValueError, match='unknown model'):
        create_model(name)


@pytest.mark.parametrize(
    'name',
    [
        'wrn_17_2',
        'vgg9',
        'shufflenetv2_0.7',
        'plainnet21',
        'resnet18x2',
        'wrn_16_0',
        'reducenet21',
        'reducenet20e0',
        'cheapnet21_shift',
        'cheapnet20_group3',
        'mobilenetv2_0.0'])
def test_numbers_that_no_net_has(name):
    with pytest.raises(ValueError) as e:
        create_model(name)
    assert 'unknown model' not in str(e.value)


def test_a_resnet_is_called_as_ever():
    assert create_model('resnet8x4', 100).call == dict(
        builder='resnet', depth=8, num_classes=100, width=4, stem='cifar', stem_width=32)
    assert list(create_model('resnet20').call.items()) == list(
        dict(builder='resnet', depth=20, num_classes=10, width=1, stem='cifar', stem_width=None).items())


def test_what_grow_made_is_saved_without_a_call(tmp_path):
    grown = grow(resnet(8, 7))
    save_model(grown, tmp_path / 'm.pt')
    assert torch.load(tmp_path / 'm.pt', weights_only=True)['call'] is None
    with pytest.raises(ValueError, match='does not say how its model is built'):
        load_model(tmp_path / 'm.pt')
    assert weights_hash(load_model(tmp_path / 'm.pt', model=grow(resnet(8, 7)))) == weights_hash(grown)


def test_a_model_that_was_changed_is_said_to_have_been(tmp_path):
    model = create_model('torchvision/resnet18', 7)
    model.maxpool = torch.nn.Identity()
    save_model(model, tmp_path / 'm.pt')
    with pytest.raises(
        ValueError,
        match=(
            "m.pt does not say how its model is built: it was changed after 'torchvision/resnet18' was built, so make "
            "the same change to another one")):
        load_model(tmp_path / 'm.pt')
    saved = torch.load(tmp_path / 'm.pt', weights_only=True)
    assert (saved['call'], saved['changed'], list(saved)) == (
        None,
        'torchvision/resnet18',
        ['kdnb', 'call', 'state', 'changed'])
    save_model(create_model('resnet8'), tmp_path / 'm.pt')
    assert list(torch.load(tmp_path / 'm.pt', weights_only=True)) == ['kdnb', 'call', 'state']


def test_weights_are_named_by_run_and_file_and_not_by_path(tmp_path, capsys):
    (tmp_path / 'first').mkdir()
    save_model(create_model('resnet8', 7), tmp_path / 'first' / 'best.pt')
    for weights, name in (tmp_path / 'first', 'first/best.pt'), (tmp_path / 'first' / 'best.pt', 'best.pt'):
        create_model('resnet8', 3, weights=weights)
        assert capsys.readouterr().out.startswith(f'{name}: all is taken over but')


def test_what_timm_s_imports_complain_of_is_not_heard(tmp_path):
    (tmp_path / 'timm.py').write_text(
        "import warnings\nwarnings.warn('IProgress not found. Please update jupyter and "
        "ipywidgets.')\nwarnings.warn('another thing')\ndef list_models(): return ['one']\n")
    code = (
        "import warnings; warnings.simplefilter('always'); from kdnb.models import list_models; "
        "print(list_models('timm/*')); warnings.warn('IProgress not found, later')")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, '-c', code], env={**os.environ, 'PYTHONPATH': path}, capture_output=True, text=True, check=True
    )
    assert (
        done.stdout.split() == ["['timm/one']"]
        and 'another thing' in done.stderr
        and 'Please update' not in done.stderr
        and 'found, later' in done.stderr)


# --- files of others


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self): return os.mkdir, (str(self.path),)


@pytest.mark.parametrize('new', [True, False], ids=['zip', 'before-1.6'])
@pytest.mark.parametrize(
    'wrap',
    [
        lambda t: t,
        lambda t: {'model': t},
        lambda t: {'model': {'weight': t}},
        lambda t: {'state_dict': resnet(8, 7).state_dict(), 'args': t},
        lambda t: {'kdnb': 1, 'call': None, 'state': t},
        lambda t: {'kdnb': 1, 'call': t, 'state': resnet(8, 7).state_dict()}])
def test_a_file_that_would_run_something_is_refused_wherever_it_hides(tmp_path, wrap, new):
    torch.save(wrap(Trap(tmp_path / 'ran')), tmp_path / 'm.pt', _use_new_zipfile_serialization=new)
    for read in (
        lambda: load_model(tmp_path / 'm.pt'),
        lambda: load_model(tmp_path / 'm.pt', model=resnet(8, 7)),
        lambda: create_model('resnet8', 7, weights=tmp_path / 'm.pt')):
        with pytest.raises(OSError, match='was refused: it holds more than weights'):
            read()
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('new', [True, False], ids=['zip', 'before-1.6'])
@pytest.mark.parametrize('key', [None, 'state_dict', 'model', 'model_state_dict'])
@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('half', [False, True])
def test_weights_of_others_in_all_their_wrappings(tmp_path, capsys, new, key, prefix, half):
    model = create_model('resnet8', 7)
    state = {prefix + k: v.half() if half and v.is_floating_point() else v for k, v in model.state_dict().items()}
    torch.save(
        {key: state, 'epoch': 240, 'best_acc': torch.tensor(73.2), 'opt': 'sgd'} if key else state,
        tmp_path / 'm.pth',
        _use_new_zipfile_serialization=new)
    hash = weights_hash(model.half().float() if half else model)
    assert (
        weights_hash(load_model(tmp_path / 'm.pth', model=create_model('resnet8', 7)))
        == weights_hash(create_model('resnet8', 7, weights=tmp_path / 'm.pth'))
        == hash)
    assert capsys.readouterr().out == ''
    with pytest.raises(ValueError, match='does not say how its model is built'):
        load_model(tmp_path / 'm.pth')
    with pytest.raises(
        ValueError, match='another architecture .* differences: stages.0.1.conv1.weight is missing in the file'):
        create_model('resnet14', 10, weights=tmp_path / 'm.pth')
    assert 'fresh' not in capsys.readouterr().out
    create_model('resnet8', 10, weights=tmp_path / 'm.pth')
    assert (
        'all is taken over but head.fc, which starts fresh (7 classes in the weights, 10 asked for)'
        in capsys.readouterr().out)


def test_a_cut_file_of_the_old_layout_is_told_in_one_sentence(tmp_path):
    torch.save(resnet(8, 7).state_dict(), tmp_path / 'm.pth', _use_new_zipfile_serialization=False)
    whole = (tmp_path / 'm.pth').read_bytes()
    for n in [20, 40, 100, 1000, 5000, len(whole) // 2, len(whole) - 1]:
        (tmp_path / 'm.pth').write_bytes(whole[:n])
        with pytest.raises(OSError, match='m.pth'):
            load_model(tmp_path / 'm.pth', model=resnet(8, 7))


def test_a_backbone_gets_a_head(tmp_path, capsys):
    model = create_model('resnet8', 7)
    torch.save({k: v for k, v in model.state_dict().items() if 'head' not in k}, tmp_path / 'm.pth')
    create_model('resnet8', 7, weights=tmp_path / 'm.pth')
    assert 'starts fresh (no classes in the weights, 7 asked for)' in capsys.readouterr().out


def test_only_the_head_may_differ(tmp_path):
    torch.save({**create_model('resnet8', 7).state_dict(), 'head.fc.weight': torch.zeros(7, 32)}, tmp_path / 'm.pth')
    with pytest.raises(ValueError, match='another architecture'):
        create_model('resnet8', 10, weights=tmp_path / 'm.pth')
    torch.save({**create_model('resnet8', 7).state_dict(), 'more': torch.zeros(1)}, tmp_path / 'm.pth')
    with pytest.raises(ValueError, match='more is .1,. in the file and missing in the model'):
        create_model('resnet8', 10, weights=tmp_path / 'm.pth')


# --- what torchvision and timm have trained (nothing is downloaded here)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty folder of downloads; `hub(name)` publishes random weights of torchvision's model at a file address,
    under the hash that they have."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))

    def publish(name, content=None, hash=None):
        weights = tvm.get_model_weights(name).DEFAULT
        model = tvm.get_model(
            name, **({'aux_logits': True, 'init_weights': False} if name in ('googlenet', 'inception_v3') else {}))
        torch.save(model.state_dict() if content is None else content, tmp_path / 'weights.pth')
        hash = hash or hashlib.sha256((tmp_path / 'weights.pth').read_bytes()).hexdigest()[:8]
        (tmp_path / 'weights.pth').rename(tmp_path / f'{name}-{hash}.pth')
        monkeypatch.setattr(weights.value, 'url', (tmp_path / f'{name}-{hash}.pth').as_uri())
        return model

    return publish


@pytest.mark.parametrize(
    'name', ['resnet18', 'squeezenet1_1', 'mobilenet_v2', 'densenet121', 'googlenet', 'inception_v3', 'regnet_y_400mf'])
def test_torchvisions_own_weights(hub, tmp_path, capsys, name):
    theirs = hub(name)
    tuned = create_model(f'torchvision/{name}', 7, weights='torchvision')
    out, head, state = capsys.readouterr().out, head_name(tuned), theirs.state_dict()
    assert (
        f"torchvision's weights: all is taken over but {head}, which starts fresh (1000 classes in the weights, 7 "
        "asked for)"
        in out
        and 'downloading' in out)
    assert all(v.equal(state[k]) for k, v in tuned.state_dict().items() if not k.startswith(f'{head}.'))
    assert tuned.call == built_by(tuned) == dict(builder='torchvision', name=name, num_classes=7)
    save_model(tuned, tmp_path / 'm.pt')
    assert weights_hash(load_model(tmp_path / 'm.pt')) == weights_hash(tuned)
    x, whole = torch.rand(2, 3, 299, 299), create_model(f'torchvision/{name}', 1000, weights='torchvision').eval()
    published = tvm.get_model(
        name, weights='DEFAULT'
    ).eval()  # as torchvision gives it, with its own scaling of the picture
    with torch.no_grad():
        assert whole(x).allclose(published(x), atol=1e-5)
    assert capsys.readouterr().out == ''


def test_torchvisions_weights_are_found_where_the_error_says(hub, tmp_path):
    weights = tvm.ResNet18_Weights.DEFAULT.value
    theirs = hub('resnet18')
    there = tmp_path / 'torch' / 'hub' / 'checkpoints' / os.path.basename(weights.url)
    weights.url = f'file:///nowhere/{there.name}'
    with pytest.raises(OSError) as e:
        create_model('torchvision/resnet18', 7, weights='torchvision')
    assert (
        weights.url in str(e.value)
        and str(there) in str(e.value)
        and '$TORCH_HOME' in str(e.value)
        and '\n' not in str(e.value))
    torch.save(theirs.state_dict(), there)
    assert create_model('torchvision/resnet18', 7, weights='torchvision').conv1.weight.equal(theirs.conv1.weight)


def test_a_download_with_another_hash_is_refused_and_not_kept(hub, tmp_path):
    hub('squeezenet1_1', hash='00000000')
    with pytest.raises(OSError, match='could not be fetched .*hash'):
        create_model('torchvision/squeezenet1_1', 7, weights='torchvision')
    assert list((tmp_path / 'torch' / 'hub' / 'checkpoints').iterdir()) == []


def test_a_download_that_would_run_something_is_refused(hub, tmp_path):
    hub('squeezenet1_1', Trap(tmp_path / 'ran'))
    with pytest.raises(OSError, match='was refused'):
        create_model('torchvision/squeezenet1_1', 7, weights='torchvision')
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize(
    'name,weights',
    [
        ('resnet18', 'torchvision'),
        ('resnet18', 'timm'),
        ('timm/resnet18', 'torchvision'),
        ('torchvision/resnet18', 'timm'),
        ('torchvision.models:resnet18', 'torchvision')])
def test_weights_of_one_house_for_a_net_of_another(name, weights):
    if name.startswith('timm'):
        pytest.importorskip('timm')
    with pytest.raises(ValueError, match=f"weights='{weights}' go with a name '{weights}/...', not with '{name}'"):
        create_model(name, 10, weights=weights)


def test_timms_own_weights(monkeypatch, capsys):
    timm = pytest.importorskip('timm')
    theirs, create = timm.create_model('resnet10t'), timm.create_model
    monkeypatch.setattr(
        timm, 'create_model', lambda name, pretrained=False, **kw: theirs if pretrained else create(name, **kw))
    tuned = create_model('timm/resnet10t', 7, weights='timm')
    assert (
        "timm's weights: all is taken over but fc, which starts fresh (1000 classes in the weights, 7 asked for)"
        in capsys.readouterr().out)
    assert tuned.conv1[0].weight.equal(theirs.conv1[0].weight) and built_by(tuned) == dict(
        builder='timm', name='resnet10t', num_classes=7)


def test_timm_without_a_network_and_without_weights(monkeypatch):
    timm, create = pytest.importorskip('timm'), pytest.importorskip('timm').create_model

    def offline(name, pretrained=False, **kw):
        if pretrained: raise OSError('no connection.\nmore')
        return create(name, **kw)

    monkeypatch.setattr(timm, 'create_model', offline)
    with pytest.raises(OSError, match=r'could not be fetched \(no connection\): .* say weights=FILE here'):
        create_model('timm/resnet10t', 7, weights='timm')
    with pytest.raises(ValueError, match='timm has no weights for'):
        create_model('timm/botnet50ts_256', 7, weights='timm')


@pytest.mark.gpu
def test_on_a_gpu(tmp_path):
    model = create_model('resnet8').cuda().to(memory_format=torch.channels_last)
    save_model(model, tmp_path / 'm.pt')
    again = load_model(tmp_path / 'm.pt')
    assert next(again.parameters()).device.type == 'cpu' and weights_hash(again) == weights_hash(model)
    assert weights_hash(load_model(tmp_path / 'm.pt', model=create_model('resnet8').cuda())) == weights_hash(model)


@pytest.mark.parametrize(
    'name',
    [
        'resnet20000000',
        'resnet20x100000',
        'resnet20w1000',
        'resnet110w64',
        'resnet600000002_imagenet',
        'wrn_1000000_2',
        'wrn_40_100',
        'wideresnet_16_100000',
        'plainnet20000000',
        'plainnet20000000_dirac',
        'reducenet20000000',
        'reducenet20w99999',
        'reducenet20e10000000',
        'cheapnet20000000_shift',
        'cheapnet20000000_group8',
        'vgg99999999',
        'mobilenetv2_100',
        'mobilenetv2_1e9',
        'shufflenetv2_99999999',
        'cheapnet56_group99999999',
        'resnet' + '1' * 4400,
        'wrn_40_' + '1' * 4400])
def test_a_name_with_a_digit_too_many_is_refused_at_once(name):
    start = time.perf_counter()
    with pytest.raises(
        ValueError,
        match='digit too many|not 4,40[0-9] letters|there is|there are|unknown model|it has|do not fall into'):
        create_model(name)
    assert time.perf_counter() - start < 5


def test_the_deepest_and_widest_of_the_papers_are_built():
    with torch.device('meta'):
        assert [
            round(sum(p.numel() for p in create_model(n).parameters()) / 1e6, 1) for n in ('resnet1202', 'wrn_40_10')
        ] == [19.4, 55.8]  # as their papers say
