"Runs that go on elsewhere, are stopped or made longer; columns of callbacks; what tables say of held-out images."
import json

import numpy as np
import pytest
import torch
from torch import nn

from kdnb.all import (
    AT,
    KD,
    Callback,
    Data,
    Distill,
    Learner,
    Online,
    Run,
    Term,
    fit_together,
    load_data,
    load_results,
    read_history,
    resnet,
    seeded,
    stamp,
    sweep_commands,
    weigh,
)
from kdnb.cli import kdnb_sweep
from kdnb.experiments.rows import read_row
from kdnb.methods import parse_method

@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv('KDNB_RUNS', str(tmp_path))
    return tmp_path


@pytest.fixture(scope='module')
def data():
    return load_data('digits', size=8, n_train=60, bs=20, device='cpu')


def learner(data, run=None, cbs=None, **options):
    with seeded(0):
        return Learner(resnet(8), data, run=run, cbs=cbs, **options)


class After(Callback):
    "Do something after an epoch."
    def __init__(self, do):
        self.do = do

    def after_epoch(self, learn):
        self.do(learn)


def interrupt(learn):
    if learn.epoch == 1:
        raise KeyboardInterrupt


def interrupted(data, run):
    with pytest.raises(KeyboardInterrupt):
        learner(data, run, [After(interrupt)]).fit(2)


# --- going on elsewhere

def test_a_run_that_goes_on_with_other_threads_says_so(data):
    interrupted(data, 'moved')
    threads = torch.get_num_threads()
    said = f"run 'moved' goes on with device CPU, {threads + 1} threads .before: CPU, {threads}"
    torch.set_num_threads(threads + 1)
    try:
        with pytest.warns(UserWarning, match=said):
            learner(data, 'moved').fit(2)
    finally:
        torch.set_num_threads(threads)
    went, = Run('moved').json('config.json')['about']['went_on']
    assert went['after'] == 1 and went['device'] == f'CPU, {threads + 1} threads' and 'torch' not in went
    assert f'CPU, {threads} threads then CPU, {threads + 1} threads' in stamp('moved')
    learner(data, 'as-before').fit(2)
    table = load_results(['moved', 'as-before']).table().text()
    assert f'moved went on after epoch 1 with device CPU, {threads + 1} threads' in table


def test_other_versions_and_processes_are_noted_once(data, recwarn):
    interrupted(data, 'old')
    config = Run('old').json('config.json')
    config['about'] |= dict(torch='2.0', processes=2)
    Run('old').save_json('config.json', config)
    learner(data, 'old').fit(2)
    assert 'torch' in str(recwarn.pop(UserWarning).message)
    went, = Run('old').json('config.json')['about']['went_on']
    assert went['processes'] == 1 and went['torch'] == torch.__version__
    learner(data, 'old').fit(2)
    assert len(Run('old').json('config.json')['about']['went_on']) == 1


def test_another_machine_and_precision_are_noted(data, recwarn):
    interrupted(data, 'old')
    config = Run('old').json('config.json')
    assert config['about']['compiled'] is False
    config['about'] |= dict(machine='Darwin arm64, DEFAULT', float32_products='medium', compiled=True)
    Run('old').save_json('config.json', config)
    learner(data, 'old').fit(2)
    told = str(recwarn.pop(UserWarning).message)
    assert '(before: Darwin arm64, DEFAULT)' in told and 'float32_products highest (before: medium)' in told
    went, = Run('old').json('config.json')['about']['went_on']
    assert went['machine'] != 'Darwin arm64, DEFAULT' and went['float32_products'] == 'highest' and not went['compiled']


def test_another_number_format_is_refused(data):
    "amp='auto' means bfloat16 on one machine and float32 on another."
    interrupted(data, 'old')
    config = Run('old').json('config.json')
    Run('old').save_json('config.json', config | dict(about=config['about'] | dict(dtype='float16')))
    with pytest.raises(ValueError, match="run 'old' was begun in float16 and would go on in .*: say amp= as there"):
        learner(data, 'old').fit(2)
    assert len(read_history(Run('old'))) == 1


def test_what_runs_of_before_did_not_record_is_no_change(data, recwarn):
    interrupted(data, 'old')
    config = Run('old').json('config.json')
    for name in 'machine', 'float32_products', 'compiled': del config['about'][name]
    Run('old').save_json('config.json', config)
    learner(data, 'old').fit(2)
    assert not recwarn.list and 'went_on' not in Run('old').json('config.json')['about']


