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

def results_page() -> str:
    "A table of longer runs, of which the results are kept."
    intro = (
        '# What came out on CIFAR-100\n\nresnet56 teaches resnet20, each method from the same initial weights, with '
        'the weights of the 240-epoch protocol and nothing tuned. REDUCED to ten epochs on 10,000 images: the table '
        'says which student learns quickly, and not which is best after the full schedule.')
    how = (
        'The teacher had 12 epochs on 45,000 images (56.6 %). After the full 240 epochs the published numbers (last or '
        'best epoch, as each reports) are 69.06 alone, 70.66 with KD, 71.97 with DKD, '
        '71.75 with DIST ([RepDistiller](https://github.com/HobbitLong/RepDistiller), '
        '[mdistiller](https://github.com/megvii-research/mdistiller), [DIST](https://github.com/hunto/DIST_KD)). '
        'The folders of these runs do not come with kdnb, their results do: [nbs/results.json](../nbs/results.json).'
        '\n\n'
        '`ls`, `kd_shuffled` and `self` are controls: smoothed labels without a teacher, KD with the dark knowledge '
        'shuffled, and a teacher that is only the student of another seed. Each row is three runs (one, where it is '
        'marked) such as\n\n```sh\nkdnb_distill --data cifar100 --n-train 10000 --epochs 10 --teacher hour-teacher '
        '--student resnet20 --method at --seed 0 --run hour-few-at-0\n```')
    table = load_results(ROOT/'nbs/results.json').table().markdown()
    short = re.sub(r'\d\.\d{5,}', lambda number: f'{float(number[0]):.3g}', table)
    return f'{intro}\n\n{short}\n\n{how}\n'

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
