"""README.md is nbs/index.ipynb, converted; its tables and the pages are those of today (links: test_links.py)."""
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
