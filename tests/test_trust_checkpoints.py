"""Well-formed checkpoints with wrong contents, and files that grow when they are read: one sentence, bounded memory."""

import resource
import time
import zipfile

import pytest
import torch

from kdnb.errors import Mistake
from kdnb.models import create_model, load_model, read_weights, resnet, save_model
from kdnb.schemes import Distill
from kdnb.train import Learner

pytestmark = pytest.mark.usefixtures('quiet')


@pytest.fixture
def file(tmp_path):
    save_model(resnet(8), tmp_path / 'm.pt')
    return tmp_path / 'm.pt'


def bounded(fn):
    "What is raised, in words; neither half a gigabyte nor ten seconds are taken."
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Mistake) as e: fn()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000
    assert time.process_time() - start < 10 and '\n' not in str(e.value) and len(str(e.value)) < 1500
    return str(e.value)


CALLS = [dict(width=10**9), dict(width=4000), dict(depth=6 * 10**6 + 2), dict(num_classes=10**10), dict(width=-1),
         dict(depth='8'), dict(width=None), dict(stem=[]), dict(builder='wrn', depth=16), dict(odd=3), dict(builder=3),
         dict(builder=['resnet']),
         dict(builder='timm', name=3), dict(builder='torchvision', name='resnet18', num_classes=10**11),
         dict(builder='import', name=7)]


@pytest.mark.parametrize('odd', CALLS, ids=str)
def test_calls_that_no_machine_can_build(file, odd):
    saved = torch.load(file, weights_only=True)
    call = saved['call'] | odd
    if 'builder' in odd:
        call = dict(num_classes=10) | odd
    torch.save(saved | dict(call=call), file)
    bounded(lambda: load_model(file))


@pytest.mark.parametrize('odd', [
    dict(call=3), dict(call=[]), dict(call={}), dict(state={}), dict(state={'a': 3}), dict(state={3: torch.ones(1)}),
    dict(own_images=3), dict(own_images={'mean': 1}), dict(own_images=dict(mean=[0] * 3, std=[1] * 3, size=9, home=3)),
    dict(call=None)], ids=str)
def test_records_with_odd_entries(file, odd):
    saved = torch.load(file, weights_only=True)
    torch.save(saved | odd, file)
    bounded(lambda: load_model(file))


def test_tensors_of_other_kinds(file):
    saved = torch.load(file, weights_only=True)
    key = next(iter(saved['state']))
    tensors = torch.ones(1).expand(10**6, 10**6), saved['state'][key].to_sparse(), torch.empty(3, device='meta')
    for odd in *tensors, 'text', None:
        torch.save(saved | dict(state=saved['state'] | {key: odd}), file)
        bounded(lambda: load_model(file))


def test_a_deflated_gigabyte(file, tmp_path):
    with zipfile.ZipFile(tmp_path / 'bomb.pt', 'w', zipfile.ZIP_DEFLATED) as bomb, zipfile.ZipFile(file) as good:
        for name in good.namelist(): bomb.writestr(name, good.read(name))
        with bomb.open('m/data/bomb', 'w', force_zip64=True) as f:
            for _ in range(1024): f.write(bytes(2**20))
    assert 'unpacks to' in bounded(lambda: read_weights(tmp_path / 'bomb.pt'))
    with pytest.raises(OSError): create_model('resnet8', 10, weights=tmp_path / 'bomb.pt')


def test_a_checkpoint_to_go_on_from(data):
    teacher = resnet(8)
    run = Learner(Distill(resnet(8), teacher, 'kd'), data, run='half', cbs=None).fit(2).run.path
    (run / 'result.json').unlink()
    saved = torch.load(run / 'last.pt', weights_only=True)
    first = (run / 'history.jsonl').read_text().splitlines(keepends=True)[0]
    train = saved['train'] | dict(epoch=1, history=first, best=dict(epoch=1, valid_acc=1.))
    odd = [dict(epoch=v) for v in (-1, 0, 3, 10**9, '1', None, 1.0, True)]
    odd += [dict(best=v) for v in ({}, 3, [], {'epoch': 5})]
    odd += [dict(history=v) for v in (3, '', '[' * 10**4, 'x', [3], [{}], {}, saved['train']['history'])]
    end = saved['train']['history'] | dict(at=0)
    odd += [dict(history=end | dict(at=v)) for v in (-1, 10**12, None, 'x')] + [dict(history=end | dict(last=3))]
    odd += [dict(opt={}), dict(opt=3), dict(sched=3), dict(rest=3)]
    odd += [dict(opt=train['opt'] | dict(state={0: 3}))]
    cases = [saved | dict(train=train | v) for v in odd] + [saved | dict(train=v) for v in (3, {}, [])]
    cases += [{k: v for k, v in saved.items() if k != 'state'}, [], 3]
    for case in cases:
        torch.save(case, run / 'last.pt')
        bounded(lambda: Learner(Distill(resnet(8), teacher, 'kd'), data, run='half', cbs=None).fit(2))
