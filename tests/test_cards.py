"""The table of methods: every method is in it, links lead somewhere, what is computed is right."""

import ast
import json
import re
from configparser import ConfigParser
from pathlib import Path

import pytest
import torch

from docs import cards
from docs.cards import Cards, extra_params, forgiven, in_full, invariances, method_cards, own_term, read_places
from docs.cards import term_value as value
from kdnb.data import load_data
from kdnb.methods import AT, CE, Term, known_methods, parse_method, regressor
from kdnb.models import create_model, num_params, resnet
from kdnb.schemes import Distill
from kdnb.seeds import seeded

ROOT = Path(__file__).resolve().parent.parent
CARDS = method_cards()
each = pytest.mark.parametrize('card', CARDS, ids=[c['method'] for c in CARDS])

def text(nb):
    return '\n'.join(''.join(c['source']) for c in json.loads((ROOT / nb).read_text(encoding='utf-8'))['cells'])

def test_every_method_has_one_card():
    own = [type(parse_method(c['method'])[-1]) for c in CARDS if '(' not in c['method']]
    assert sorted(map(repr, own)) == sorted(map(repr, set(known_methods.values()) - {CE}))
    assert sorted(map(repr, {type(parse_method(c['method'])[-1]) for c in CARDS})) == sorted(map(repr, set(own)))

@each
def test_links_lead_to_the_cell_the_tutorial_and_the_test(card):
    nb, cell = card['cell'].split('#')
    found = [c for c in json.loads((ROOT / nb).read_text(encoding='utf-8'))['cells'] if c['id'] == cell]
    assert len(found) == 1 and found[0]['cell_type'] == 'code' and '#| export' in ''.join(found[0]['source'])
    path, name = card['test'].split('#')
    assert name in [
        f.name for f in ast.parse((ROOT / path).read_text(encoding='utf-8')).body if isinstance(f, ast.FunctionDef)]
    assert (ROOT / card['tutorial']).is_file()

@each
def test_the_paper_is_the_one_that_the_notebooks_name(card):
    assert card['paper'] in text(card['cell'].split('#')[0]) + text(card['tutorial'])

def test_threads_are_said_once():
    about = dict(teacher='a', student='b', bs=8, dtype='float32', threads=4, pairs=3, date='2026-01-01')
    assert 'CPU, 4 threads, median' in Cards(about=about | dict(device='CPU, 4 threads')).note()
    assert 'NVIDIA H100, threads 4, median' in Cards(about=about | dict(device='NVIDIA H100')).note()

def test_links_of_the_page_are_files():
    links = re.findall(r'\]\(\.\./([^)#\s]+)', CARDS.markdown('../'))
    assert len(links) == 3 * len(CARDS) and [link for link in links if not (ROOT / link).is_file()] == []

def test_the_web_address_is_the_repository():
    cfg = ConfigParser(delimiters=['='], interpolation=None)
    cfg.read(ROOT / 'settings.ini', encoding='utf-8')
    assert Cards.site == f"{cfg['DEFAULT']['git_url']}/blob/{cfg['DEFAULT']['branch']}/"

@pytest.fixture(scope='module')
def digits(): return load_data('digits', size=16, n_train=100, bs=8, device='cpu')

@each
def test_a_step_of_every_card(card, digits):
    with seeded(0):
        student = resnet(8)
    with seeded(1):
        scheme = Distill(student, resnet(8), card['method'], size=16)
    scheme.check(digits)
    x, y, *beside = next(digits.train.asking(scheme.asks).epoch(0, 0))
    losses, _ = scheme(x, y, **dict(*beside))
    list(losses.values())[-1].backward()
    assert (
        losses[scheme.names[-1]] > 0 and sum(p.grad.abs().sum() for p in student.parameters() if p.grad is not None) > 0
    )

def test_prices_are_those_of_the_file_and_no_others(tmp_path):
    def spread(v): return dict(min=v, median=v, max=v)
    about = dict(
        teacher='a', student='b', bs=8, dtype='float32', device='made up', threads=1, pairs=3, date='2026-01-01')
    path = tmp_path / 'costs.json'
    path.write_text(json.dumps(dict(about=about, rows=[dict(method='ofd', time=spread(1.5), memory=spread(0.75))])))
    cards = method_cards(path)
    assert {c['method']: (c['time'], c['memory']) for c in cards if c['time'] is not None} == {'ofd': (1.5, 0.75)}
    assert (
        cards.markdown().count('| –, – |') == len(cards) - 1
        and 'made up' in cards.note()
        and 'made up' not in CARDS.note())

