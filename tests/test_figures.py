"""Every figure: letters of 8 points or more as shown in a browser, and words for those who do not see it."""
import base64
import io

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

from kdnb.callbacks import Film, LRFinder, show_film
from kdnb.data import load_data
from kdnb.experiments import load_results, show_grid, show_tradeoff
from kdnb.models import resnet
from kdnb.seeds import seeded
from kdnb.show import (
    PALETTE,
    colour_of,
    compare,
    figure_html,
    show_attention,
    show_bars,
    show_batch,
    show_cka,
    show_curves,
    show_dark_knowledge,
    show_histograms,
    show_history,
    show_images,
    show_logits,
    show_maps,
    show_matrices,
    show_points,
    show_similarity,
)
from kdnb.train import Learner

SIX = 'teacher', 'alone', 'another', 'taught', 'a_longer_name_than_the_axes_have_room_for', 'sixth'

@pytest.fixture(scope='module')
def few(): return load_data('digits', size=16, n_train=100, bs=20, device='cpu')

@pytest.fixture(scope='module')
def nets():
    with seeded(0): return {name: resnet(14 if name == 'teacher' else 8) for name in SIX}

def drawn_by_hand() -> dict[str, Figure]:
    """Figures of numbers that a person gives: two panels or rows of all six names."""
    both = 'with shortcuts', 'without shortcuts'
    curve = {k: {name: {0: 1., 1: 2. + i} for i, name in enumerate(SIX)} for k in both}
    values = {k: {name: [0., 1., i] for i, name in enumerate(SIX)} for k in both}
    bars = {k: {f'before the cut {n}': {'seed 0': 56.9, 'seed 1': 101.25} for n in (1, 2)} for k in both}
    maps = {k: {f'{name}\n12 %': np.full((4, 4), .5*i) for i, name in enumerate(SIX)} for k in both}
    marks = {k: dict(mean=.5, least=.1) for k in both}
    return dict(curves=show_curves(curve, x='epoch', y='loss', marks=marks), bars=show_bars(bars, 'accuracy, %', marks),
                histograms=show_histograms(values, 'logit', marks), images=show_images(maps, ['nothing', 'something']))

@pytest.fixture(scope='module')
def figures(few, nets, tmp_path_factory):
    """One of each kind: {name: figure}."""
    x, y = few.examples(40, per_class=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('KDNB_RUNS', str(tmp_path_factory.mktemp('runs')))
        patch.setattr(Learner, 'callbacks', [])
        finder = LRFinder()
        Learner(resnet(8), few, cbs=[finder]).fit(1)
        film = show_film({'alone': Learner(resnet(8), few, run='filmed', cbs=[Film(epochs=[0, 1])]).fit(1)}, n=2)
    results = load_results('zoo:shapes-resnet8-*')
    kd = [row for row in results if row['method'] == 'CE(0.1) + KD(0.9, T=4)']
    assert kd
    m, a = torch.arange(48.).view(3, 4, 4)/48, torch.arange(100.).view(10, 10)/100
    maps = {'stage 1': dict.fromkeys(SIX, m), 'minus teacher': {'taught': m - .5}}
    matrices = {'similarity': dict.fromkeys(SIX[:4], a), 'minus teacher': {'alone': a - .5, 'taught': a - a}}
    halves = {'near': a[0] < .05, 'far': a[0] >= .05}
    return dict(
        batch=show_batch(few), attention=show_attention(nets, x, few), similarity=show_similarity(nets, x, y),
        cka=show_cka(nets, x), logits=show_logits(nets, x, y, few), dark=show_dark_knowledge(nets, few),
        history=show_history({'alone': [dict(epoch=1, ce=2.3, valid_acc=11.), dict(epoch=2, ce=1.9, valid_acc=34.)]}),
        compare=compare(few, **nets, n=50).fig, **drawn_by_hand(), film=film, rates=finder.show(),
        grid=show_grid(kd), tradeoff=show_tradeoff(results, 'parameters'),
        maps=show_maps(x[:3], maps, few, ['two', 'lines\nhere', 'one']), matrices=show_matrices(matrices, few.classes),
        points=show_points(a[0], {'alone': a[3], 'taught': a[0]}, halves, 'teacher', 'student'))

BY_HAND = ['curves', 'bars', 'histograms', 'images']
KINDS = ['batch', 'attention', 'similarity', 'cka', 'logits', 'dark', 'history', 'compare', 'film', 'rates', 'grid',
         'tradeoff', 'maps', 'matrices', 'points', *BY_HAND]

def texts_of(fig) -> list[Text]:
    """The texts that are seen."""
    fig.savefig(io.BytesIO())
    return [text for text in fig.findobj(Text) if text.get_text().strip() and text.get_visible()]

@pytest.mark.parametrize('kind', KINDS)
def test_letters_have_8_points_where_they_are_shown(figures, kind):
    fig = figures[kind]
    small = {t.get_text(): t.get_fontsize() for t in texts_of(fig) if t.get_fontsize()*fig.dpi/96 < 8}
    assert small == {}

@pytest.mark.parametrize('kind', KINDS)
def test_a_figure_is_told_in_words(figures, kind):
    words = figures[kind].get_label()
    assert 40 < len(words) <= 700 and f'<img alt="{words[:30]}' in figure_html(figures[kind])
    assert figures[kind]._repr_mimebundle_()[1] == {'image/png': {'alt': words}}

def test_a_notebook_keeps_the_words_with_the_picture(figures):
    from IPython.core.interactiveshell import InteractiveShell
    from matplotlib_inline.backend_inline import select_figure_formats
    shell = InteractiveShell()
    select_figure_formats(shell, {'png'})
    data, metadata = shell.display_formatter.format(figures['cka'])
    assert base64.b64decode(data['image/png']).startswith(b'\x89PNG')
    assert metadata['image/png']['alt'] == figures['cka'].get_label()

@pytest.mark.parametrize('kind', ['attention', 'similarity', 'cka', 'dark', 'compare', 'logits', 'maps', 'matrices',
                                  'bars', 'images'])
def test_captions_of_six_nets_do_not_collide(figures, kind):
    fig = figures[kind]
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts_of(fig)]
    wide, high = fig.bbox.size
    over = [a for a, box in boxes if box.x0 < -1 or box.y0 < -1 or box.x1 > wide + 1 or box.y1 > high + 1]
    both = [(a, b) for i, (a, box) in enumerate(boxes) for b, other in boxes[:i] if collide(box, other)]
    assert (over, both) == ([], [])

