"""Write what README and the site show: the tables in nbs/index.ipynb, and docs/clusters.md, docs/five.md,
docs/results.md, docs/speed.md and docs/which.md.

`make readme` runs `python -m docs.pages` before it converts the notebook. The tables of the notebook are the outputs of
its cells with `#| echo: false`. These only read files and ask methods, so they are made anew here, without the networks
that the other cells train.
"""
import os
import re
from pathlib import Path

from bench.speed import Speed, machines
from kdnb.experiments import load_results

from .clusters import clusters_page
from .five import five_sections
from .growth import GROWTH, growth_figure
from .which import which_page

ROOT = Path(__file__).resolve().parent.parent
INDEX = ROOT/'nbs/index.ipynb'

def _of_machine(speed: Speed) -> str:
    "What was measured on a machine: speed, limits, goals, levers, profile and growth, as far as it is there."
    parts = [f'## {speed.machine}', speed.paragraph()]
    if speed.rows('limits'):
        parts += ['### What the hardware can do', 'A product of two large matrices and a large copy, and the share of '
                  'it that a step of KD reaches: operations and bytes of its convolutions and products '
                  '([how](../bench/parts.py)).', speed.limits()]
    if speed.rows('speed'):
        parts += ['### Goals', speed.goals()]
    if speed.rows('levers'):
        parts += ['### Levers', 'Each lever is taken away from the whole, or put on top of it '
                  '([how](../bench/levers.py)).', speed.levers()]
    if speed.rows('parts'):
        parts += ['### Profile', 'Parts of a step, kinds of work, and what a step cannot be faster than '
                  '([how](../bench/parts.py)).', speed.profile()]
    if speed.rows('growth'):
        parts += ['### As the work grows', GROWTH, f'![Time of a step]({growth_figure(speed)})', speed.growth()]
    return '\n\n'.join(parts)

def speed_page() -> str:
    "What was measured on each machine, from nbs/bench*.json."
    intro = (
        '# How fast, and why\n\nWhat `make bench` found on each machine: kdnb beside '
        '[the plain way](../bench/plain.py). Each figure has the least and the most of the rounds, and is of the day '
        'that its paragraph names. `make bench ARGS="--write nbs/bench-NAME.json"` and `make readme` add a machine.')
    return '\n\n'.join([intro, *map(_of_machine, machines(ROOT/'nbs'))]) + '\n'

def five_page() -> str:
    "The commands of the five systems."
    intro = (
        '# Commands of the five systems\n\nWhat the README of each source system tells its users to type, and what to '
        'type here. Each command of ours is [typed by a test](../tests/slow/test_five.py). '
        'A run holds out a tenth of the '
        'training images to choose the best epoch; `--valid 0` trains on all, as these systems do. The word after '
        '`--run` is what a later command calls the result.')
    return f'{intro}\n\n{five_sections()}\n'

RESULTS = {
    'short': ('All of CIFAR-100', 'resnet20 teaches resnet8 on all training images but the held-out tenth, one cycle, '
              'three seeds, weights of the 240-epoch protocol and nothing tuned.'),
    'shapes-resnet8': ('Five hundred drawn images', "resnet8 gets 500 of the images of `load_data('shapes')`, its "
                       'teacher saw 7,200; five seeds, nothing tuned.')}

def results_page() -> str:
    "The tables of runs that come with kdnb."
    parts = ['# What came out', 'Each run behind these tables comes with kdnb and can be opened: its configuration, '
             'the history of its epochs and its result, of teachers and one seed of each student the weights, too '
             '([list](../nbs/03_data/00b_zoo.ipynb)). `ls` (smoothed labels without a teacher) and `kd_shuffled` (KD '
             'with its dark knowledge shuffled) are controls. What can be read from the tables and what cannot: '
             '[all methods, one budget](../nbs/tutorials/91_compare.ipynb).']
    for runs, (title, how) in RESULTS.items():
        table = load_results(f'zoo:{runs}-*').table().markdown()
        short = re.sub(r'\d\.\d{5,}', lambda number: f'{float(number[0]):.3g}', table)
        parts += [f'## {title}', how, short, f"`load_results('zoo:{runs}-*').table()`"]
    return '\n\n'.join(parts) + '\n'

PAGES = {'docs/clusters.md': clusters_page, 'docs/five.md': five_page, 'docs/results.md': results_page,
         'docs/speed.md': speed_page, 'docs/which.md': which_page}

def _is_told(cell) -> bool:
    "Whether a cell only shows a table, or imports what such a cell needs."
    if cell.cell_type != 'code' or '#| eval: false' in cell.source: return False
    shows = cell.source.startswith('#| echo: false') and 'Markdown(' in cell.source
    return shows or cell.source.startswith('#| hide')

def refresh_tables(nb) -> None:
    "Make the tables of a notebook of nbformat anew, from its hidden cells and those with `#| echo: false`, in order."
    from nbformat.v4 import new_output
    names: dict = {}
    exec('from kdnb.all import *', names)
    for cell in filter(_is_told, nb.cells):
        *above, last = cell.source.split('\n')
        exec('\n'.join(above), names)
        if not last.startswith('Markdown('):
            exec(last, names)
            continue
        data = {'text/markdown': eval(last, names).data, 'text/plain': '<IPython.core.display.Markdown object>'}
        cell.outputs = [new_output('execute_result', data, execution_count=None)]

def write_pages() -> None:
    "Write the pages and the tables."
    import nbformat  # 5 s of processor time
    for path, make in PAGES.items():
        (ROOT/path).write_text(make(), encoding='utf-8')
    nb = nbformat.read(INDEX, as_version=4)
    os.chdir(INDEX.parent)
    refresh_tables(nb)
    nbformat.write(nb, INDEX)

if __name__ == '__main__':
    write_pages()
