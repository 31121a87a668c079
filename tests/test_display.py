"""What a notebook shows: one output for a training, for a group and for a sweep; tables and figures in a cell."""
import re
import sys
import time
import warnings
from itertools import combinations

import IPython.display
import pytest
from matplotlib.text import Text

from kdnb import board
from kdnb.callbacks import Progress, live_curves, progress
from kdnb.data import load_data
from kdnb.experiments import jobs, load_results, sweep
from kdnb.measure import profile
from kdnb.methods import CE, KD
from kdnb.models import resnet
from kdnb.schemes import Alone, Distill, weigh
from kdnb.seeds import seeded
from kdnb.show import compare
from kdnb.systems import find_preset, recipes, systems
from kdnb.taps import find_taps
from kdnb.train import Callback, Learner, Run, fit_together

@pytest.fixture
def outputs(monkeypatch):
    """The outputs of a cell, each as the list of what it has shown."""
    shown = []
    class Output:
        def __init__(self, data): self.seen = [data]
        def update(self, data, raw): self.seen.append(data)
    def display(data, raw, display_id):
        shown.append(Output(data))
        return shown[-1]
    monkeypatch.setattr(IPython.display, 'display', display)
    for module in (board, progress): monkeypatch.setattr(module, 'in_notebook', lambda: True)
    monkeypatch.setattr(Learner, 'callbacks', [Progress])
    return shown

def learner(data, cbs=(), seed=0, **how):
    with seeded(seed): return Learner(resnet(8), data, cbs=list(cbs), **how)

def page(outputs): return outputs[-1].seen[-1]['text/html']

def test_a_fit_is_one_output_that_ends_with_a_picture_and_eight_epochs(data, outputs, quiet):
    Learner.callbacks = [Progress]
    learn = learner(data).fit(10)
    assert len(outputs) == 1 and page(outputs).count('<img ') == 1
    numbers = re.findall(r'<tr><td style="text-align: right">(\d+)</td>', page(outputs))
    assert numbers == [str(n) for n in range(3, 11)]
    best = max(learn.history, key=lambda row: row['valid_acc'])
    alt = re.search('<img alt="([^"]*)"', page(outputs))[1]
    assert '10 of 10 epochs' in alt and 'left' not in alt and 'images/s' in alt
    assert f"best valid {best['valid_acc']:.1f} % in epoch {best['epoch']}" in alt
    assert '10 of 10 epochs' in outputs[-1].seen[-1]['text/plain']

def test_colours_are_the_themes_and_the_height_is_fixed(data, outputs, quiet):
    Learner.callbacks = [Progress]
    learner(data).fit(1)
    styles = ' '.join(re.findall('style="([^"]*)"|<style>(.*?)</style>', page(outputs))[0])
    assert 'var(--jp-content-font-color1' in styles and 'class="kdnb-fit" style="height: 300px' in page(outputs)
    assert not re.search(r'background: #|color: (?!var)\S*#|[^-]color: white', page(outputs))

def test_it_is_as_high_before_the_first_epoch_and_says_what_is_left(data, outputs, quiet, monkeypatch):
    Learner.callbacks = [Progress]
    show = board.Board.show
    monkeypatch.setattr(board.Board, 'show', lambda self, now=False: show(self, True))
    learner(data).fit(2)
    seen = outputs[0].seen
    assert all('class="kdnb-fit" style="height: 300px' in shown['text/html'] for shown in seen)
    assert '0 of 2 epochs' in seen[0]['text/plain']
    assert any(re.search(r'1 of 2 epochs · .* · about .* left · .* images/s', shown['text/plain']) for shown in seen)

def test_a_saved_notebook_keeps_one_picture_with_its_words(data, outputs, quiet):
    nbformat, nbconvert = pytest.importorskip('nbformat'), pytest.importorskip('nbconvert')
    Learner.callbacks = [Progress]
    learner(data).fit(3)
    kept = nbformat.v4.new_output('display_data', outputs[0].seen[-1])
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell('learn.fit(3)', outputs=[kept])])
    shown, _ = nbconvert.HTMLExporter(template_name='basic').from_notebook_node(nb)
    pictures = re.findall('<img [^>]*>', shown)
    assert len(pictures) == 1 and 'alt="Losses and scores: 3 of 3 epochs' in pictures[0] and 'best valid' in pictures[0]

@pytest.mark.parametrize('terminal', [True, False])
def test_a_terminal_has_a_bar_and_a_pipe_nothing_that_moves(monkeypatch, capsys, terminal):
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: terminal)
    assert list(board.count_on(None, [1, 2, 3], 3)) == [1, 2, 3]
    assert bool(capsys.readouterr().out) == terminal

def test_it_is_written_once_a_second_at_most(outputs, monkeypatch):
    now = [0.]
    monkeypatch.setattr(time, 'monotonic', lambda: now[0])
    with board.Board(lambda: ('', '')) as shown:
        for now[0] in range(0, 30): shown.show()
        for _ in range(9): shown.show()
    assert len(outputs[0].seen) == 1 + 29 + 1

