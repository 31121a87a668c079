"What no notebook shows of tables: damaged folders, old runs, runs of two folders, names that look like patterns."

import json
import os
from pathlib import Path

import pytest

from kdnb.experiments import Results, load_results

pytestmark = pytest.mark.usefixtures('runs')

DATA = dict(
    name='cifar100',
    size=32,
    num_classes=100,
    n_train=10000,
    n_valid=5000,
    n_test=10000,
    bs=64,
    augment='crop_flip',
    split='8adc5d17ebcb',
    split_seed=0,
    recipe='crd')
STUDENT = dict(builder='resnet', depth=20, num_classes=100, width=1, stem='cifar', stem_width=None)
KD = dict(
    scheme='Distill',
    method='CE(0.1) + KD(0.9, T=4)',
    teacher='c6a92a49fa70',
    prepare=None,
    terms=dict(ce=dict(name='ce', weight=0.1, pairs=[]), kd=dict(name='kd', weight=0.9, T=4.0, pairs=[])))


def folder(path, last=21.86, seed=0, taught=None, about=(), **changes):
    """A finished run as kdnb writes it, without weights; `taught` None: alone, as the first code wrote it, without a
    method."""
    path = Path(path)
    path.mkdir(parents=True)
    config = (
        dict(
            student=STUDENT,
            **(taught or dict(scheme='Alone')),
            data=DATA,
            recipe='crd',
            optimiser=dict(epochs=240, lr=0.05),
            epochs=2,
            seed=seed,
            amp='auto')
        | changes)
    config['about'] = dict(
        date='2026-11-21',
        device='CPU, 1 threads',
        kdnb='0.1.0',
        torch='2.15.0',
        init=f'seed{seed}',
        reduced='REDUCED: 2 of 240 epochs',
        dtype='bfloat16',
    ) | dict(about)
    (path / 'config.json').write_text(json.dumps(config))
    (path / 'result.json').write_text(
        json.dumps(dict(last=dict(epoch=2, test_acc=last), best=dict(epoch=1, valid_acc=20.0, test_acc=last - 1))))
    (path / 'history.jsonl').write_text(''.join(json.dumps(dict(epoch=e + 1, seconds=1.5)) + '\n' for e in range(2)))
    return path


def change(path, name, edit):
    "Rewrite a json file of a run."
    obj = json.loads((path / name).read_text())
    edit(obj)
    (path / name).write_text(json.dumps(obj))


DAMAGE = {
    'config cut': lambda p: (p / 'config.json').write_bytes(b'{"stud'),
    'config no text': lambda p: (p / 'config.json').write_bytes(b'\xff\xfe\x00'),
    'config a list': lambda p: (p / 'config.json').write_text('[1, 2]'),
    'config gone': lambda p: (p / 'config.json').unlink(),
    'config a folder': lambda p: ((p / 'config.json').unlink(), (p / 'config.json').mkdir()),
    'no seed': lambda p: change(p, 'config.json', lambda c: c.pop('seed')),
    'data a word': lambda p: change(p, 'config.json', lambda c: c.update(data='cifar100')),
    'result cut': lambda p: (p / 'result.json').write_bytes(b'{"last": {"epoch"'),
    'result empty': lambda p: (p / 'result.json').write_bytes(b''),
    'no last': lambda p: change(p, 'result.json', lambda r: r.pop('last')),
    'no best': lambda p: change(p, 'result.json', lambda r: r.pop('best')),
    'last no number': lambda p: change(p, 'result.json', lambda r: r['last'].update(test_acc='high')),
    'last not finite': lambda p: change(p, 'result.json', lambda r: r['last'].update(test_acc=float('nan'))),
    'last of another kind': lambda p: change(p, 'result.json', lambda r: r.update(last=70.1)),
    'history cut': lambda p: (p / 'history.jsonl').write_bytes(b'{"epoch": 1, "sec'),
    'history short': lambda p: (p / 'history.jsonl').write_text('{"epoch": 1, "seconds": 1}\n'),
    'history of numbers': lambda p: (p / 'history.jsonl').write_text('1\n2\n'),
    'history gone': lambda p: (p / 'history.jsonl').unlink()}


