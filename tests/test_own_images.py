"""A pretrained net gets the normalisation and size that it was trained with, as teacher and as student, only once."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F

from kdnb.all import (
    Data,
    Distill,
    Frozen,
    Learner,
    Run,
    create_model,
    load_data,
    load_model,
    predict,
    remember,
    resnet,
    save_model,
    weights_hash,
)
from kdnb.cli import kdnb_test, kdnb_train
from kdnb.models import OwnImages, describe_own_images, own_images, set_own_images
from kdnb.schemes import meet_data
from kdnb.taps import Tapped, find_taps

timm = pytest.importorskip('timm')
CFG = dict(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5), input_size=(3, 32, 32), num_classes=1000)
STATS = (0.1, 0.2, 0.3), (0.3, 0.3, 0.1)
OTHER = (0.6, 0.5, 0.4), (0.2, 0.2, 0.2)


def some(stats=STATS, size=16, n=24):
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=g)
    return Data((x, torch.arange(n) % 3), None, (x, torch.arange(n) % 3), 'abc', bs=8, device='cpu', stats=stats)


def own(data, size=32):
    "The images of test as the pretrained net knows them, made of pixels."
    x = data.test.x / 255
    x = (x - torch.tensor(CFG['mean']).view(3, 1, 1)) / torch.tensor(CFG['std']).view(3, 1, 1)
    return F.interpolate(x, (size, size), mode='bilinear')


def same(a, b): return torch.allclose(a, b, atol=1e-4, rtol=1e-3)


def bare(net):
    "The net without what converts its images."
    return set_own_images(copy.deepcopy(net), None).eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def _quiet(quiet): pass


@pytest.fixture
def pretrained(monkeypatch):
    "timm publishes random weights under another normalisation; nothing is downloaded."
    create = timm.create_model
    torch.manual_seed(0)
    theirs = create('resnet10t')
    theirs.pretrained_cfg = CFG
    monkeypatch.setattr(
        timm, 'create_model', lambda name, pretrained=False, **kw: theirs if pretrained else create(name, **kw))
    return lambda n=3: create_model('timm/resnet10t', n, weights='timm')


def test_a_student_by_itself_and_in_a_learner(pretrained, tmp_path):
    data, net = some(), pretrained()
    x = torch.rand(2, 3, 48, 48)
    net.eval()
    assert torch.equal(net(x), bare(net)(x))  # in no training yet: as timm's own
    learn = Learner(net, data, run='tuned', cbs=None, lr=1e-3).fit(1)
    assert learn.student is net and '32 pixels' in repr(learn) and '(own_images): OwnImages(32 x 32' in repr(net)
    z = predict(net, data.test)[0]
    assert same(z, bare(net)(own(data)))
    assert list(net.state_dict()) == list(timm.create_model('resnet10t', num_classes=3).state_dict())
    again = load_model('tuned', 'last').eval()  # from the run, in a process that knows no data
    assert torch.equal(predict(again, data.test)[0], z)
    with torch.no_grad():
        assert same(again(data.test.normalise(data.test.x)), z)
    save_model(net, tmp_path / 'm.pt')
    assert describe_own_images(load_model(tmp_path / 'm.pt')) == describe_own_images(net)
    assert weights_hash(bare(net)) == weights_hash(net)
    config = Run('tuned').json('config.json')
    assert config['own_images']['size'] == 32 and config['student']['name'] == 'resnet10t'


def test_another_run_goes_on_as_if_it_had_not_stopped(pretrained):
    data, seeds = some(), []
    def learner(run):
        torch.manual_seed(1)
        return Learner(pretrained(), data, run=run, cbs=None, lr=1e-3)
    whole = learner('whole').fit(2)
    broken = learner('broken')
    take = broken.validate
    def stop(split):
        seeds.append(1)
        if len(seeds) == 2: raise KeyboardInterrupt
        return take(split)
    broken.validate = stop
    with pytest.raises(KeyboardInterrupt): broken.fit(2)
    resumed = learner('broken').fit(2)
    assert weights_hash(resumed.student) == weights_hash(whole.student) and resumed.result == whole.result


@pytest.mark.parametrize('how', ['created', 'bare', 'run'])
def test_a_teacher(pretrained, how):
    data = some()
    if how == 'created':
        teacher = pretrained()
    elif how == 'bare':
        teacher = timm.create_model('resnet10t', num_classes=3)
        teacher.pretrained_cfg = CFG
    else:
        Learner(pretrained(), data, run='teacher', cbs=None, lr=1e-3).fit(1)
        teacher = 'teacher'
    taught = Distill(resnet(8, 3), teacher, 'kd+at', size=data.size)
    learn = Learner(taught, data, cbs=None, run='taught', lr=1e-3)
    z, features = taught.teacher(data.test.normalise(data.test.x))
    assert same(z, bare(taught.teacher.model)(own(data)))
    last = list(features.values())[-1]
    assert last.shape[-1] == 2 and 'OwnImages(32 x 32 pixels, mean (0.5, 0.4, 0.3)' in repr(taught)
    assert learn.fit(1).history[0]['kd'] > 0
    prepare = Run('taught').json('config.json')['prepare']
    assert prepare == json.loads(json.dumps(dict(mean=CFG['mean'], std=CFG['std'], size=32)))
    remembered = remember(taught.teacher, data, views=1)
    assert same(remembered.teacher(data.test.normalise(data.test.x))[0], z)


def test_a_pretrained_teacher_of_a_pretrained_student_reads_its_places_in_its_own_images(pretrained):
    data = some()
    student, teacher = pretrained(), pretrained()
    taught = Distill(student, teacher, 'kd+fitnet', size=data.size)
    names = [name for pairs in taught.pairs for pair in pairs for name in pair]
    assert names and not any('own_images' in name for name in names)
    Learner(taught, data, cbs=None, lr=1e-3).fit(1)
    x = data.test.normalise(data.test.x)
    plain = Tapped(bare(student), names)(own(data))
    tapped = Tapped(student.eval(), names)
    with torch.no_grad():
        z, features = tapped(x)
    assert same(z, plain[0]) and all(same(features[n], plain[1][n]) for n in features)
    assert [t.size for t in find_taps(student, 16)] == [t.size for t in find_taps(bare(student), 32)]


def test_torchvisions_weights_bring_their_images(monkeypatch, tmp_path):
    import torchvision.models as tvm
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    where = tmp_path / 'hub' / 'checkpoints' / tvm.SqueezeNet1_1_Weights.DEFAULT.url.rpartition('/')[2]
    where.parent.mkdir(parents=True)
    torch.save(tvm.squeezenet1_1(weights=None).state_dict(), where)
    net = create_model('torchvision/squeezenet1_1', 3, weights='torchvision')
    known = own_images(net)
    assert (known.mean, known.std, known.size) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224)
    data = some(n=8)
    z = predict(net.eval(), data.test)[0]
    x = data.test.x / 255
    x = (x - torch.tensor(known.mean).view(3, 1, 1)) / torch.tensor(known.std).view(3, 1, 1)
    assert same(z, bare(net)(F.interpolate(x, (224, 224), mode='bilinear')))


def test_where_nothing_is_known_the_datas_are_taken():
    import torchvision.models as tvm
    data = some(n=8)
    for make in (
        lambda: create_model('timm/resnet10t', 3), lambda: timm.create_model('resnet10t', num_classes=3),
        lambda: resnet(8, 3), lambda: tvm.squeezenet1_1(weights=None, num_classes=3)):
        net = make()
        Learner(net, some(size=64, n=8), cbs=None)
        assert own_images(net) is None and type(net) is type(make())
    assert own_images(Frozen(create_model('timm/resnet10t', 3)).model) is None
    assert predict(resnet(8, 3), data.test)[0].shape == (8, 3)


def test_a_timm_student_that_has_learnt_is_pretrained():
    net = timm.create_model('resnet10t', num_classes=3)
    net.pretrained_cfg = CFG
    net.train()(torch.rand(4, 3, 32, 32))
    Learner(net, some(), cbs=None)
    assert own_images(net).size == 32


def test_never_two_normalisations(pretrained):
    data, other = some(), some(OTHER)
    same_stats = some((CFG['mean'], CFG['std']), size=32)
    net = pretrained().eval()
    x = same_stats.test.normalise(same_stats.test.x)
    assert torch.equal(predict(net, same_stats.test)[0], bare(net)(x))  # the data's are its own: bit for bit
    for _ in range(2):
        taught = Distill(resnet(8, 3), net, 'kd')
        for d in (data, other, data):
            meet_data(taught, d)
            assert same(taught.teacher(d.test.normalise(d.test.x))[0], bare(net)(own(d)))
    prepared = Distill(resnet(8, 3), Frozen(net, prepare=lambda x: own(data)[:len(x)]), 'kd')
    Learner(prepared, data, cbs=None)
    assert same(prepared.teacher(data.test.normalise(data.test.x))[0], bare(net)(own(data)))


def test_one_teacher_for_two_data_sets_at_once(pretrained):
    data, other, teacher = some(), some(OTHER), pretrained()
    how = dict(cbs=None, lr=1e-3, amp='off')
    first, second = (Learner(Distill(resnet(8, 3), teacher, 'kd'), d, **how) for d in (data, other))
    seen = []
    ask = first.scheme.teacher.forward
    first.scheme.teacher.forward = lambda x: seen.append((x, ask(x)[0])) or ask(x)
    first.fit(1)
    meet_data(first.scheme, data)
    x, z = seen[-1]
    assert same(z, ask(x)[0]) and second.epoch == 0


def test_a_pretrained_run_teaches_on_data_of_another_normalisation_and_size(pretrained):
    data, other = some(), some(OTHER, size=24)
    Learner(pretrained(), data, run='teacher', cbs=None, lr=1e-3).fit(1)
    taught = Distill(resnet(8, 3), 'teacher', 'kd')
    Learner(taught, other, cbs=None)
    z = taught.teacher(other.test.normalise(other.test.x))[0]
    assert same(z, bare(taught.teacher.model)(own(other)))
    Learner(resnet(8, 3), data, run='plain', cbs=None, lr=1e-3).fit(1)
    with pytest.raises(ValueError, match='the teacher saw images of another size'):
        Learner(Distill(resnet(8, 3), 'plain', 'kd'), other, cbs=None)
    learnt = load_model('teacher', 'last').eval()  # a function of yours makes the images that its data gave
    frozen = Frozen(learnt, prepare=lambda x: data.test.normalise(data.test.x))
    frozen.meet(*OTHER)
    assert same(frozen(other.test.normalise(other.test.x))[0], bare(learnt)(own(data)))


def test_the_exported_module_converts_too(pretrained):
    data, net = some(), pretrained()
    Learner(net, data, cbs=None)
    x = data.test.normalise(data.test.x)
    net.eval().requires_grad_(False)
    for program in torch.export.export(net, (x,)).module(), torch.jit.trace(net, x), copy.deepcopy(net):
        assert same(program(x), bare(net)(own(data)))


def test_commands(pretrained, capsys, monkeypatch):
    words = '--data digits --size 8 --n-train 100 --bs 20 --epochs 1 --device cpu --amp off --lr .001'.split()
    assert kdnb_train([*words, '--student', 'timm/resnet10t', '--init', 'timm', '--run', 'tuned']) == 0
    assert 'own images' in capsys.readouterr().out
    kept = Run('tuned').json('config.json')['own_images']
    digits = load_data('digits', size=8, n_train=100, device='cpu')
    assert kept['size'] == 32 and kept['home'] == [list(digits.mean), list(digits.std)]
    assert kdnb_test(['tuned', '--json']) == 0
    said = json.loads(capsys.readouterr().out)
    assert said['last']['accuracy'] == pytest.approx(said['last']['recorded'], abs=1e-3)
    taught = '--student resnet8 --teacher tuned --method kd --run taught'.split()
    assert kdnb_train([*words, *taught]) == 0
    assert Run('taught').json('config.json')['prepare']['size'] == 32


def test_copies_and_models_on_another_device_keep_their_images():
    net = set_own_images(resnet(8), OwnImages(*STATS, 16)).to(torch.float64)
    assert own_images(net).scale.dtype == torch.float64
    with torch.device('meta'):
        there = resnet(8)
    assert set_own_images(there, OwnImages(*STATS, 16)).own_images.scale.is_meta
