"""The step: nothing in it waits for the device, compiled it is compiled a few times only, and several learners share it
without noticing."""

import functools
import sys
import warnings

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from kdnb.data import load_data
from kdnb.methods import KD, Term
from kdnb.models import plainnet, resnet
from kdnb.schemes import Alone, Distill, JointRD, Online, weigh
from kdnb.seeds import seeded
from kdnb.train import (
    Callback,
    Diverged,
    Learner,
    Run,
    SomeFailed,
    begin_fit,
    epoch_batches,
    fit_together,
    take_steps,
    train_step,
)

pytestmark = pytest.mark.slow

METHODS = [
    'kd',
    'kd(9, T=2, standardize=True)',
    'dkd',
    'dist',
    'wttm',
    'fitnet',
    'at',
    'nst',
    'sp',
    'rkd',
    'pkt',
    'ofd',
    "ofd(teacher_bn='batch')",
    'review',
    'kd_shuffled',
    'ls',
    'kd+at+sp']


@pytest.fixture(scope='module')
def data(): return load_data('digits', size=16, n_train=100, bs=32, device='cpu')  # three batches of 32 and one of 4


@pytest.fixture(scope='module')
def teacher():
    with seeded(0):
        return resnet(14, width=2)


def scheme(kind, teacher, weights=None):
    with seeded(1):
        if kind == 'alone': return Alone(resnet(8))
        if kind == 'jointrd': return JointRD(plainnet(8), resnet(8), size=16)
        if kind == 'joint': return JointRD(plainnet(8), resnet(8), train_teacher=True, size=16)
        if kind == 'online': return Online([resnet(8), resnet(8)], size=16)
        return Distill(resnet(8), teacher, kind, weights, size=16)


def learner(kind, data, teacher, weights=None, **how):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return Learner(scheme(kind, teacher, weights), data, **{'cbs': None, 'amp': 'off', **how})


def untimed(learn):
    return [
        {k: v for k, v in r.items() if k not in ('seconds', 'images_per_second')} for r in learn.history
    ], learn.result


def same(a, b):
    return untimed(a) == untimed(b) and all(
        torch.equal(p, q) for p, q in zip(a.scheme.state_dict().values(), b.scheme.state_dict().values(), strict=True))


# --- nothing waits


class Waits(TorchFunctionMode):
    "Notes what would make the processor wait for a GPU."

    names = {
        'item',
        'tolist',
        'cpu',
        'numpy',
        '__bool__',
        '__int__',
        '__float__',
        '__index__',
        '__array__',
        'nonzero',
        'is_nonzero',
        'equal',
        'allclose',
        'masked_select',
        'unique'}

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, '__name__', '') in self.names:
            self.seen.append(func.__name__)
        return func(*args, **(kwargs or {}))


class Deep(TorchDispatchMode):
    "The same below Python: the optimiser, the scaler, the backward pass."

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in ('_local_scalar_dense', 'nonzero', 'masked_select', 'equal', '_unique2'):
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def waits(learn):
    "What waits in one epoch's steps."
    begin_fit(learn, 3, False)
    learn.scheme.begin_epoch(1, 3)
    with Waits() as w, Deep(w.seen):
        take_steps(learn)
    return w.seen


@pytest.mark.parametrize('kind', ['alone', 'jointrd', 'joint', 'online', *METHODS])
def test_nothing_in_a_step_waits(kind, data, teacher, monkeypatch):
    for name, module in list(sys.modules.items()):  # it looks at labels, but never at those on a GPU
        if name.startswith('kdnb.losses.') and hasattr(module, 'check_labels'):
            monkeypatch.setattr(module, 'check_labels', lambda s, y: None)
    for amp in ('off', 'bf16'):
        assert waits(learner(kind, data, teacher, amp=amp)) == []


@pytest.mark.parametrize(
    'look',
    [
        lambda p: p.sum().item(),
        lambda p: p.sum().tolist(),
        lambda p: bool(p.sum() > 0),
        lambda p: p.cpu(),
        lambda p: f'{p.sum():.3f}',
        lambda p: p.nonzero()])