@pytest.mark.parametrize('how', DAMAGE)
def test_a_damaged_folder_is_a_sentence_and_the_others_are_there(runs, how):
    folder(runs / 'a')
    DAMAGE[how](folder(runs / 'b', seed=1))
    folder(runs / 'c', 30.0, taught=KD)
    results = load_results()
    assert [r['run'] for r in results] == ['a', 'c']
    (left,) = results.left_out
    assert (
        (left['run'], left['why']) == ('b', 'damaged')
        and left['detail']
        and '\n' not in left['detail']
        and str(runs) not in left['detail'])
    for shown in (results, results.table(), results.table().markdown(), results.table()._repr_html_()):
        assert 'left out, 1 damaged: b (' in str(shown)


def test_unfinished_and_foreign_folders_are_counted_and_named(runs):
    folder(runs / 'a')
    for n, rows in (('b', 1), ('c', 0)):
        p = folder(runs / n, seed=1)
        (p / 'result.json').unlink()
        (p / 'history.jsonl').write_text('{"epoch": 1}\n') if rows else (p / 'history.jsonl').unlink()
    (runs / 'figures').mkdir()
    (runs / 'bert').mkdir()
    (runs / 'bert' / 'config.json').write_text('{"model_type": "bert"}')
    (runs / 'compare.png').write_bytes(b'')
    results = load_results()
    assert sorted(results.notes()) == [
        'left out, 2 not a run: bert, figures',
        'left out, 2 unfinished: b (1 of 2 epochs), c (0 of 2 epochs)']
    assert len(results) == 1 and all(n in repr(results.table()) for n in results.notes())


def test_old_runs_in_a_path_with_a_slash_stand_with_new_ones(tmp_path, monkeypatch):
    "The first runs did not say CE(1) of who learns alone: the same line, all the same."
    there = tmp_path / 'old [2026]' / 'runs'  # a folder that looks like a pattern is not one when it is KDNB_RUNS
    folder(there / 'alone-0', 20.0)
    folder(there / 'alone-1', 22.0, 1, dict(scheme='Alone', method='CE(1)'))
    folder(there / 'kd-0', 30.0, 0, KD)
    folder(there / 'kd-1', 34.0, 1, KD)
    monkeypatch.setenv('KDNB_RUNS', str(there))
    by_name = load_results()
    os.rename(there, tmp_path / 'elsewhere')
    monkeypatch.chdir(tmp_path)
    by_path = load_results(f"{tmp_path / 'elsewhere'}/*")
    assert len(by_path) == 4 and by_path == by_name == load_results('elsewhere/*') == load_results(
        [tmp_path / 'elsewhere' / n for n in ('alone-0', 'alone-1', 'kd-0', 'kd-1')])
    (block,) = by_path.table().blocks
    kd, alone = block['lines']
    assert (kd['method'], alone['method'], alone['n']) == ('kd', 'alone', 2)
    assert (kd['difference']['mean'], kd['difference']['n']) == (11, 2) and abs(
        kd['difference']['high'] - 11 - 12.706
    ) < 1e-3  # differences 10 and 12
    assert 'seed noise: two seeds of alone are 2.00 apart' in block['notes']
    assert str(tmp_path) not in repr(by_path.table()) + json.dumps(by_path)


def test_a_folder_of_runs_says_how_to_name_them(tmp_path, runs):
    folder(tmp_path / 'mine' / 'a')
    assert load_results(tmp_path / 'mine').left_out[0]['detail'] == "it holds runs: say 'mine/*'"
    for wrong in ('*', 'nowhere/*', ''):
        with pytest.raises(ValueError) as e:
            load_results(wrong)
        assert '\n' not in str(e.value) and str(tmp_path) not in str(e.value)


@pytest.mark.parametrize(
    'setting',
    [
        dict(epochs=3),
        dict(optimiser=dict(epochs=240, lr=0.1)),
        dict(data=DATA | dict(augment=None)),
        dict(data=DATA | dict(split='000000000000')),
        dict(student=STUDENT | dict(depth=56)),
        dict(amp='off')],
    ids=lambda s: next(iter(s)))
def test_one_setting_that_differs_makes_another_block_that_says_so(runs, setting):
    folder(runs / 'a')
    p = folder(runs / 'b', 40.0, 0, KD, **setting)
    if 'epochs' in setting:
        (p / 'history.jsonl').write_text('{"seconds": 1}\n' * 3)
    one, two = load_results().table().blocks
    assert one['head'] != two['head'] and two['base'] is None and two['lines'][0]['difference'] is None


