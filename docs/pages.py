"""Write what README shows and links to: the tables in nbs/index.ipynb, docs/five.md, docs/speed.md and
docs/which.md.

`make readme` runs `python -m docs.pages` before it converts the notebook. The tables of the notebook are the outputs of
its cells with `#| echo: false`. These only read files and ask methods, so they are made anew here, without the networks
that the other cells train.
"""
import os
from pathlib import Path

import nbformat

from bench.speed import Speed

from .five import five_table
from .which import which_page

ROOT = Path(__file__).resolve().parent.parent
INDEX = ROOT/'nbs/index.ipynb'

def speed_page() -> str:
    "Goals, levers and profile, from nbs/bench.json."
    speed = Speed(ROOT/'nbs/bench.json')
    intro = (
        '# How fast, and why\n\nWhat `make bench` found on one machine: kdnb beside '
        '[the plain way](../bench/plain.py). Each figure has the least and the most of the rounds, and is of the day '
        'that the first paragraph names.')
    return '\n\n'.join([
        intro, speed.paragraph(), '## Goals', speed.goals(), '## Levers',
        'Each lever is taken away from the whole, or put on top of it ([how](../bench/levers.py)).', speed.levers(),
        '## Profile', 'Parts of a step, kinds of work, and what a step cannot be faster than '
        '([how](../bench/parts.py)).', speed.profile()]) + '\n'

def five_page() -> str:
    "The commands of the five systems."
    intro = (
        '# Commands of the five systems\n\nWhat the README of each source system tells its users to type, and what to '
        'type here. Each command of ours is [typed by a test](../tests/slow/test_five.py). '
        'A run holds out a tenth of the '
        'training images to choose the best epoch; `--valid 0` trains on all, as these systems do. The word after '
        '`--run` is what a later command calls the result.')
    return f'{intro}\n\n{five_table()}\n'

PAGES = {'docs/five.md': five_page, 'docs/speed.md': speed_page, 'docs/which.md': which_page}

def _is_told(cell) -> bool:
    "Whether a cell only shows a table, or imports what such a cell needs."
    first = cell.source.split('\n', 1)[0]
    return cell.cell_type == 'code' and first in ('#| echo: false', '#| hide')

def refresh_tables(nb: nbformat.NotebookNode) -> None:
    "Make the tables of a notebook anew, from its hidden cells and those with `#| echo: false`, in order."
    names: dict = {}
    exec('from kdnb.all import *', names)
    for cell in filter(_is_told, nb.cells):
        *above, last = cell.source.split('\n')
        exec('\n'.join(above), names)
        if not last.startswith('Markdown('):
            exec(last, names)
            continue
        data = {'text/markdown': eval(last, names).data, 'text/plain': '<IPython.core.display.Markdown object>'}
        cell.outputs = [nbformat.v4.new_output('execute_result', data, execution_count=None)]

def write_pages() -> None:
    "Write the pages and the tables."
    for path, make in PAGES.items():
        (ROOT/path).write_text(make(), encoding='utf-8')
    nb = nbformat.read(INDEX, as_version=4)
    os.chdir(INDEX.parent)
    refresh_tables(nb)
    nbformat.write(nb, INDEX)

if __name__ == '__main__':
    write_pages()