def test_a_step_that_waits_is_noticed(look, data, teacher):
    class Look(Callback):
        def after_batch(self, learn):
            look(next(learn.student.parameters()).detach())

    assert waits(learner('kd', data, teacher, cbs=[Look()])) != []


@pytest.mark.gpu
@pytest.mark.parametrize('kind', ['alone', 'jointrd', 'joint', 'online', *METHODS])
def test_cuda_itself_sees_nothing_wait(kind):
    data = load_data('digits', size=16, n_train=96, bs=32, device='cuda')
    with seeded(0):
        learn = learner(kind, data, resnet(14, width=2), amp='auto')
    begin_fit(learn, 3, False)
    learn.scheme.begin_epoch(1, 3)
    take_steps(learn)
    batches = list(epoch_batches(learn))
    torch.cuda.set_sync_debug_mode('error')
    try:
        for b in batches:
            train_step(learn, *b)
    finally:
        torch.cuda.set_sync_debug_mode('default')


# --- weights are tensors that stay where they are


@pytest.mark.parametrize('kind', ['dkd', 'jointrd', 'online', 'kd'])
def test_weights_stay_where_they_are(kind, data, teacher):
    s = scheme(kind, teacher)
    s.begin_epoch(1, 40)
    before = {k: (v.data_ptr(), v.item()) for k, v in s.now.items()}
    s.begin_epoch(2, 40)
    assert {k: v.data_ptr() for k, v in s.now.items()} == {k: p for k, (p, _) in before.items()}
    assert [v.item() for v in s.now.values()] == pytest.approx([w for w in s.weights(2, 40).values()])
    assert (kind in ('dkd', 'jointrd')) == any(s.now[k].item() != w for k, (_, w) in before.items())


def test_a_weight_that_falls_silent_and_speaks_again(data, teacher):
    s = Distill(resnet(8), teacher, [KD(lambda epoch, epochs: epoch % 2)], size=16)
    x, y = data.one_batch()
    for epoch in range(4):
        s.begin_epoch(epoch, 4)
        assert (s.now['kd'] is None, s(x, y)[0]['kd'].item() > 0) == (epoch % 2 == 0, epoch % 2 == 1)


# --- the teacher stops where nobody reads on


def test_the_teacher_stops_at_the_last_place_that_is_read(data, teacher):
    ran, hooks = [], []
    for n, m in teacher.named_modules():
        hooks.append(m.register_forward_hook(lambda m, args, out, n=n: ran.append(n)))
    try:
        for method, reaches in ('fitnet', False), ('fitnet+kd', True), ('at', False), ('rkd', False), ('kd', True):
            s = scheme(method, teacher)
            ran.clear()
            s(*data.one_batch())
            assert ('head.fc' in ran) == reaches, method
            if method == 'fitnet':
                assert 'stages.1.1.act2' in ran and not any(n.startswith('stages.2') for n in ran)
    finally:
        for h in hooks:
            h.remove()


# --- compiled


class Compiles:
    "A backend that counts, and runs what it is given as it is."

    def __init__(self):
        self.n = 0

    def __call__(self, graph, inputs):
        self.n += 1
        return graph.forward


@pytest.fixture
def counted(monkeypatch):
    torch._dynamo.reset()
    backend = Compiles()
    monkeypatch.setattr(torch, 'compile', functools.partial(torch.compile, backend=backend))
    yield backend
    torch._dynamo.reset()


def no_limit_was_hit(caught):
    return not any('recompile_limit' in str(w.message) or 'cache_size' in str(w.message) for w in caught)


