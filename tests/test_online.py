"Students that teach each other: who is chosen, what is saved, and that an interrupted run ends as if it had not been."

import json
import math

import pytest
import torch

import kdnb.train.loop
import kdnb.train.scoring
from kdnb.cli import kdnb_test, kdnb_train
from kdnb.data import load_data
from kdnb.files import run_path
from kdnb.measure import accuracy, predict
from kdnb.models import cheapnet, create_model, load_model, resnet, weights_hash
from kdnb.schemes import Distill, Online
from kdnb.seeds import seeded
from kdnb.train import Callback, Learner, Run, has_fast_bf16, read_history

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('quiet')]


def some(m, seed=0, unequal=False):
    with seeded(seed):
        return [
            cheapnet(8, 'dw') if unequal and j == 1 else resnet(8, width=1 + (unequal and j == 2)) for j in range(m)]


def learner(data, run=None, m=3, seed=0, unequal=True, teacher='joint', **options):
    with seeded(seed):
        scheme = Online(some(m, seed, unequal), size=8, teacher=teacher)
    return Learner(scheme, data, run=run, **options)


def whole(learn):
    rows = [{k: v for k, v in r.items() if k not in ('seconds', 'images_per_second')} for r in learn.history]
    return (
        [weights_hash(m) for m in learn.students],
        weights_hash(learn.scheme),
        weights_hash(learn.student),
        rows,
        learn.result)


class At(Callback):
    def __init__(self, step, error):
        self.step, self.error, self.done = step, error, 0

    def after_batch(self, learn):
        self.done += 1
        if self.done == self.step: raise self.error


class Stop(Exception): "Neither Ctrl-C nor an error of ours."


@pytest.mark.parametrize('m', [2, 3, 5])
@pytest.mark.parametrize('teacher', ['joint', 'peers'])
def test_any_number_and_the_best_on_valid_is_the_student(data, tmp_path, m, teacher):
    learn = learner(data, tmp_path / 'run', m, teacher=teacher).fit(3)
    names = [f'student_{j}' for j in range(1, m + 1)]
    for row in read_history(Run(tmp_path / 'run')):
        assert (
            row['valid_acc'] == max(row[f'{n}_acc'] for n in names)
            and ('joint_acc' in row) == (teacher == 'joint')
            and 'mean_acc' in row)
    row, result = learn.history[-1], json.loads((tmp_path / 'run' / 'result.json').read_text())
    first = max(names, key=lambda n: row[f'{n}_acc'])
    assert result['last']['student'] == first and learn.student is learn.students[names.index(first)]
    assert result['last']['test_acc'] == result['last'][f'{first}_acc'] == learn.validate('test')[first]
    best = max(learn.history, key=lambda r: r['valid_acc'])
    assert (result['best']['epoch'], result['best']['valid_acc'], result['best']['student']) == (
        best['epoch'],
        best['valid_acc'],
        max(names, key=lambda n: best[f'{n}_acc']))
    for which in ('last', 'best'):  # bare, and the very one that the result speaks of
        kept = load_model(tmp_path / 'run', which)
        assert accuracy(*predict(kept, data.test)) == pytest.approx(result[which]['test_acc'], abs=1e-3)
        assert list(kept.state_dict()) == list(learn.students[names.index(result[which]['student'])].state_dict())


def test_the_choice_is_made_on_valid_and_never_on_test(data, monkeypatch):
    learn = learner(data)

    def scores(split):
        return (
            dict(student_1=1.0, student_2=2.0, student_3=0.0, joint=9.0, mean=9.0)
            if split == 'valid'
            else dict(student_1=50.0, student_2=40.0, student_3=99.0, joint=9.0, mean=9.0))

    monkeypatch.setattr(learn, 'validate', scores)
    learn.fit(2)
    assert (
        learn.result['last']['student'] == 'student_2'
        and learn.result['last']['test_acc'] == 40.0
        and learn.best == dict(epoch=1, valid_acc=2.0, student='student_2'))


