"Figures take a teacher behind its `prepare`, put a dash for what cannot be measured, and draw names as they are."
import io
import math
import warnings

import pytest
import torch
from torch import nn

from kdnb.all import (
    Data,
    Distill,
    Frozen,
    compare,
    load_data,
    predict,
    resnet,
    show_attention,
    show_batch,
    show_cka,
    show_dark_knowledge,
    show_logits,
    show_similarity,
)
from kdnb.show import as_written, fonts_for
from kdnb.show.places import models_of_scheme

NAMES = ['$x_1^2$', 'cost: 5$ or 6$', 'a_b', r'\frac{', '^top', 'ärm', 'кот', 'γάτα', 'two  words', '%s {0}']


@pytest.fixture(scope='module')
def digits(): return load_data('digits', size=16, n_train=60, bs=20, device='cpu')


def half(x): return nn.functional.avg_pool2d(x, 2)


def texts(fig):
    "All that is written in a figure; it is drawn, so that what cannot be parsed is an error."
    fig.savefig(io.BytesIO())
    found = fig.findobj(lambda a: hasattr(a, 'get_parse_math') and a.get_text())
    assert not any(t.get_parse_math() and '$' in t.get_text() for t in found)
    return [t.get_text() for t in found]


# --- a teacher with images of its own

def test_a_teacher_behind_its_prepare_is_compared_and_asked(digits):
    net = resnet(14)
    teacher = Frozen(net, prepare=half)
    z, y = predict(teacher, digits.test)
    assert torch.allclose(z, predict(net, [(half(x), y) for x, y in digits.test])[0], atol=1e-5)
    found = compare(digits, teacher=teacher, alone=resnet(8), n=50)
    assert found.rows[0]['parameters'] == sum(p.numel() for p in net.parameters())
    assert found.rows[0]['accuracy'] == pytest.approx(100*(z.argmax(1) == y).float().mean().item())
    assert found.rows[0]['agreement'] == 100 and 'stage 2 of 3 (4x4)' in found.note and found.rows[1]['cka'] > 0
    x, y = digits.examples(20, per_class=2)
    models = dict(teacher=teacher, alone=resnet(8))
    for fig in (show_attention(models, x, digits), show_similarity(models, x, y), show_cka(models, x),
                show_logits(models, x, y, digits), show_dark_knowledge(models, x, y, digits)):
        assert any('teacher' in text for text in texts(fig))


def test_so_is_the_teacher_of_a_scheme(digits):
    scheme = Distill(resnet(8), Frozen(resnet(14), prepare=half), 'at')
    scheme.check(digits)
    models = models_of_scheme(scheme)
    assert models['teacher'] is scheme.teacher and list(models) == ['teacher', 'student']
    rows = compare(digits, **models, n=20).rows
    assert all(not math.isnan(row['agreement']) for row in rows)


# --- what cannot be had

def test_a_model_that_cannot_be_scored_has_dashes(digits):
    headless = nn.Sequential(*resnet(14).children())[:-1]

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = resnet(8)

        def forward(self, x): return self.net(x), x

    others = dict(backbone=headless, other=resnet(8, 7), pair=Pair())
    found = compare(digits, teacher=resnet(14), **others, alone=resnet(8), n=20)
    rows = {row['name']: row for row in found.rows}
    for name in 'backbone', 'other', 'pair':
        assert rows[name]['accuracy'] is None and math.isnan(rows[name]['agreement']) and rows[name]['cka'] > 0
        assert rows[name]['calibration'] is None and not math.isnan(rows[name]['attention'])
        line = next(line for line in found.table().text().split('\n') if line.startswith(name))
        assert '–' in line
    assert rows['alone']['accuracy'] is not None
    assert 'other (it returns (7,), and digits has 10 classes), pair (it returns no logits)' in found.note
    assert compare(digits, backbone=headless, n=20).rows[0]['accuracy'] is None
    assert compare(digits, teacher=headless, alone=resnet(8), n=20).rows[1]['accuracy'] >= 0


def test_measures_of_one_image_or_one_class_are_dashes(digits):
    models = dict(teacher=resnet(14), alone=resnet(8))
    found = compare(digits, **models, n=1)
    assert all(math.isnan(row['cka']) and math.isnan(row['attention']) for row in found.rows)
    x, y = digits.examples(4)
    assert any('blocks –' in text for text in texts(show_similarity(models, x, torch.zeros(4, dtype=torch.long))))
    assert any('–' in text for text in texts(show_attention(models, x[:1], digits)))


# --- names

@pytest.fixture(scope='module')
def named():
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8, generator=g)
    return Data((x, torch.arange(40) % 10), None, (x, torch.arange(40) % 10), NAMES, bs=20)


def test_class_names_are_drawn_as_they_are(named):
    models, everything = {'teacher': resnet(14), 'a$_1^$': resnet(8)}, ' '.join(NAMES)
    assert set(texts(show_batch(named, 20))) >= set(NAMES)
    drawn = texts(show_dark_knowledge(models, named))
    assert set(drawn) >= set(NAMES) and any(text.startswith('a$_1^$\n') for text in drawn)
    assert set(texts(show_logits(models, named, n=1))) >= set(NAMES)
    labels = [text for text in texts(compare(named, **models, n=20).fig) if text.startswith('label:')]
    assert len(labels) == 8 and all(text.split()[1] in everything for text in labels)


def test_another_script_is_written_in_a_font_that_has_it():
    from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

    from kdnb.show import new_figure, write_text
    own = set(get_font(findfont(FontProperties())).get_charmap())
    files = {f.name: f.fname for f in fontManager.ttflist if f.name != 'Last Resort'}
    theirs = {name: set(get_font(file).get_charmap()) - own for name, file in files.items()}
    fonts = {name: [c for c in chars if chr(c).isprintable()] for name, chars in theirs.items()}
    name, missing = next((name, chars) for name, chars in fonts.items() if chars)
    text = f'a{chr(max(missing))}'
    fonts_for.cache_clear()
    assert fonts_for('a') == () and fonts_for(text)
    assert as_written(text)['family'][0] == 'sans-serif' and as_written(text, 'monospace')['family'][0] == 'monospace'
    fig = new_figure(2, 1)
    write_text(fig, .1, .1, text)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert texts(fig) == [text]
