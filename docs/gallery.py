"""The gallery: one figure a method, taken from the outputs that the tutorials keep."""
import base64
import json
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from .links import ROOT

class Figure(NamedTuple):
    """A figure of a tutorial."""
    method: str
    tutorial: str
    cell: str
    caption: str

    @property
    def name(self) -> str:
        """Where the site keeps it."""
        return f'figures/{self.tutorial}-{self.cell}.png'

    @property
    def alt(self) -> str:
        """What it is, for those who do not see it."""
        return f'{self.caption} (tutorial {self.tutorial})'

FIGURES = (
    Figure('kd', '01_kd', 'dark-figure', 'What teacher and students say beyond the label, class by class'),
    Figure('kd(9, T=2, standardize=True)', '11_modern', 'spread-figure', 'How far logits spread, before and after'),
    Figure('dkd', '11_modern', 'parts-figure', "The parts of the loss: the label's class, and the others"),
    Figure('fitnet', '02_fitnets', 'channel', 'One channel: of the teacher, of the student behind its regressor'),
    Figure('at', '03_at', 'grid', 'Where teacher, alone and taught look'),
    Figure('nst', '04_nst', 'matrix-figure', "Which of the student's channels are like which of the teacher's"),
    Figure('ofd', '07_ofd', 'histogram-figure', "The teacher's numbers before the activation, and the margin"),
    Figure('rkd', '05_rkd', 'scatter', 'How far two images are apart: for the teacher, and for the students'),
    Figure('sp', '06_sp', 'blocks-figure', 'Which images a net finds alike'),
    Figure('reducenet', '08_reducenet', 'figure-shown', 'ReduceNet: accuracy before the cut, at it, and after it'),
    Figure('jointrd', '09_jointrd', 'gradient-figure', 'JointRD: the gradient at each stage, path by path'),
    Figure('online', '10_online', 'agree-shown', 'Online: how often students that learn together agree'))

def figure_of(method: str) -> Figure | None:
    """The figure of a method, or None."""
    return next((f for f in FIGURES if f.method == method), None)

@cache
def _outputs(tutorial: str) -> dict[str, list[dict]]:
    nb = json.loads((ROOT/f'nbs/tutorials/{tutorial}.ipynb').read_text(encoding='utf-8'))
    return {cell['id']: cell.get('outputs', []) for cell in nb['cells']}

def write_figures() -> dict[str, bytes]:
    """{name: picture}, each the last that its cell shows."""
    found = {}
    for figure in FIGURES:
        shown = [o['data'] for o in _outputs(figure.tutorial)[figure.cell] if 'image/png' in o.get('data', {})]
        found[figure.name] = base64.b64decode(''.join(shown[-1]['image/png']))
    return found

def _entry(figure: Figure, title: str) -> str:
    link = f'nbs/tutorials/{figure.tutorial}.ipynb'
    return f'## {title}\n\n{figure.caption} ([{figure.tutorial}]({link})).\n\n[![{figure.alt}]({figure.name})]({link})'

def gallery_page(cards: Iterable[dict]) -> str:
    """The page with all figures; it names the methods that have none."""
    names = {card['method']: card['name'] for card in cards}
    titles = {f: names.get(f.method, f.caption.partition(':')[0]) for f in FIGURES}
    places = ' · '.join(f"[{title}](#{title.lower().replace(' ', '-')})" for title in titles.values())
    without = ', '.join(f'{name}' for method, name in names.items() if not figure_of(method))
    return '\n\n'.join([
        '# Gallery', 'One figure a method, as the tutorials keep it. A picture leads to its tutorial, which says what '
        'it shows and what it does not.', places, *(_entry(f, title) for f, title in titles.items()),
        f'No tutorial draws a figure of its own yet for: {without}.']) + '\n'