NUMBERS = dict(curves='with shortcuts, alone 1 to 3', bars='before the cut 1 seed 0 56.9',
               histograms='with shortcuts, sixth mean 2', images='alone 12 %')

@pytest.mark.parametrize(('kind', 'number'), NUMBERS.items())
def test_the_words_have_the_numbers(figures, kind, number):
    assert number in figures[kind].get_label()

@pytest.mark.parametrize('kind', ['curves', 'bars', 'histograms'])
def test_a_legend_names_each_thing_once_and_covers_no_axes(figures, kind):
    fig = figures[kind]
    fig.savefig(io.BytesIO())
    legend, = fig.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert len(names) == len(set(names)) == (4 if kind == 'bars' else 8)
    assert all(not collide(legend.get_window_extent(), ax.get_tightbbox()) for ax in fig.axes)

def collide(a, b) -> bool:
    """Whether two boxes share more than a pixel both ways."""
    return min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1

def test_maps_share_a_scale_in_a_row_and_differences_have_zero_in_the_middle(figures):
    maps = [ax.images[0] for ax in figures['maps'].axes]
    assert maps[3].get_clim() == maps[4].get_clim() != maps[3 + len(SIX)].get_clim()      # an image, another image
    assert [round(sum(m.get_clim()), 6) for m in maps[-3:]] == [0, 0, 0] and maps[-1].cmap.name.startswith('RdBu')
    matrices = [ax.images[0] for ax in figures['matrices'].axes if ax.images]
    assert len({m.get_clim() for m in matrices[:4]}) == 1 and sum(matrices[-1].get_clim()) == 0
    assert 'alone -0.005' in figures['matrices'].get_label() and 'taught 0.045' in figures['points'].get_label()

# What the three kinds of colour blindness make of linear RGB (Machado, Oliveira and Fernandes 2009, severity 1).
SEEN = {
    'protan': [[.152286, 1.052583, -.204868], [.114503, .786281, .099216], [-.003882, -.048116, 1.051998]],
    'deutan': [[.367322, .860646, -.227968], [.280085, .672501, .047413], [-.011820, .042940, .968881]],
    'tritan': [[1.255528, -.076749, -.178779], [-.078411, .930809, .147602], [.004733, .691367, .303900]]}

@pytest.mark.parametrize('kind', SEEN)
def test_colours_differ_for_the_colour_blind(kind):
    from matplotlib.colors import to_rgb
    names = [colour_of(name, 0) for name in ('teacher', 'alone', 'another', 'taught')]
    for colours in (names, PALETTE[:4]):
        linear = np.array([to_rgb(c) for c in colours])**2.2
        seen = np.clip(linear @ np.array(SEEN[kind]).T, 0, 1)**(1/2.2)
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + np.eye(len(seen))
        assert apart.min() > .15, colours

@pytest.mark.parametrize('call', [
    lambda: show_matrices(3), lambda: show_maps(torch.rand(2, 3, 8, 8), 3), lambda: show_points(torch.rand(3), 2, 3)])
def test_what_is_no_dict_is_refused_in_words(call):
    with pytest.raises(TypeError, match=r'a dict \{.*\}, not int'): call()
