"""JointRD: what the notebook cannot show: runs that stop and go on, two processes, compiled, half precision,
torchvision's teachers, and the tails and folded models that it stands on."""

import copy
import json
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torchvision.models as tvm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kdnb.models import create_model, list_models, load_model, plainnet, resnet, weights_hash
from kdnb.schemes import Alone, JointRD
from kdnb.seeds import seeded
from kdnb.taps import ModelTrace, Tapped, dry_run, find_cuts, find_taps, fuse, main_path, tail
from kdnb.train import Callback, Learner, make_optimiser, pick_recipe

ROOT, RANKS = Path(__file__).resolve().parent.parent, 2
KINDS = dict(frozen={}, together=dict(train_teacher=True), released=dict(as_released=True), labels=dict(weight=0))

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('quiet')]


def joint(kind='frozen', init=0, student=8, **options):
    with seeded(5):
        teacher = resnet(8)
    with seeded(init):
        if kind == 'together':
            teacher = resnet(8)
        return JointRD(plainnet(student, dirac=options.pop('dirac', False)), teacher, size=8, **KINDS[kind], **options)


def whole(learn):
    rows = [{k: v for k, v in r.items() if k not in ('seconds', 'images_per_second')} for r in learn.history]
    return weights_hash(learn.student), weights_hash(learn.scheme), rows, learn.result


# --- runs


class Stop(Callback):
    "Ctrl-C in a step."

    def __init__(self, step):
        self.left = step

    def after_batch(self, learn):
        self.left -= 1
        if self.left == 0: raise KeyboardInterrupt


@pytest.mark.parametrize('kind', KINDS)
def test_an_interrupted_run_ends_as_if_it_had_not_been(data, tmp_path, kind):
    never = Learner(joint(kind), data).fit(3)
    with pytest.raises(KeyboardInterrupt):
        Learner(joint(kind), data, run=tmp_path / 'run', cbs=[Stop(8)]).fit(3)
    assert whole(Learner(joint(kind, init=7), data, run=tmp_path / 'run').fit(3)) == whole(
        never
    )  # another process, other initial weights
    loaded = Learner(joint(kind, init=9), data, run=tmp_path / 'run').fit(3)
    assert whole(loaded) == whole(never)


def test_with_dirac_too(data, tmp_path):
    never = Learner(joint(dirac=True), data).fit(2)
    with pytest.raises(KeyboardInterrupt):
        Learner(joint(dirac=True), data, run=tmp_path / 'run', cbs=[Stop(7)]).fit(2)
    learn = Learner(joint(dirac=True, init=7), data, run=tmp_path / 'run').fit(2)
    assert whole(learn) == whole(never)
    assert weights_hash(load_model(tmp_path / 'run', 'last')) == weights_hash(learn.student)  # the file knows the call
    x = torch.randn(4, 3, 8, 8)
    assert torch.allclose(fuse(learn.student)(x), learn.student.eval()(x), atol=1e-4)


def test_config_json_tells_all(data, tmp_path):
    learn = Learner(joint(), data, run=tmp_path / 'run').fit(1)
    config = json.loads((tmp_path / 'run' / 'config.json').read_text())
    assert (
        config['scheme'] == 'JointRD'
        and config['method'] == 'jointrd(fade_to=0.5, ramp=60, weight=0.001)'
        and config['student']['builder'] == 'plainnet')
    assert config['teacher'] == weights_hash(learn.scheme.teacher.model) and config['pairs'][-1] == [
        'stages.2.0.add',
        'stages.2.0.add']
    for other in dict(fade_to=0.4), dict(weight=2e-3), dict(ramp=0.5), dict(as_released=True):
        with pytest.raises(ValueError, match='was run differently'):
            Learner(joint(**other), data, run=tmp_path / 'run').fit(1)
    with pytest.raises(ValueError, match='was run differently'):
        Learner(joint('together'), data, run=tmp_path / 'run').fit(1)
    assert {'ce', 'ofd', 'ce_1', 'ofd_1', 'ce_2', 'ofd_2', 'loss'} <= set(learn.history[0]) and learn.result['last'][
        'test_acc'
    ] == learn.validate('test')['student']


