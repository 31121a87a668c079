"""The page "Which method?" is the one that the cards make, has a row for each, and says what their terms ask for."""

from pathlib import Path

import pytest

from bench.methods import BESIDE, method_names
from docs.cards import method_cards, own_term
from docs.which import OTHERS, choices, needs_of, which_page
from kdnb.schemes import known_schemes, parse_scheme

ROOT = Path(__file__).resolve().parent.parent
CARDS = method_cards()
PAGE = (ROOT/'docs/which.md').read_text(encoding='utf-8')


def test_the_page_is_fresh():
    assert which_page() == PAGE, 'run `python -m docs.pages`'


@pytest.mark.parametrize('card', CARDS, ids=[c['method'] for c in CARDS])
def test_needs_are_those_of_the_term(card):
    term, needs = own_term(card['method']), needs_of(card)
    assert (needs['index'], needs['view'], needs['batch']) == (
        'index' in term.asks, 'view' in term.asks, term.batchwise)
    assert f"`{card['method']}` | {needs['reads']} |" in PAGE
    assert (needs['reads'] == 'logits' or not needs['reads']) == (term.taps is None)


def test_each_case_has_methods_and_none_has_controls():
    chosen = choices(CARDS)
    assert len(chosen) == 5 and all(chosen.values())
    assert not {'ls', 'self', 'kd_shuffled'} & {m for methods in chosen.values() for m in methods}
    other_classes = chosen['The teacher has other classes, or no classifier']
    assert {'at', 'review', 'crd'} <= set(other_classes) and not {'kd', 'dkd', 'cat', 'sdd'} & set(other_classes)
    assert all('crd' not in methods for case, methods in chosen.items() if 'without numbers' in case)


def test_what_needs_no_teacher_is_there_and_is_timed():
    own = {name for name, scheme in known_schemes.items() if not scheme.taught}
    made = [found[0] for found in map(parse_scheme, BESIDE) if found]
    assert own == {name for name, scheme in known_schemes.items() if scheme in made}
    assert set(OTHERS) == set(BESIDE) and set(BESIDE) < set(method_names())


def test_published_gains_are_marked_and_have_their_source():
    published = PAGE.split('## What others published')[1]
    assert published.lstrip().startswith('**Published, not ours**')
    assert '| `crd` | +2.54 (7) | +4.60 (6) | RepDistiller | last epoch |' in published
    assert 'RepDistiller' not in PAGE.split('## What others published')[0]