def test_two_teachers_are_two_blocks_and_who_is_alone_stands_in_both(runs):
    folder(runs / 'a')
    folder(runs / 'b', 40.0, 0, KD)
    folder(runs / 'c', 50.0, 0, KD | dict(teacher='another'))
    one, two = load_results().table().blocks
    assert [line['runs'] for line in one['lines'] + two['lines']] == [['b'], ['a'], ['c'], ['a']]
    assert 'another' in two['head']


def test_a_teacher_of_each_seed_is_part_of_the_seed(tmp_path, runs, monkeypatch):
    "One line a method where each seed was taught by the teacher of that seed; where it was not, a block a teacher."
    kinds = {}
    monkeypatch.setattr('kdnb.experiments.rows.read_teacher', lambda path, changed: kinds.get(path.name, (None, {})))

    def teacher(name, seed, kind='k'):
        (runs / name).exists() or folder(runs / name, seed=seed)
        (runs / name / 'last.pt').touch()
        kinds[name] = (
            f'{name:0>12}',
            dict(taught_by=name, teacher_model='resnet56', teacher_seed=seed, teacher_kind=kind))

    def taught(name, seed, by):
        folder(runs / name, 40.0 + seed, seed, KD | dict(teacher=f'{by:0>12}'))

    for s in 0, 1:
        teacher(f'fa{s}', s)
        folder(runs / f'alone-{s}', 30.0 + s, s)
        taught(f'kd-{s}', s, f'fa{s}')
    (block,) = load_results(['alone-*', 'kd-*']).table().blocks
    assert [(line['method'], line['n']) for line in block['lines']] == [
        ('kd', 2),
        ('alone', 2),
    ] and 'teacher fa0, fa1 (resnet56)' in block['head']
    assert 'a teacher for each seed, so what varies is teacher and student together' in block['notes']
    load_results(['alone-*', 'kd-*']).save(tmp_path / 'r.json')
    assert repr(load_results(tmp_path / 'r.json').table()) == repr(load_results(['alone-*', 'kd-*']).table())
    taught('kd-x', 1, 'fa0')  # another seed's teacher: who taught is no longer told by the seed
    assert len(load_results(['alone-*', 'kd-*']).table().blocks) == 2
    for old in (runs / 'kd-x').iterdir():
        old.unlink()
    (runs / 'kd-x').rmdir()
    teacher('fa1', 1, 'another kind')
    assert len(load_results(['alone-*', 'kd-*']).table().blocks) == 2
    teacher('fa1', 1)
    teacher('fb1', 1)
    taught('kd-y', 1, 'fb1')  # two teachers of one seed
    assert len(load_results(['alone-*', 'kd-*']).table().blocks) == 3


def test_what_is_hidden_is_no_run(runs):
    folder(runs / 'a')
    (runs / '.locks').mkdir()
    with pytest.raises(ValueError, match="unknown run 'nobody': there is a$"):
        load_results('nobody')


def test_twins_are_one_line_though_each_seed_has_its_own_teacher(runs):
    twin = KD | dict(method='CE(0.1) + Self(0.9, T=4)', terms=dict(self=dict(name='self', weight=0.9, T=4.0, pairs=[])))
    for seed in (0, 1):
        folder(runs / f'alone-{seed}', 20 + seed, seed)
        folder(runs / f'kd-{seed}', 30 + seed, seed, KD)
        folder(runs / f'self-{seed}', 22 + seed, seed, twin | dict(teacher=f'twin{seed}'))
    (block,) = load_results().table().blocks
    lines = str(load_results().table()).splitlines()
    assert [line.split()[0] for line in lines if ' ± ' in line and 'last' not in line] == [
        'kd',
        'self',
        'alone']


def test_what_no_word_tells_apart_is_told_apart_by_its_settings(runs):
    "Same terms, same weights, another place to read: two lines, never one mean."
    folder(runs / 'a')
    for i, place in enumerate(('stage 1', 'stage 2')):
        folder(
            runs / f'k{i}',
            30.0 + i,
            0,
            KD | dict(terms=KD['terms'] | dict(kd=KD['terms']['kd'] | dict(pairs=[[place, place]]))))
    (block,) = load_results().table().blocks
    assert [line['n'] for line in block['lines']] == [1, 1, 1]
    assert all("'stage" in line['method'] for line in block['lines'][:2])