def test_without_valid_images_nobody_chooses(tmp_path):
    papers = load_data('digits', size=8, valid=0, n_train=100, bs=20, device='cpu')
    learn = learner(papers, tmp_path / 'run').fit(3)
    assert (
        learn.student is learn.students[0]
        and learn.result['last']['student'] == 'student_1'
        and list(learn.result) == ['last', 'best_on_test'])
    assert all(r['test_acc'] == r['student_1_acc'] for r in learn.history)


@pytest.mark.parametrize('step', [1, 5, 6, 8, 13])
@pytest.mark.parametrize('error', [KeyboardInterrupt, Stop])
def test_a_run_that_stopped_ends_as_if_it_had_not(data, tmp_path, step, error):
    "Students of three kinds, so that a wrong one among them would not fit."
    never, run = whole(learner(data).fit(3)), tmp_path / 'run'
    broken = learner(data, run, cbs=[At(step, error)])
    with pytest.raises(error):
        broken.fit(3)
    again = learner(data, run, seed=7 if step > 5 else 0).fit(
        3
    )  # another initialisation: after the first epoch all weights come from the run
    assert whole(again) == never and whole(broken.fit(3))[:3] == never[:3]
    assert whole(learner(data, run, seed=8).fit(3)) == never  # and a finished one is loaded, the choice with it


@pytest.mark.parametrize('call', [1, 2, 3, 4, 5])
def test_ctrl_c_while_scoring(data, tmp_path, monkeypatch, call):
    calls, run = [0], tmp_path / 'run'

    def scored(*a):
        calls[0] += 1
        if calls[0] == call: raise KeyboardInterrupt
        return predict(*a)

    monkeypatch.setattr(kdnb.train.scoring, 'predict', scored)
    monkeypatch.setattr(kdnb.train.loop, 'predict', scored)
    broken = learner(data, run)
    with pytest.raises(KeyboardInterrupt):
        broken.fit(3)
    never = whole(learner(data).fit(3))
    assert whole(broken.fit(3)) == never and whole(learner(data, run).fit(3)) == never


def test_another_choice_is_another_run(data, tmp_path):
    learner(data, tmp_path / 'run').fit(1)
    for change in (dict(m=2), dict(teacher='peers'), dict(unequal=False)):
        with pytest.raises(ValueError, match='was run differently'):
            learner(data, tmp_path / 'run', **change).fit(1)
    config = Run(tmp_path / 'run').json('config.json')
    assert (
        [d['builder'] for d in config['students']] == ['resnet', 'cheapnet', 'resnet']
        and config['scheme'] == 'Online'
        and 'init' not in config)
    with seeded(0):
        other = Online(some(3, 0, True), size=8, weight=0.5)
    with pytest.raises(ValueError, match='the weight is 0.1, you ask for 0.5'):
        Learner(other, data, run=tmp_path / 'run').fit(1)


def test_the_first_begins_like_the_one_alone(data):
    with seeded(4):
        alone = resnet(8)
    assert weights_hash(learner(data, seed=4, unequal=False).students[0]) == weights_hash(alone)


def test_the_chosen_one_teaches(data, tmp_path):
    learn = learner(data, tmp_path / 'run').fit(1)
    taught = Distill(resnet(8), tmp_path / 'run', 'kd', size=8)
    assert (
        weights_hash(taught.teacher.model)
        == weights_hash(learn.student)
        == weights_hash(Distill(resnet(8), learn, 'kd', size=8).teacher.model))


def test_scores_are_those_of_each_by_itself(data):
    learn = learner(data).fit(1)
    each = {k: accuracy(*predict(m, data.test)) for k, m in learn.scheme.models_to_score().items()}
    assert learn.validate('test') == pytest.approx(
        each, abs=0.15
    )  # one image of 719, where two classes are a hair apart
    assert list(each) == ['student_1', 'student_2', 'student_3', 'joint', 'mean']