# --- what a student may do for free

FEATURES = 'fitnet', 'at', 'nst', 'ofd', 'review', 'sp', 'pkt', 'rkd'
LOGITS = 'kd', 'kd(9, T=2, standardize=True)', 'dkd', 'dist', 'wttm', 'ls', 'kd_shuffled', 'self'
TURNS = {'rotation', 'rotation of channels', 'order of channels', 'signs of channels', 'order of places'}

def free(method): return {change for change, kind in invariances(method).items() if kind == 'free'}

def test_a_change_keeps_the_shape_and_changes_something():
    f, z, y = torch.randn(8, 6, 4, 4), torch.randn(8, 10), torch.arange(8)
    for changes, v in ((cards.FEATURE_CHANGES, f), (cards.LOGIT_CHANGES, z)):
        assert all(change(v).shape == v.shape and not torch.allclose(change(v), v) for change in changes.values())
    moved = cards.LOGIT_CHANGES['order of classes'](z + 100*torch.eye(10)[y]).argmax(1)
    assert cards.LABEL_CHANGES['order of classes'](y, 10).equal(moved)      # the label goes where its class goes

def test_what_is_free_is_what_the_papers_tell():
    channels = {'order of channels', 'signs of channels'}
    assert free('at') == {'rotation of channels', *channels, 'scale of each image', 'scale'}
    assert free('nst') == {*channels, 'scale of each image', 'scale of each channel', 'scale'}
    beyond = {'sp': {'scale'}, 'rkd': {'scale', 'shift'}, 'pkt': {'scale', 'scale of each image'}}
    assert {m: free(m) - TURNS for m in beyond} == beyond and all(free(m) > TURNS for m in beyond)
    assert not any(map(free, ('fitnet', 'ofd', 'review')))
    assert {invariances(m)['order of images'] for m in FEATURES} == {'both'}
    assert all('constant for each image' in free(m) for m in LOGITS)
    assert free('kd(9, T=2, standardize=True)') - free('kd') == {'scale of each image', 'scale'}

def test_a_term_of_your_own_is_tried_too():
    class Raw(Term):
        def __init__(self, weight=1.): super().__init__(lambda s, t: (s - t).pow(2).mean(), weight, taps=None)

    both = {'constant for each image', 'shift', 'order of classes', 'order of images'}
    assert {change for change, kind in invariances(Raw()).items() if kind == 'both'} == both and free(Raw()) == set()

def test_no_change_is_near_the_line_between_free_and_not():
    moves = []
    for m in (*FEATURES, *LOGITS):
        term, kinds = own_term(m), invariances(m)
        s, t, y, changes = cards.example_for(term)
        before = value(term, s, t, y)
        moves += [(abs(value(term, change(s), t, y) - before) / before, kinds[name] == 'free')
                  for name, change in changes.items()]
    assert max(v for v, ok in moves if ok) < 2e-5 and min(v for v, ok in moves if not ok) > 2e-4

def test_changes_that_follow_from_others_are_not_named():
    assert (forgiven('sp'), forgiven('ofd')) == ('rotation, scale', 'nothing')
    for m in (*FEATURES, *LOGITS):
        assert all(set(less) <= free(m) for more, less in cards.IMPLIED.items() if more in free(m))

# --- what a method tells of itself

def test_what_a_method_reads():
    reads = dict(
        kd='logits', ls='labels', dkd='logits and labels', dist='logits, across the batch', at='all stages',
        ofd='all stages, before the activation', fitnet='stage 2', sp='last stage, across the batch',
        rkd='embedding, across the batch', crd='embedding and numbers of the images',
        review="all stages, embedding, after the activation and the teacher's before the activation")
    assert {m: read_places(own_term(m)) for m in reads} == reads
    assert read_places(AT(taps=[1, 3], reading='sum')) == 'stage 1, stage 3, raw sums'