def test_nothing_is_said_where_nothing_changed(data, recwarn):
    interrupted(data, 'same')
    learner(data, 'same').fit(2)
    assert not recwarn.list and 'went_on' not in Run('same').json('config.json')['about']


# --- columns, stop, length

def test_a_column_of_a_callback_is_on_disk_for_every_epoch(data):
    def add(learn):
        learn.history[-1]['mine'] = torch.tensor(2.5)
        learn.log('gap', np.float32(learn.epoch))
    learn = learner(data, 'columns', [After(add)]).fit(2)
    rows = read_history(learn.run)
    assert rows == learn.history and [(r['mine'], r['gap']) for r in rows] == [(2.5, 1), (2.5, 2)]
    again = learner(data, 'columns').fit(2)
    assert again.history == rows


def test_a_column_that_is_no_number_is_refused(data):
    with pytest.raises(TypeError, match='a column of the history holds numbers or text'):
        learner(data, cbs=[After(lambda learn: learn.log('mine', {1, 2}))]).fit(1)
    with pytest.raises(ValueError, match="'lr'"):
        learner(data).log('lr', 1)


def test_stop_ends_a_run_with_a_result(data):
    stop = After(lambda learn: learn.stop() if learn.epoch == 1 else None)
    learn = learner(data, 'stopped', [stop]).fit(3)
    assert learn.result['last']['epoch'] == 1 and learn.result['last']['test_acc'] == learn.validate('test')['student']
    again = learner(data, 'stopped').fit(3)
    assert again.result == learn.result and again.epoch == 1
    row = read_row(Run('stopped'))
    assert row['stopped'] == 1 and row['images'] == 60 and 'REDUCED: 1 of 240 epochs' in row['reduced']
    assert 'stopped was stopped after 1 of 3 epochs' in load_results('stopped').table().text()


def test_stop_ends_one_of_a_group(data):
    stop = After(lambda learn: learn.stop() if learn.epoch == 1 else None)
    one, two = fit_together([learner(data, 'one', [stop]), learner(data, 'two', [])], 2, cbs=None)
    assert (one.epoch, two.epoch) == (1, 2) and one.result and two.result


def test_epochs_are_not_set(data):
    def more(learn):
        learn.epochs = 9
    with pytest.raises(ValueError, match=r'learn.stop\(\) ends a run'):
        learner(data, cbs=[After(more)]).fit(1)


def test_fit_goes_on_in_memory(data):
    learn, whole = learner(data).fit(1), learner(data).fit(3)
    learn.fit(np.int64(3))
    assert [r['epoch'] for r in learn.history] == [1, 2, 3] and learn.result['last']['epoch'] == 3
    assert [r['lr'] for r in learn.history] == [r['lr'] for r in whole.history]
    assert learn.history[0]['loss'] == whole.history[0]['loss']
    assert learn.fit(3).history == learn.history
    with pytest.raises(ValueError, match='it was trained for 3 epochs, you ask for 2'):
        learn.fit(2)


def test_numbers_are_numbers():
    few = load_data('digits', size=np.int64(8), n_train=torch.tensor(60), bs=np.int32(20), valid=np.float32(.125),
                    split_seed=np.int64(0), device='cpu')
    learn = Learner(resnet(8), few, lr=np.float32(.5), seed=torch.tensor(1), cbs=None).fit(torch.tensor(1))
    config = learn.run.json('config.json')
    assert (config['optimiser']['lr'], config['seed'], config['epochs'], config['data']['bs']) == (.5, 1, 1, 20)
    assert few.examples(np.int64(3))[0].shape[0] == 3


def test_weighing_leaves_everything_as_it_was():
    class Dropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.drop = resnet(8), nn.Dropout(.5)

        def forward(self, x):
            return self.drop(self.net(x))
    student = Dropping()
    scheme = Distill(student, resnet(8), 'kd').train()
    student.net.eval()
    batch = torch.rand(4, 3, 8, 8), torch.arange(4)
    before, modes = torch.get_rng_state(), [m.training for m in scheme.modules()]
    weigh(scheme, batch)
    assert torch.equal(torch.get_rng_state(), before) and [m.training for m in scheme.modules()] == modes


