"""A page for each method, made of its card and of the runs that kdnb keeps, and the list of these pages."""
import re

from kdnb.methods import parse_method
from kdnb.text import format_number

from .cards import Cards
from .evidence import evidence_of, published_of
from .gallery import figure_of

PAIRS = ('resnet56', 'resnet20'), ('resnet32x4', 'resnet8x4')

def page_name(card: dict) -> str:
    """The name of a method's page: 'kd-9-t-2-standardize-true'."""
    return re.sub(r'[^a-z0-9_]+', '-', card['method'].lower()).strip('-')

def _cost(card: dict, cards: Cards) -> str:
    extra = f"{card['extra_params']:,} parameters beside the student (resnet56 to resnet20, 100 classes)"
    if card['time'] is None or not cards.about: return f'{extra}. Time and memory of a step were not measured.'
    time, memory = format_number('.2f', card['time']), format_number('.2f', card['memory'])
    about = cards.about
    return (f"{extra}. A step takes {time} of plain KD's time and {memory} of its memory ({about['teacher']} to "
            f"{about['student']}, batch {about['bs']}, {about['device']}, {about['date']}).")

def _dagger(card: dict) -> str:
    """What a dagger among the weak spots means."""
    if '†' not in card['fails']: return ''
    return (' †: vgg13 to MobileNetV2, where the student alone has 64.60 and KD 67.37 '
            '([Tian et al.](https://arxiv.org/abs/1910.10699), published).')

def _ours(card: dict) -> str:
    found = evidence_of(card['method'])
    if not found: return 'No run of this method comes with kdnb yet.'
    rows = [f'| {e.setting} | `{e.means}` | {e.last} | {e.minus_alone} | {e.n} |' for e in found]
    heads = ('| setting | method in full | test %, last epoch | minus alone | seeds |\n'
             '|---|---|---:|---:|---:|')
    note = ("These are reduced runs, far shorter than the 240 epochs of the protocol; the runs come with "
            "kdnb (`load_results('zoo:*')`). The interval is of 95 % over seeds; one seed has none.")
    return '\n'.join([heads, *rows]) + f'\n\n{note}'

def _theirs(card: dict) -> str:
    found = list(published_of(card['method'], *PAIRS))
    if not found: return ''
    rows = [f'| {c.pair} | {c.value:.2f} | {c.alone:.2f} | {c.kd:.2f} | {c.source}, {c.rule} |' for c in found]
    heads = '| teacher to student | published | alone | KD | source and which epoch |\n|---|---:|---:|---:|---|'
    return ('**Published, not ours**: % right on CIFAR-100 after 240 epochs; alone and KD are of RepDistiller.\n\n'
            + '\n'.join([heads, *rows]) + '\n\n')

def _figure(card: dict) -> str:
    found = figure_of(card['method'])
    if not found: return ''
    return f'```{{figure}} ../{found.name}\n:figclass: kdnb-figure\n:alt: {found.alt}\n\n{found.caption}\n```\n\n'

def _answer(card: dict) -> str:
    """What came out, in a sentence for the top of the page."""
    own = [e for e in evidence_of(card['method']) if e.means == repr(parse_method(card['method']))]
    found = max(own, key=lambda e: e.n, default=None)
    if found is None: return 'No run of it with these weights comes with kdnb yet.'
    seeds = f'{found.n} seeds' if found.n > 1 else 'one seed'
    gain = '' if found.minus_alone == '–' else f', {found.minus_alone} over the student alone'
    return f'What came out here: {found.last} %{gain} ({found.setting}; {seeds}).'

def method_page(card: dict, cards: Cards) -> str:
    """The page of a method."""
    word = card['method']
    cell = card['cell'].replace('#', '#cell-id=')
    return f"""# {card['name']}

{card['by']}: [the paper]({card['paper']}). Type `{word!r}`; in full: `{card['weights']}`. {_answer(card)}

{_figure(card)}## Loss

{card['equation']}

$s$, $t$: what is read of student and teacher, behind the adapter; $\\sigma$: softmax; $T$: the temperature.
[The loss, explained and tested](../{cell}) · [its test](../{card['test']})

## What it reads and what it leaves free

- It reads: {card['reads']}.
- The student may change this without changing the loss (found by trying): {card['forgives']}.
- Weak spots: {card['fails']}.{_dagger(card)}

## Cost

{_cost(card, cards)}

## Evidence

{_ours(card)}

{_theirs(card)}## Three lines

```python
from kdnb.all import *
data = load_data('cifar100')
taught = Learner(Distill(create_model('resnet20', 100), 'teacher', {word!r}), data, run='taught').fit(60)
```

`'teacher'` is the run of a teacher that you trained before. Tutorial:
[{card['tutorial'].rpartition('/')[2]}](../{card['tutorial']}).
"""

def method_index(cards: Cards) -> str:
    """The list of the methods' pages."""
    rows = [f"| [{c['name']}]({page_name(c)}.md) | `{c['method']}` | {c['by']} | {c['reads']} | {c['forgives']} |"
            for c in cards]
    heads = '| method | type | by | reads | free to the student |\n|---|---|---|---|---|'
    names = ['/methods/table', *(f'/methods/{page_name(c)}' for c in cards)]
    tree = '\n'.join(['```{toctree}', ':hidden:', '', *names, '```'])
    return '\n\n'.join([
        '# Methods', 'Each page says what a method computes, what it reads, what it costs, and what came out; '
        '[one table](table.md) holds all of them.',
        '\n'.join([heads, *rows]), cards.note(), tree]) + '\n'