def test_nothing_of_the_teacher_is_kept_unless_it_learns(data, tmp_path):
    for kind, there in ('frozen', False), ('together', True):
        learn = Learner(joint(kind), data, run=tmp_path / kind)
        before = weights_hash(learn.scheme.teacher.model)
        learn.fit(1)
        saved = torch.load(tmp_path / kind / 'last.pt', weights_only=True)
        assert (
            any(k.startswith('teacher.') for k in saved['train']['rest'])
            == there
            == (weights_hash(learn.scheme.teacher.model) != before))
        assert not any('connector' in k or 'teacher' in k for k in saved['state'])


def test_two_groups_where_something_is_spared():
    groups = make_optimiser(Alone(plainnet(20, dirac=True)), pick_recipe('jointrd'), 10)[0].param_groups
    assert (
        [g['weight_decay'] for g in groups] == [5e-4, 0]
        and len(groups[1]['params']) == 2 * 18
        and all(p.ndim == 1 for p in groups[1]['params']))
    assert len(make_optimiser(Alone(plainnet(20)), pick_recipe('jointrd'), 10)[0].param_groups) == 1
    with_connectors = joint(dirac=True).param_groups(5e-4)
    assert sum(len(g['params']) for g in with_connectors) == len(list(joint(dirac=True).parameters()))


# --- other ways to run it


@pytest.mark.parametrize('kind', KINDS)
def test_half_precision_compiled_copied(kind):
    x, y = torch.randn(4, 3, 8, 8), torch.arange(4)
    d = joint(kind)
    losses = copy.deepcopy(d)(x, y)[0]
    with torch.autocast('cpu', torch.bfloat16):
        half = copy.deepcopy(d)(x, y)[0]
    compiled = torch.compile(copy.deepcopy(d), backend='eager')(x, y)[0]
    assert {v.dtype for v in half.values()} == {torch.float32}
    for k, v in losses.items():
        assert torch.equal(compiled[k], v) and half[k].item() == pytest.approx(v.item(), rel=0.1, abs=0.05)


def test_torchvisions_teacher_unedited():
    with seeded(0):
        teacher, student = tvm.resnet18(weights=None, num_classes=10), plainnet(18, stem='imagenet')
    d, x, y = JointRD(student, teacher, size=64), torch.randn(2, 3, 64, 64), torch.arange(2)
    assert [t for _, t in d.pairs] == ['layer1.1.add', 'layer2.1.add', 'layer3.1.add', 'layer4.1.add']
    state = copy.deepcopy(teacher.state_dict())
    losses = d(x, y)[0]
    for k in 1, 2, 3, 4:
        d.zero_grad()
        losses[f'ce_{k}' if k < 4 else 'ce'].backward(retain_graph=True)
        assert [any(p.grad is not None and p.grad.abs().sum() > 0 for p in s.parameters()) for s in student.stages] == [
            i < k for i in range(4)]
    assert all(p.grad is None for p in teacher.parameters()) and all(
        torch.equal(v, state[k]) for k, v in teacher.state_dict().items())


def child(where, r):
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{where}/meet', rank=r, world_size=RANKS, timeout=timedelta(seconds=60))
    g = torch.Generator().manual_seed(0)
    x, y = (v.chunk(RANKS)[r] for v in (torch.randn(16, 3, 8, 8, generator=g), torch.randint(10, (16,), generator=g)))
    hashes = {}
    for kind in KINDS:
        d = joint(kind)
        opt = torch.optim.SGD(d.param_groups(0), lr=0.01)
        model = DistributedDataParallel(d, broadcast_buffers=False)
        for _ in range(3):
            sum(model(x, y)[0].values()).backward()
            opt.step()
            opt.zero_grad()  # a parameter that never ran is an error in the second step
        hashes[kind] = weights_hash({k: v for k, v in d.named_parameters()})
    (Path(where) / f'{r}.json').write_text(json.dumps(hashes))
    dist.destroy_process_group()