def test_a_run_that_goes_on_has_its_earlier_epochs_in_grey(data, outputs, quiet, tmp_path, monkeypatch):
    class Stop(Callback):
        def after_epoch(self, learn):
            if learn.epoch == 2: raise KeyboardInterrupt
    Learner.callbacks = [Progress]
    with pytest.raises(KeyboardInterrupt): learner(data, [Stop()], run=tmp_path/'run').fit(4)
    assert '2 of 4 epochs' in page(outputs) and 'left' not in page(outputs)
    drawn = []
    monkeypatch.setattr(progress, 'live_curves', lambda *given: drawn.append(given) or live_curves(*given))
    learner(data, run=tmp_path/'run').fit(4)
    rows, epochs, earlier = drawn[-1]
    assert (len(rows), epochs, earlier, len(outputs)) == (4, 4, 2, 2)
    grey = [line for line in live_curves(*drawn[-1]).axes[0].lines if line.get_color() == '#999999']
    assert list(grey[0].get_xdata()) == [1, 2]

def test_whole_epochs_and_a_legend_beside_the_curves(data, quiet):
    rows = learner(data, cbs=None or []).fit(3).history
    fig = live_curves(rows, 3)
    fig.canvas.draw()
    assert all(tick == int(tick) for tick in fig.axes[0].get_xticks())
    assert [(ax.get_xlabel(), ax.get_ylabel()) for ax in fig.axes] == [('epoch', 'loss'), ('epoch', 'accuracy, %')]
    best = max(rows, key=lambda row: row['valid_acc'])
    assert [list(line.get_xdata()) for line in fig.axes[1].lines if line.get_marker() == 'o'] == [[best['epoch']]]
    legend = fig.legends[0].get_window_extent()
    assert all(legend.x0 > ax.get_window_extent().x1 for ax in fig.axes) and legend.x1 <= fig.bbox.x1

def test_a_group_is_one_output(data, outputs, quiet):
    Learner.callbacks = [Progress]
    fit_together([learner(data), learner(data)], 2)
    assert len(outputs) == 1 and 'best learner ' in page(outputs) and page(outputs).count('<img ') == 1

def test_a_board_within_a_board_is_one_output(outputs):
    with board.Board(lambda: ('outer', 'outer')), board.Board(lambda: ('inner', 'inner')): pass
    assert len(outputs) == 1 and 'inner' in outputs[0].seen[-2]['text/html'] and 'inner' not in page(outputs)

def test_a_sweep_is_one_output(data, outputs, quiet, monkeypatch, capsys):
    Learner.callbacks = [Progress]
    monkeypatch.setattr(jobs, 'in_notebook', lambda: True)
    sweep('resnet8', method=['ls', 'ls(.2)'], seeds=1, epochs=1, data=data)
    seen = [data['text/plain'] for data in outputs[0].seen]
    assert len(outputs) == 1 and 'run' not in capsys.readouterr().out
    assert any('0 of 3 runs done, 3 running, 0 left\nrunning: ' in text and 'best' in text for text in seen)
    assert seen[-1] == '3 of 3 runs done, 0 running, 0 left'
    assert '<img' not in page(outputs)

def test_what_a_person_meets_is_a_table_in_a_cell(data, quiet):
    run = Run()
    run.save_json('config.json', {'student': 'resnet8', 'epochs': 3, 'about': {}})
    weighed = weigh(Distill(resnet(8), resnet(8), 'kd', size=8), data.one_batch())
    met = {'train': data, 'resnet8': learner(data), 'parameters': Alone(resnet(8)), 'ce': CE(.5) + KD(.5),
           'KD(0.5, T=4)': KD(.5), 'epochs': run, 'nesterov': recipes['crd'], 'cifar100': find_preset('crd'),
           '8 x 8': data.train, 'images in a batch': data.test, 'RepDistiller': systems['crd'],
           'stage': find_taps(resnet(8), 8), 'latency': profile(resnet(8), size=8), 'cosine': weighed}
    for word, thing in met.items():
        page = thing._repr_html_()
        assert word in page and page.count('<table') == page.count('overflow-x: auto') == 1, thing
    assert repr(data.test) == 'Split: 719 images of 8 x 8 pixels, batches of 256'
    assert repr(data.train).startswith('TrainSplit: 100 images')
    assert all(len(repr(thing)) < 3_000 and ' object at 0x' not in repr(thing) for thing in met.values())
    for tables in (load_results('zoo:shapes-resnet8-kd-*'), load_results('zoo:shapes-resnet8-kd-*').table()):
        assert '<table' in tables._repr_html_() and 'overflow-x: auto' in tables._repr_html_()

def test_six_nets_are_compared_without_two_captions_on_each_other(quiet):
    data = load_data('digits', size=16, n_train=60, bs=20, device='cpu')
    names = ['teacher', 'alone', 'another', 'taught', 'review_and_attention', 'without_shortcuts']
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        found = compare(data, n=20, **{name: resnet(8) for name in names})
    found.fig.draw_without_rendering()
    texts = [t for t in found.fig.findobj(Text) if t.get_text().strip() and t.get_visible()]
    texts = [t for t in texts if t.axes is None or t.axes.axison]
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts]
    assert [(a, b) for (a, x), (b, y) in combinations(boxes, 2) if x.overlaps(y)] == []
    assert min(t.get_fontsize() for t in texts)*found.fig.dpi/96 >= 8
    assert 'agrees' not in ' '.join(t.get_text() for t in texts)         # the table is apart
    page = found._repr_html_()
    assert page.count('<table') == page.count('<img') == 1 and 'alt="teacher, alone' in page
    assert page.count('<br>') == 0                                      # one footnote
