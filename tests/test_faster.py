"""A frozen teacher is asked in the way that was measured to cost least; what it says stays the same up to rounding."""
import json

import pytest
import torch
from torch import nn

from kdnb.all import Distill, Learner, fit_together, load_data, resnet, sweep
from kdnb.cli import kdnb_distill
from kdnb.errors import WrongValue
from kdnb.schemes import Frozen
from kdnb.seeds import seeded
from kdnb.train import Callback, Run, faster

pytestmark = pytest.mark.usefixtures('quiet')
EPOCHS = 2

@pytest.fixture
def few(): return load_data('digits', size=8, n_train=100, bs=50, device='cpu')

@pytest.fixture
def teacher(few):
    with seeded(0): net = resnet(14)
    return Learner(net, few, run='teacher', cbs=None).fit(1)

@pytest.fixture(autouse=True)
def own_memory(monkeypatch, tmp_path):
    monkeypatch.setenv('KDNB_DATA', str(tmp_path))      # where the times are remembered
    monkeypatch.setattr(faster, '_few', 2)              # batches that are worth a trial
    return tmp_path/'teachers.json'

def choose(monkeypatch, way: str) -> None:
    monkeypatch.setattr(faster, 'cheapest_way', lambda times, batches: way)

def student(few, teacher, method='kd', **how) -> Learner:
    with seeded(1): net = resnet(8)
    return Learner(Distill(net, teacher, method, size=8), few, amp='off', cbs=None, **how)

def asked(run: str) -> str | None: return Run(run).json('config.json')['about'].get('teacher_asked')

def test_the_run_says_how_its_teacher_was_asked(few, teacher, monkeypatch):
    choose(monkeypatch, 'folded')
    fast = student(few, teacher, run='fast').fit(EPOCHS)
    exact = student(few, teacher, run='exact', exact=True).fit(EPOCHS)
    assert (asked('fast'), asked('exact')) == ('folded', None)
    losses = [[row['kd'] for row in learn.history] for learn in (fast, exact)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and losses[0] != losses[1]

def test_exact_is_what_it_was(few, teacher, monkeypatch):
    exact = student(few, teacher, run='exact', exact=True).fit(EPOCHS)
    monkeypatch.setattr(faster, '_few', 2_000)
    short = student(few, teacher, run='short').fit(EPOCHS)
    assert [row['kd'] for row in exact.history] == [row['kd'] for row in short.history]

def test_times_are_measured_once(few, teacher, own_memory, monkeypatch):
    tried = []
    measure = faster._time_way
    monkeypatch.setattr(faster, '_time_way', lambda frozen, way, *a: [tried.append(way), measure(frozen, way, *a)][1])
    for run in ('a', 'b'): student(few, teacher, run=run).fit(EPOCHS)
    assert tried == ['folded']                          # compiling would not pay in so few batches
    times, = json.loads(own_memory.read_text()).values()
    assert sorted(times) == ['as it is', 'folded'] and all(seconds > 0 for seconds, _ in times.values())

@pytest.mark.parametrize('text', ['', '[1]', '{"a": {"folded": 3}}', '{"a": ['])
def test_a_damaged_memory_is_as_good_as_none(few, teacher, own_memory, text):
    own_memory.write_text(text)
    student(few, teacher, run='a').fit(EPOCHS)
    assert len(json.loads(own_memory.read_text())) == 1

def test_a_folder_that_cannot_be_written_stops_nothing(few, teacher, own_memory):
    own_memory.mkdir()
    assert student(few, teacher, run='a').fit(EPOCHS).result

class Interrupt(Callback):
    """Ctrl-C after the first epoch."""
    def after_epoch(self, learn): raise KeyboardInterrupt

def test_a_run_goes_on_as_it_began(few, teacher, monkeypatch):
    choose(monkeypatch, 'folded')
    whole = student(few, teacher, run='whole').fit(EPOCHS)
    with seeded(1): net = resnet(8)
    half = Learner(Distill(net, teacher, 'kd', size=8), few, amp='off', run='half', cbs=[Interrupt()])
    with pytest.raises(KeyboardInterrupt): half.fit(EPOCHS)
    choose(monkeypatch, 'as it is')
    on = student(few, teacher, run='half').fit(EPOCHS)
    assert asked('half') == 'folded' and [r['kd'] for r in on.history] == [r['kd'] for r in whole.history]

def test_students_together_share_a_quick_teacher(few, teacher, monkeypatch):
    choose(monkeypatch, 'folded')
    together = [student(few, teacher, m, run=m) for m in ('kd', 'dkd')]
    fit_together(together, EPOCHS, cbs=None)
    assert [asked(m) for m in ('kd', 'dkd')] == ['folded']*2
    alone = student(few, teacher, run='by itself').fit(EPOCHS)
    assert [r['kd'] for r in together[0].history] == pytest.approx([r['kd'] for r in alone.history], rel=1e-4)

def test_a_teacher_of_one_in_a_group(few, teacher, monkeypatch):
    choose(monkeypatch, 'folded')
    with seeded(1): net = resnet(8)
    alone = Learner(net, few, amp='off', cbs=None, run='alone')
    fit_together([student(few, teacher, run='kd'), alone], EPOCHS, cbs=None)
    assert (asked('kd'), asked('alone')) == ('folded', None)

class Odd(nn.Module):
    """A net whose path depends on its images, so that it cannot be traced."""
    def __init__(self):
        super().__init__()
        self.net = resnet(8)
    def forward(self, x): return self.net(x) if x.sum() > -1e9 else self.net(-x)

def test_a_net_that_cannot_be_folded_is_asked_as_it_is(few, monkeypatch, capsys):
    choose(monkeypatch, 'folded')
    with seeded(0): odd = Odd()
    student(few, odd, run='odd').fit(EPOCHS)
    assert asked('odd') == 'as it is' and 'the teacher is not folded: Odd cannot be traced' in capsys.readouterr().out

def test_answers_that_differ_are_not_taken(few, teacher):
    frozen = Frozen(teacher, ['stages.1.1.conv2'])
    assert faster._try_way(frozen, 'folded', few.examples(50)[0], torch.no_grad) is None

def test_other_places_are_asked_anew(few, teacher):
    frozen, x = Frozen(teacher), few.examples(50)[0]
    frozen.ask_by(faster.another_way(frozen, 'folded'), x.shape)
    assert frozen.asked and len(frozen(x)[1]) == 0
    frozen.tap(frozen.model, ['stages.1.1.add'])
    assert frozen.asked is None and len(frozen(x)[1]) == 1

def test_it_is_an_option(few, teacher, monkeypatch):
    choose(monkeypatch, 'folded')
    words = '--data digits --size 8 --n-train 100 --student resnet8 --teacher teacher --epochs 1 --quiet'
    for run, more in dict(a='', b='--exact').items():
        assert kdnb_distill(f'{words} --run {run} {more}'.split()) == 0
    assert (asked('a'), asked('b')) == ('folded', None)
    runs = sweep('resnet8', 'teacher', epochs=EPOCHS, seeds=1, data=few, exact=True)
    assert [asked(row['run']) for row in runs] == [None]*2
    with pytest.raises(WrongValue, match='exact is True or False'): student(few, teacher, exact='yes')