@pytest.mark.parametrize('kind, weights', [('dkd', None), ('fitnet', 'paper'), ('jointrd', None), ('online', None)])
def test_compiled_a_few_times_only_whatever_the_epochs(kind, weights, data, teacher, counted):
    learn = learner(kind, data, teacher, weights, compile=True)
    counts = []

    class Note(Callback):
        def after_epoch(self, learn):
            counts.append(counted.n)

    learn.cbs = [Note()]
    learn.fit(10)
    silent = 2 if weights == 'paper' else 1  # the hint falls silent after half of the run, and KD speaks
    assert (
        counts[0] > 0 and counts[-1] <= 2 * counts[0] * silent and counts[-1] == counts[6]
    )  # nothing new in the last epochs


@pytest.mark.parametrize('kind', ['kd', 'ofd', 'rkd', 'alone'])
def test_compiled_it_learns_the_same(kind, data, teacher, counted):
    assert same(learner(kind, data, teacher, compile=True).fit(2), learner(kind, data, teacher).fit(2))


# --- together


@pytest.mark.parametrize('kinds', [METHODS[:9], METHODS[9:] + ['alone', 'jointrd', 'online']])
def test_together_is_as_alone_whatever_the_company(kinds, data, teacher, quiet):
    for learn, kind in zip(fit_together([learner(k, data, teacher) for k in kinds], 1, cbs=None), kinds):
        assert same(learn, learner(kind, data, teacher).fit(1)), kind


def test_each_is_a_run_of_its_own_that_goes_on_alone(data, teacher, tmp_path, quiet):
    kinds = 'kd', 'at'
    whole = {k: learner(k, data, teacher).fit(3) for k in kinds}

    class Stop(Callback):
        def after_epoch(self, group):
            if group.history[-1]['epoch'] == 2: raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_together([learner(k, data, teacher, run=tmp_path / k) for k in kinds], 3, cbs=[Stop()])
    for k in kinds:
        assert Run(tmp_path / k).json('config.json')['about']['together'] == 2
        assert same(learner(k, data, teacher, run=tmp_path / k).fit(3), whole[k])  # alone, what began in company


