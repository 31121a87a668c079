"""README.md is nbs/index.ipynb, converted; its tables and the pages are those of today (links: test_links.py)."""
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.pages import PAGES
from docs.tables import five_systems, ten_methods

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT/'README.md').read_text(encoding='utf-8')

def files(root):
    paths = [root/'README.md', *(root/'README_files').glob('*')]
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in paths}

def test_readme_is_the_index(tmp_path):
    config = ['--config', 'docs/readme.py', '--output-dir', tmp_path]
    command = [sys.executable, '-m', 'nbconvert', *config, 'nbs/index.ipynb']
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    committed, converted = files(ROOT), files(tmp_path)
    assert [p for p in {**committed, **converted} if committed.get(p) != converted.get(p)] == [], 'run `make readme`'

def test_readme_is_short():
    assert len(README.splitlines()) <= 200
    assert [word for word in ('missed', 'goal') if word in README] == []

def test_readme_has_what_it_should_and_no_more():
    heads = re.findall('^## (.+)', README, re.M)
    assert heads == ['Two commands', 'Ten lines', 'Ten methods', 'Five systems under one roof', 'Read on']
    opening, commands, lines, methods, systems, links = re.split('^## .+', README, flags=re.M)
    assert len(re.findall(r'!\[', opening)) == 1, 'one figure'
    what = [part for part in opening.split('\n\n') if 'kdnb' in part and part[0] not in '#>!*\n']
    assert len(re.findall(r'[.?!](?:\s|$)', what[-1])) == 3, 'what kdnb is, in three sentences'
    assert all(command in commands for command in ('make run', 'make test'))
    code = re.search('```python\n(.+?)```', lines, re.S)[1]
    assert len([line for line in code.splitlines() if line.strip()]) == 10
    assert len(re.findall(r'^\| \[', methods, re.M)) == 10 and len(re.findall(r'^\| \[', systems, re.M)) == 5
    assert len(re.findall('^- ', links, re.M)) == 5

def test_the_tables_of_readme_are_those_of_today():
    shown = README.replace('](nbs/', '](')
    assert [table for table in (ten_methods(), five_systems()) if table not in shown] == [], 'run `make readme`'

def test_every_room_is_in_the_reading_order():
    rooms = [p.parent for p in (ROOT/'nbs').glob('*/*.ipynb') if p.parent.name[0] not in '._']
    order = (ROOT/'docs/works.md').read_text(encoding='utf-8')
    assert [room.name for room in {*rooms} if f'](../nbs/{room.name})' not in order] == []

@pytest.mark.parametrize('path', PAGES)
def test_a_page_is_of_today(path):
    text = (ROOT/path).read_text(encoding='utf-8')
    assert text == PAGES[path](), 'run `make readme`'