def test_bf16_and_the_losses(data):
    learn = learner(data, amp='bf16' if has_fast_bf16(torch.device('cpu')) else 'off').fit(1)
    assert all(math.isfinite(v) for v in learn.history[0].values())
    assert {'joint_ce', 'ce_1', 'kd_1', 'ce_3', 'kd_3'} <= set(learn.history[0])


# --- commands

SMALL = '--data digits --size 8 --n-train 100 --bs 20 --student resnet8 --device cpu --epochs 2'.split()


def test_the_command_is_the_notebook(data, tmp_path, capsys):
    assert kdnb_train([*SMALL, '--method', 'online(students=3, T=3)', '--seed', '1']) == 0
    out, name = capsys.readouterr().out, 'digits-resnet8-online-students-3-T-3-1'
    assert '3 students that teach each other' in out and 'student_3 ' in out and 'joint ' in out
    with seeded(1):
        scheme = Online([create_model('resnet8', 10) for _ in range(3)], T=3, size=8)
    learn = Learner(scheme, data, seed=1).fit(2)
    assert (
        weights_hash(load_model(name, 'last')) == weights_hash(learn.student)
        and Run(name).json('result.json') == learn.result)
    assert kdnb_test([name, '--device', 'cpu']) == 0 and capsys.readouterr().out.count('recorded') == 2


def test_fine_tuning_is_neither_test_nor_resume(tmp_path, capsys):
    assert kdnb_train([*SMALL, '--run', 'first']) == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / 'runs' / 'first').iterdir()}
    assert (
        kdnb_train([*SMALL, '--run', 'first']) == 0 and 'finished, loaded' in capsys.readouterr().out
    )  # resume: nothing left to do
    assert kdnb_test(['first', '--device', 'cpu']) == 0  # test: nothing is written
    assert {p.name: p.read_bytes() for p in (tmp_path / 'runs' / 'first').iterdir()} == before
    assert kdnb_train([*SMALL, '--init', 'first', '--run', 'tuned']) == 0  # fine-tune: another run, from epoch 1
    config, first = Run('tuned').json('config.json'), load_model('first', 'best')
    assert config['init'] == config['about']['init'] == weights_hash(first) and config['about']['init_from'].endswith(
        'first/best.pt')
    assert [(r['epoch'], r['lr']) for r in read_history(Run('tuned'))] == [
        (r['epoch'], r['lr']) for r in read_history(Run('first'))]
    assert (
        kdnb_train([*SMALL, '--init', 'first', '--run', 'tuned']) == 0 and 'finished, loaded' in capsys.readouterr().out
    )  # which itself is resumed
    assert kdnb_train([*SMALL, '--run', 'tuned']) == 1 and 'initial weights is not the same' in capsys.readouterr().err
    assert (
        kdnb_train([*SMALL, '--init', str(tmp_path / 'runs' / 'first' / 'last.pt')]) == 0
    )  # a file; the run has a name of its own
    assert any('-from-' in p.name for p in (tmp_path / 'runs').iterdir())


@pytest.mark.parametrize(
    'words,says',
    [
        (['--method', 'online(students=1)'], 'two students or more'),
        (['--method', 'online(t=4)'], "has no option 't'"),
        (['--method', 'online', '--teacher', 'x'], 'leave --teacher'),
        (['--method', 'online', '--weights', 'crd'], 'leave --teacher and --weights out'),
        (['--method', 'online', '--init', 'x'], 'leave --init and --shrink out'),
        (['--method', 'online', '--shrink', 'x'], 'both name the student'),
        (['--method', 'online(T=0)'], 'a number above 0'),
        (['--method', "online(teacher='join')"], 'did you mean joint'),
        (['--init', 'nobody'], 'no run folder'),
        (['--init', 'torchvision'], "go with a name 'torchvision/...'")])
def test_mistakes(capsys, words, says):
    assert kdnb_train([*SMALL, *words, '--run', 'never']) == 1
    err = capsys.readouterr().err
    assert says in err and err.count('\n') == 1 and not run_path('never').exists()