def test_a_method_in_full_may_be_typed():
    assert in_full('dkd') == 'CE(1) + DKD(rise(1, 1/12), alpha=1, beta=8, T=4)'
    assert repr(parse_method(in_full('dkd'))) == repr(parse_method('dkd'))

def test_extra_parameters_are_those_of_the_adapters():
    extra = extra_params('kd', 'fitnet', 'at', 'ofd', teacher='resnet14', student='resnet8', num_classes=10)
    fitnet, ofd = 32*32 + 32 + 2*32, sum(c*c + 2*c for c in (16, 32, 64))   # 1x1 convolutions and their BatchNorms
    assert extra == dict(kd=0, fitnet=fitnet, at=0, ofd=ofd)
    scheme = Distill(create_model('resnet8', 10), create_model('resnet14', 10), 'fitnet', size=32)
    assert num_params(scheme) - num_params(scheme.student) == fitnet

# --- weak spots

def asked(method, s, t): return value(own_term(method), s, t, torch.arange(len(s)))

@pytest.mark.parametrize('methods, shape, told', [
    (('at', 'nst'), (8, 6, 1, 1), 'tap an earlier stage'),
    (('sp', 'pkt', 'rkd', 'dist'), (1, 6), 'give a larger batch')])
def test_a_weak_spot_is_told(methods, shape, told):
    for m in methods:
        with pytest.raises(ValueError, match=told):
            asked(m, *torch.rand(2, *shape))

def test_fitnets_need_maps():
    with pytest.raises(ValueError, match='needs maps'):
        regressor(*torch.rand(2, 8, 6))

def test_two_images_have_no_angle():
    assert asked('rkd(distance=0)', *torch.rand(2, 2, 6)) == pytest.approx(0, abs=1e-6)

def test_images_of_which_the_teacher_is_sure_count_least_in_wttm():
    z, sure = torch.randn(1, 10), torch.eye(10)[:1]
    share = [asked('wttm', z, k*sure) / asked('kd(T=1)', z, k*sure/5) for k in (0, 10, 20, 40)]
    assert share == sorted(share, reverse=True)
    assert (share[0], share[-1]) == (pytest.approx(10**.8, abs=.01), pytest.approx(1, abs=.01))

# --- the table

def test_equations_hold_nothing_that_markdown_takes():
    equations = [formula.replace(r'\_', '_') for c in CARDS for formula in re.findall(r'\$[^$]*\$', c['equation'])]
    assert [e for e in equations if set(e) & set('|_*')] == []

def test_the_table_has_a_row_for_each_card_and_a_note():
    lines = CARDS.markdown('../').splitlines()
    assert {line.count('|') for line in lines[:2 + len(CARDS)]} == {len(Cards.columns) + 1}
    assert '_feature.ipynb#cell-id=at-loss)' in CARDS.markdown('../') and 'not measured' in lines[-1]
    page = CARDS._repr_html_()
    assert page.count('<tr>') == 1 + len(CARDS) and f'{Cards.site}nbs/tutorials/03_at.ipynb' in page
    assert len(repr(CARDS).splitlines()) == 1 + len(CARDS)

def test_a_method_is_found_however_it_is_spelt(tmp_path):
    def row(method, time): return dict(method=method, time=dict(min=time - .1, median=time, max=time + .1), memory={})
    rows = [row('alone', .5), row('kd', 1), row('AT(1000)', 1.25), row('kd(weight=9, T=2, standardize=True)', 1.5)]
    about = dict(teacher='a', student='b', bs=8, dtype='bfloat16', device='made up', threads=1, pairs=3, date='today')
    path, methods = tmp_path / 'bench.json', dict(about=about, rows=rows)
    path.write_text(json.dumps(dict(about={}, rows=[], methods=methods)))           # in the file of the whole benchmark
    found = method_cards(path)
    times = {c['method']: c['time'] for c in found if c['time']}
    assert times == {'kd': 1, 'kd(9, T=2, standardize=True)': 1.5, 'at': 1.25}
    assert found.note().endswith('; KD beside itself takes 0.90 to 1.10.')
    path.write_text('{}')
    with pytest.raises(ValueError, match='not what `make bench` writes'):
        method_cards(path)
    with pytest.raises(OSError, match='write it with make bench'):
        method_cards(tmp_path / 'no.json')