def test_images_seen_are_without_those_that_ranks_left_out(data):
    learner(data, 'ranks').fit(2)
    config = Run('ranks').json('config.json')
    config['data'] |= dict(n_train=45)                     # batches of 20, 20, 5
    Run('ranks').save_json('config.json', config)
    assert read_row(Run('ranks'))['images'] == 90
    config['about']['processes'] = 2                       # one of the 5 has no partner
    Run('ranks').save_json('config.json', config)
    assert read_row(Run('ranks'))['images'] == 88
    config['about']['went_on'] = [dict(after=1, processes=1)]
    Run('ranks').save_json('config.json', config)
    assert read_row(Run('ranks'))['images'] == 89


# --- methods that do nothing

@pytest.mark.parametrize('make', [
    lambda: AT(1, taps=[]), lambda: AT(1, taps={}), lambda: AT(1, taps=''), lambda: KD(None),
    lambda: parse_method([]), lambda: parse_method('kd(weight=None)'), lambda: parse_method('at(taps=[])'),
    lambda: Distill(resnet(8), resnet(8), []), lambda: Distill(resnet(8), resnet(8), Term(nn.MSELoss(), taps=()))])
def test_a_method_that_does_nothing_is_refused(make):
    with pytest.raises(ValueError):
        make()


def test_a_weight_that_becomes_none_is_refused(data):
    scheme = Distill(resnet(8), resnet(8), KD(lambda epoch, epochs: None))
    with pytest.raises(ValueError, match='the weight of kd in epoch 1 of'):
        Learner(scheme, data, cbs=None).fit(1)


# --- constants that were measured

def own(n, **options):
    x = np.random.RandomState(0).randint(0, 255, (200, 3, 8, 8)).astype(np.uint8)
    y = np.arange(200) % 10
    return Data((x[:n], y[:n]), None, (x, y), range(10), bs=20, device='cpu', augment=None, **options)


def test_a_teacher_of_all_images_teaches_a_student_of_some():
    teacher = learner(own(200), 'teacher').fit(1)
    for given in teacher, 'teacher':
        Learner(Distill(resnet(8), given, 'kd'), own(40), cbs=None)
    stated = own(40, stats=((.45, .45, .45), (.3, .3, .3)))
    with pytest.raises(ValueError, match='images of another mean'):
        Learner(Distill(resnet(8), teacher, 'kd'), stated, cbs=None)


def test_constants_are_compared_with_a_tolerance(data):
    learner(data, 'measured').fit(1)
    config = Run('measured').json('config.json')
    config['data']['mean'] = [m + 1e-4 for m in config['data']['mean']]
    Run('measured').save_json('config.json', config)
    assert learner(data, 'measured').fit(1).result
    config['data']['mean'] = [m + .01 for m in config['data']['mean']]
    Run('measured').save_json('config.json', config)
    with pytest.raises(ValueError, match="the data's mean"):
        learner(data, 'measured').fit(1)


# --- what tables say

def test_tables_and_stamps_say_what_is_held_out_and_the_format(data):
    learner(data, 'held', amp='off').fit(1)
    learner(load_data('digits', size=8, valid=0, n_train=60, bs=20, device='cpu'), 'whole', amp='bf16').fit(1)
    assert '10 % held out' in stamp('held') and 'float32' in stamp('held')
    assert 'none held out' in stamp('whole') and 'bfloat16' in stamp('whole')
    held, whole = (load_results(run).table().text() for run in ('held', 'whole'))
    assert '60 training images, 10 % held out' in held and 'the sources trained in float32' not in held
    assert '60 training images, none held out' in whole
    assert 'number format bfloat16: the sources trained in float32' in whole


def test_presets_say_what_is_held_out(capsys):
    assert kdnb_sweep(['crd', '--dry-run', '--valid', '0', '--json']) == 0
    said = capsys.readouterr()
    assert 'held out: nothing, as in papers (--valid 0)' in said.err
    commands = json.loads(said.out)['commands']
    assert all('--valid' in words and 'valid0' in words[-1] for words in commands)
    assert kdnb_sweep(['crd', '--dry-run']) == 0
    assert 'papers hold out nothing (--valid 0)' in capsys.readouterr().out
    assert sweep_commands('crd', valid=0) == [[w for w in words] for words in commands]


def test_online_and_its_columns_are_as_before(data):
    learn = Learner(Online([resnet(8), resnet(8)], size=8), data, cbs=None).fit(1)
    assert read_history(learn.run) == learn.history
