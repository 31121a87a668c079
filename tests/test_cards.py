"The table of methods: every method is in it, every link leads somewhere, and README.md shows what it says today."

import ast
import json
import re
from configparser import ConfigParser
from pathlib import Path

import pytest

from docs.cards import Cards, method_cards
from kdnb.data import load_data
from kdnb.methods import CE, known_methods, parse_method
from kdnb.models import resnet
from kdnb.schemes import Distill
from kdnb.seeds import seeded

ROOT = Path(__file__).resolve().parent.parent
CARDS = method_cards()
each = pytest.mark.parametrize('card', CARDS, ids=[c['method'] for c in CARDS])


def text(nb):
    return '\n'.join(''.join(c['source']) for c in json.loads((ROOT / nb).read_text(encoding='utf-8'))['cells'])


def test_every_method_has_one_card():
    own = [type(parse_method(c['method'])[-1]) for c in CARDS if 'standardize' not in c['method']]
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
    assert len(links) == 3 * len(CARDS) and [l for l in links if not (ROOT / l).is_file()] == []


def test_the_web_address_is_the_repository():
    cfg = ConfigParser(delimiters=['='], interpolation=None)
    cfg.read(ROOT / 'settings.ini', encoding='utf-8')
    assert Cards.site == f"{cfg['DEFAULT']['git_url']}/blob/{cfg['DEFAULT']['branch']}/"


@pytest.mark.parametrize('nb', ['nbs/index.ipynb', 'README.md'])
def test_the_readme_shows_the_table_of_today(nb):
    said = (ROOT / nb).read_text(encoding='utf-8')
    if nb.endswith('.ipynb'):
        said = '\n'.join(
            ''.join(o['data'].get('text/markdown', ''))
            for c in json.loads(said)['cells']
            for o in c.get('outputs', [])
            if 'data' in o)
    assert method_cards(ROOT / 'nbs' / 'bench.json').markdown() in said, 'execute nbs/index.ipynb and run `make readme`'


@pytest.fixture(scope='module')
def batch(): return load_data('digits', size=16, n_train=100, bs=8, device='cpu').one_batch()


@each
def test_a_step_of_every_card(card, batch):
    with seeded(0):
        student = resnet(8)
    with seeded(1):
        scheme = Distill(student, resnet(8), card['method'], size=16)
    scheme.method[-1].measure([scheme.teacher(batch[0])[1][b] for _, b in scheme.pairs[-1]])
    losses, _ = scheme(*batch)
    list(losses.values())[-1].backward()
    assert (
        losses[scheme.names[-1]] > 0 and sum(p.grad.abs().sum() for p in student.parameters() if p.grad is not None) > 0
    )


def test_prices_are_those_of_the_file_and_no_others(tmp_path):
    spread = lambda v: dict(min=v, median=v, max=v)
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
