"""A tutorial says how much it computes, and how long that takes, before anything is trained."""
import ast
import json
import re

import house
import pytest
from house import ROOT, TUTORIALS

from kdnb.data import read_zoo
from kdnb.experiments import choose_budget

TIMES = re.compile(r"budget = choose_budget\((?:zoo=[\d.]+, )?minute=(\d+), hour=(\d+), gpu=(\d+)\)")
CELLS = {p: c for p, nb in TUTORIALS.items() for c in nb['cells'] if c['id'] == 'knobs'}

@pytest.mark.parametrize('word', ['test', 'minute', 'hour', 'gpu'])
def test_the_word_is_taken_and_told_with_its_time(monkeypatch, caplog, word):
    monkeypatch.setenv('KDNB_BUDGET', word)
    with caplog.at_level('INFO', 'kdnb'): assert choose_budget(minute=6, hour=150, gpu=70) == word
    times = dict(test='under a minute', minute='about 6 min on one core', hour='some 2.5 h on a CPU',
                 gpu='some 70 min on a GPU')
    first, second = (r.getMessage() for r in caplog.records)
    assert first == f'budget {word!r}: {times.pop(word)}; runs that are finished are loaded in seconds'
    assert all(f'{other}, {time}' in second for other, time in times.items()) and 'estimates' in second

@pytest.mark.parametrize('there, word', [(True, 'gpu'), (False, 'minute')])
def test_without_a_word_the_machine_decides(monkeypatch, there, word):
    monkeypatch.delenv('KDNB_BUDGET', raising=False)
    monkeypatch.setattr('torch.cuda.is_available', lambda: there)
    assert choose_budget(6, 150, 70) == word

def test_with_runs_of_the_zoo_these_are_loaded(monkeypatch, caplog):
    monkeypatch.delenv('KDNB_BUDGET', raising=False)
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    with caplog.at_level('INFO', 'kdnb'): assert choose_budget(6, 150, 70, zoo=.5) == 'zoo:minute'
    assert "budget 'zoo': about 30 s, nothing is trained" in caplog.text and 'minute, about 6 min' in caplog.text
    monkeypatch.setenv('KDNB_BUDGET', 'zoo')
    assert choose_budget(6, 150, 70, zoo=.5) == 'zoo:minute'
    with pytest.raises(ValueError, match="KDNB_BUDGET is 'zoo': set it to one of test, minute, hour, gpu"):
        choose_budget(6, 150, 70)

def test_an_unknown_word_is_refused(monkeypatch):
    monkeypatch.setenv('KDNB_BUDGET', 'minutes')
    with pytest.raises(ValueError, match="KDNB_BUDGET is 'minutes': set it to one of test, minute, hour, gpu"):
        choose_budget(6, 150, 70)

def first_fit(nb: dict) -> int:
    """The number of the first cell that trains."""
    return min(i for i, c in enumerate(nb['cells']) if c['cell_type'] == 'code' and '.fit(' in house.text(c['source']))

@pytest.mark.parametrize('path', list(CELLS))
def test_a_tutorial_tells_its_budget_before_it_trains(path):
    cell, nb = CELLS[path], TUTORIALS[path]
    told = ''.join(house.text(o.get('text', '')) for o in cell['outputs'])
    assert nb['cells'].index(cell) < first_fit(nb)
    minute = TIMES.search(house.text(cell['source']))[1]
    assert re.match("budget '(zoo|minute|hour)': ", told) and f'about {minute} min on one core' in told

def test_minutes_are_those_of_the_zoo():
    """What the runs took that come with kdnb; beside them a notebook loads or makes up to a dozen shared ones."""
    for path, cell in CELLS.items():
        minute = int(TIMES.search(house.text(cell['source']))[1])
        own = [n for n, run in read_zoo().items() if n and 'BUDGET=minute' in run['command'] and path in run['command']]
        rows = [json.loads(line) for n in own for line in (ROOT/'zoo'/n/'history.jsonl').read_text().splitlines()]
        seconds = sum(row['seconds'] for row in rows)
        assert seconds - 30 <= 60*minute <= seconds + 800, f'{path}: {seconds:.0f} s'

def test_what_a_tutorial_opens_with_is_in_the_zoo():
    """The runs that a tutorial loads have their weights; 90 and 91 read scores only."""
    zoo = read_zoo()
    for path, cell in CELLS.items():
        if 'zoo:minute' not in house.text(cell['source']): continue
        told = ''.join(house.text(o.get('text', '')) for c in TUTORIALS[path]['cells'] for o in c.get('outputs', []))
        loaded = set(re.findall(r"run 'zoo:([\w-]+)': finished", told))
        of_it = {n for n, run in zoo.items() if n and 'BUDGET=minute' in run['command'] and path in run['command']}
        if '90_' not in path and '91_' not in path: loaded |= of_it
        assert of_it and not [n for n in loaded if 'last.pt' not in zoo[n]['files']], path

def test_the_others_say_that_there_is_nothing_to_choose():
    for path, nb in TUTORIALS.items():
        if path in CELLS: continue
        said = ' '.join(house.text(c['source']) for c in nb['cells'][:5] if c['cell_type'] == 'markdown')
        assert re.search(r'o budget has to be chosen: the notebook takes about (a minute|\d+ seconds)', said), path

def test_budgets_are_written_once():
    """The rows of a budget's cell are named as the budgets are."""
    for path, cell in CELLS.items():
        dicts = [n for n in ast.walk(ast.parse(house.text(cell['source']))) if isinstance(n, ast.Dict)]
        names = next(keys for d in dicts if 'test' in (keys := [k.value for k in d.keys]))
        assert [n for n in names if n != 'zoo:minute'] == ['test', 'minute', 'hour', 'gpu'], path
        assert ('zoo:minute' in names) == ('zoo=' in house.text(cell['source'])), path

def test_minutes_are_numbers():
    with pytest.raises(TypeError, match="minute= is a number of minutes, not 'six'"): choose_budget('six', 1, 1)