@pytest.mark.parametrize('step', [1, 6, 8])
def test_ctrl_c_in_the_middle_leaves_whole_epochs(step, data, teacher, tmp_path, quiet):
    class Stop(Callback):
        n = 0

        def after_batch(self, learn):
            self.n += 1
            if self.n == step: raise KeyboardInterrupt

    some = [
        learner('kd', data, teacher, run=tmp_path / 'a', cbs=[Stop()]),
        learner('at', data, teacher, run=tmp_path / 'b')]
    with pytest.raises(KeyboardInterrupt, match='a: the last whole epoch is . of 3; b: .* Run the same cell'):
        fit_together(some, 3, cbs=None)
    assert [learn.epoch for learn in some] == [(step - 1) // 4] * 2
    again = fit_together(
        [learner('kd', data, teacher, run=tmp_path / 'a'), learner('at', data, teacher, run=tmp_path / 'b')],
        3,
        cbs=None)
    for learn, k in zip(again, ('kd', 'at')):
        assert same(learn, learner(k, data, teacher).fit(3))


def test_together_too_nobody_is_left_in_train_mode(data, teacher, quiet):
    class Stop(Callback):
        def after_batch(self, learn):
            raise KeyboardInterrupt

    some = [
        learner('kd', data, teacher),
        learner('online', data, teacher),
        learner('joint', data, teacher, cbs=[Stop()])]
    with pytest.raises(KeyboardInterrupt):
        fit_together(some, 1, cbs=None)
    assert not any(m.training for learn in some for m in learn.scheme.modules())
    some[2].cbs = None
    fit_together(some, 1, cbs=None)
    assert not any(m.training for learn in some for m in learn.scheme.modules())


def test_what_is_no_list_is_a_sentence(data, teacher):
    with pytest.raises(TypeError, match='fit_together takes a list of learners, not Learner'):
        fit_together(learner('kd', data, teacher), 1)
    with pytest.raises(TypeError, match='cbs= is a list of callbacks'):
        fit_together([learner('kd', data, teacher)], 1, cbs=Callback)
    with pytest.raises(TypeError, match='online distillation takes a list of students, .* not ResNet'):
        Online(resnet(8))
    with pytest.raises(TypeError, match='weigh looks at the terms of a Distill'):
        weigh(resnet(8), data.examples(4))
    for build in (lambda s: Distill(s, teacher), lambda s: JointRD(s, teacher), Alone):
        with pytest.raises(
            TypeError, match=r"such as create_model\('resnet20', num_classes\), not Learner: give its .student"):
            build(learner('alone', data, teacher))
        with pytest.raises(TypeError, match=r"such as create_model\('resnet20', num_classes\), not function"):
            build(lambda x: x)


def blows_up(s, t): return (s - t).sum() * float('nan')


def broken(s, t):
    raise RuntimeError('a loss of the user that fails')


def test_who_fails_does_not_stop_the_others(data, teacher, tmp_path, quiet, monkeypatch):
    full = learner('at', data, teacher, run=tmp_path / 'full')
    real = type(full.run).write

    def write(run, name, content):
        if run.path and run.path.name == 'full' and name == 'last.pt': raise OSError(28, 'No space left on device')
        return real(run, name, content)

    monkeypatch.setattr(type(full.run), 'write', write)
    sick, odd, well = (
        learner(m, data, teacher, run=tmp_path / n)
        for n, m in (('sick', [KD(), Term(blows_up, taps=None)]), ('odd', 'sp'), ('well', 'kd')))
    odd.scheme.method[1].loss = broken
    with pytest.raises(SomeFailed) as e:
        fit_together([sick, full, odd, well], 2, cbs=None)
    assert list(e.value.failed) == [odd, sick, full] and isinstance(e.value.failed[sick], Diverged)
    assert all(
        w in str(e.value)
        for w in (
            'sick: the loss',
            'full: [Errno 28] No space left',
            'odd: a loss of the user that fails',
            '(the others are done)')
    ) and '\n' not in str(e.value)
    assert same(well, learner('kd', data, teacher).fit(2)) and (sick.epoch, sick.history) == (0, [])


def test_where_all_fail_nobody_is_done(data, teacher, quiet):
    with pytest.raises(SomeFailed) as e:
        fit_together([learner(k, data, teacher) for k in ('kd', 'at')], 0, cbs=None)
    assert str(e.value).count('epochs must be a whole number') == 2 and 'the others' not in str(e.value)


def test_finished_ones_are_loaded_and_differing_ones_refused(data, teacher, tmp_path, quiet, capsys):
    fit_together([learner(k, data, teacher, run=tmp_path / k) for k in ('kd', 'at')], 1, cbs=None)
    with pytest.raises(SomeFailed, match="run 'kd' was run differently: it was trained for 1 epoch, you ask for 2"):
        fit_together([learner(k, data, teacher, run=tmp_path / k) for k in ('kd', 'sp')], 2, cbs=None)
    with seeded(1):
        loud = Learner(Distill(resnet(8), teacher, 'at', size=16), data, run=tmp_path / 'at', amp='off')
    capsys.readouterr()
    fit_together([loud], 1)
    assert "run 'at': finished, loaded (1 epoch)" in capsys.readouterr().out


def test_one_table_of_progress(data, teacher, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        fit_together([learner(k, data, teacher) for k in ('kd', 'at')], 2)
    lines = capsys.readouterr().out.splitlines()
    assert (
        len(lines) == 2
        and lines[1].startswith('epoch 2/2')
        and 'learner 1 ' in lines[1]
        and 'learner 2 ' in lines[1]
        and lines[1].endswith('images/s'))


def test_a_teacher_that_half_reads_serves_those_who_read_all(data, teacher, quiet):
    pair = fit_together([learner(k, data, teacher) for k in ('fitnet', 'kd')], 1, cbs=None)
    assert [learn.scheme.teacher.net.logits for learn in pair] == [False, True]
    for learn, k in zip(pair, ('fitnet', 'kd')):
        assert same(learn, learner(k, data, teacher).fit(1))