def test_a_live_teacher_is_told_from_a_remembered_one_in_words(runs):
    folder(runs / 'live', 30.0, 0, KD)
    folder(runs / 'kept', 31.0, 0, KD | dict(remembered=4))
    (block,) = load_results().table().blocks
    assert [line['method'] for line in block['lines']] == ['kd (remembered views 4)', 'kd (no remembered views)']


def test_names_are_shown_as_names(runs):
    "A method with marks of HTML and Markdown in its name."
    folder(runs / 'a', 30.0, 0, KD | dict(method='CE(1) + <b>|(1)', terms=dict(x=dict(name='<b>|'))))
    table = load_results().table()
    assert '&lt;b&gt;|' in table._repr_html_() and '<b>|' not in table._repr_html_() and '<b>\\|' in table.markdown()


@pytest.mark.parametrize(
    'text',
    [
        '',
        '{"kdn',
        '[]',
        '{}',
        '{"kdnb_results": 1, "rows": [{}], "left_out": []}',
        '{"kdnb_results": 1, "rows": 3, "left_out": []}',
        '{"kdnb_results": 2, "rows": [], "left_out": []}'])
def test_a_file_that_is_no_results_is_a_sentence(tmp_path, text):
    (tmp_path / 'r.json').write_text(text)
    with pytest.raises(ValueError, match="'r.json' is damaged, or not a file of results"):
        load_results(tmp_path / 'r.json')


def test_nothing_finished_is_saved_and_read_too(tmp_path):
    Results([], [dict(run='b', why='unfinished', detail='')]).save(tmp_path / 'r.json')
    assert load_results(tmp_path / 'r.json').notes() == ['left out, 1 unfinished: b']


def test_a_teacher_that_learns_too_is_told_by_its_model(runs):
    "JointRD writes how such a teacher is built, as it has no weights of its own yet."
    folder(runs / 'a')
    folder(
        runs / 'b',
        40.0,
        0,
        dict(scheme='JointRD', method='jointrd(train_teacher=True)', teacher=STUDENT | dict(depth=56)))
    (block,) = load_results().table().blocks
    assert 'teacher resnet56, which learns too' in block['head'] and block['lines'][0]['difference']['mean'] > 18


def test_memory_is_shown_where_a_run_kept_it_and_never_made_up(runs):
    folder(runs / 'a')
    folder(runs / 'b', 40.0, 0, KD)
    assert 'memory' not in repr(load_results().table())
    folder(runs / 'c', 42.0, 1, KD, about=dict(memory=dict(bytes=3 * 2**30, of='gpu'), device='NVIDIA'))
    text = repr(load_results().table())
    kd, alone = (next(line for line in text.splitlines() if line.startswith(m)) for m in ('kd', 'alone'))
    assert (
        '3.00 GiB' in kd
        and kd.rstrip().endswith('CPU, 1 threads, NVIDIA')
        and '–' in alone.split('2 s')[-1]
        and '≤' not in text)
    folder(runs / 'd', 22.0, 1, about=dict(memory=dict(bytes=2**30, of='process')))
    text = repr(load_results().table())
    assert '≤ 1.00 GiB' in text and 'memory ≤: the most that the whole process took' in text
    folder(runs / 'e', 23.0, 2, about=dict(memory='much'))  # of another program
    assert len(load_results()) == 5 and '≤ 1.00 GiB' in repr(load_results().table())


def test_a_teacher_is_called_by_its_run_where_that_is_next_door(runs):
    import torch

    from kdnb.models import create_model, model_record, weights_hash

    net = create_model('resnet8', 10)
    folder(runs / 'big', 50.0, student=STUDENT | dict(depth=56))
    torch.save(model_record(net), runs / 'big' / 'last.pt')
    (folder(runs / 'odd', 50.0, student=STUDENT | dict(depth=56)) / 'last.pt').write_bytes(b'no weights')
    folder(runs / 'a')
    folder(runs / 'b', 40.0, 0, KD | dict(teacher=weights_hash(net)))
    folder(runs / 'c', 45.0, 0, KD)
    heads = [b['head'] for b in load_results(['a', 'b', 'c']).table().blocks]
    assert heads[0].endswith('teacher big (resnet56)') and heads[1].endswith('teacher c6a92a49fa70')
    load_results(['a', 'b']).save(runs.parent / 'r.json')
    assert 'teacher big (resnet56)' in repr(load_results(runs.parent / 'r.json').table())  # without the folders