def test_two_processes_train_alike(tmp_path):
    import house  # here, as the processes do not know the folder of the tests
    house.run_ranks(__file__, tmp_path, RANKS)
    a, b = (json.loads((tmp_path / f'{r}.json').read_text()) for r in range(RANKS))
    assert a == b and set(a) == set(KINDS)


# --- tails

WHOLE = dict(
    resnet20=lambda: resnet(20),
    plainnet20=lambda: plainnet(20),
    wrn_16_1=lambda: create_model('wrn_16_1'),
    vgg8=lambda: create_model('vgg8'),
    ours=lambda: create_model('mobilenetv2_0.5'),
    resnet18=lambda: tvm.resnet18(weights=None),
    densenet121=lambda: tvm.densenet121(weights=None),
    squeezenet=lambda: tvm.squeezenet1_1(weights=None),
    shufflenet=lambda: tvm.shufflenet_v2_x1_0(weights=None),
    efficientnet=lambda: tvm.efficientnet_b0(weights=None))


@pytest.mark.parametrize('name', WHOLE)
def test_every_cut_comes_back_and_nothing_else_is_one(name):
    with seeded(0):
        model, x = WHOLE[name]().eval(), torch.randn(2, 3, 64, 64)
    with dry_run(model):
        trace = ModelTrace(model)
    path = main_path(
        trace.graph, set(trace.graph.nodes)
    )  # sizes that are asked for before and used behind are skips too
    cuts = {trace.name[n] for n in find_cuts(path)}
    names = [trace.name[n] for n in path][1:]  # the first is the image
    whole = [n for n in names if n in cuts][:-1]
    for n in whole[:: max(1, len(whole) // 8)]:
        with torch.no_grad():
            z, read = Tapped(model, [n])(x)
        assert torch.equal(tail(model, n)(read[n]), z), n
    inside = [n for n in names if n not in cuts]
    for n in inside[:: max(1, len(inside) // 4)]:
        with pytest.raises(ValueError, match='is no cut of') as e:
            tail(model, n)
        assert str(e.value).split("cut at '")[1].rstrip("'") in cuts


def test_a_tail_compiles_as_one_graph():
    teacher = resnet(8).eval()
    end, f = tail(teacher, 'stages.0'), torch.randn(2, 16, 8, 8)
    assert torch.equal(torch.compile(end, backend='eager', fullgraph=True)(f), end(f))


# --- folded


@pytest.mark.parametrize(
    'name',
    [
        n
        for n in list_models()
        if n
        in (
            'resnet20',
            'wrn_16_1',
            'plainnet18',
            'reducenet20',
            'shufflenetv1',
            'shufflenetv2_0.5',
            'shufflev2',
            'mobilenetv2_0.5',
            'vgg8')]
    + ['plainnet50_dirac'])
def test_fused_says_the_same_under_the_same_names(name):
    with seeded(0):
        model, x = create_model(name), torch.randn(2, 3, 32, 32)
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                for v, low, high in (
                    (m.running_mean, -0.2, 0.2),
                    (m.running_var, 0.5, 2),
                    (m.weight, 0.5, 1.5),
                    (m.bias, -0.3, 0.1)):
                    nn.init.uniform_(v, low, high)
    fused = fuse(model)
    with torch.no_grad():
        z, zf = model.eval()(x), fused(x)
    assert ((z - zf).abs().max() / z.abs().max()).item() < 1e-4
    assert type(fused) is type(model) and [r.post for r in find_taps(fused)] == [r.post for r in find_taps(model)]


if __name__ == '__main__':
    child(sys.argv[1], int(sys.argv[2]))


def test_a_place_is_a_name():
    with pytest.raises(
        TypeError, match=r"a place is a name, such as 'stages.2.0.act2' \(find_taps shows them\), not 1"):
        tail(resnet(8), 1)
