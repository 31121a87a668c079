"What the notebook of pictures cannot show: other people's models, and that looking leaves no trace."

import ast
import re

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
import torchvision
from torch import nn

from kdnb.data import Data
from kdnb.measure import accuracy, evaluating, linear_cka, predict
from kdnb.models import resnet
from kdnb.schemes import Alone, Distill
from kdnb.show import (
    compare,
    minibatch_cka,
    show_attention,
    show_cka,
    show_dark_knowledge,
    show_history,
    show_logits,
    show_similarity,
    spread_images,
)

pytestmark = pytest.mark.slow

CLASSES = 'aquarium_fish apple baby boy girl man woman bicycle bus motorcycle pickup_truck train'


@pytest.fixture(scope='module', autouse=True)
def agg(): matplotlib.use('agg')


def noise(size, n=60, names=CLASSES):
    classes = names.split()
    g = torch.Generator().manual_seed(0)
    x, y = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=g), torch.arange(n) % len(classes)
    return Data((x, y), None, (x, y), classes, bs=16, device='cpu', name='noise')


def texts(fig): return '\n'.join(t.get_text() for t in fig.findobj(matplotlib.text.Text))


def test_torchvision_at_64_pixels():
    data = noise(64)
    found = compare(
        data,
        teacher=torchvision.models.resnet18(num_classes=12),
        alone=torchvision.models.mobilenet_v2(num_classes=12),
        n=20)
    assert [r['name'] for r in found.rows] == ['teacher', 'alone']
    assert (
        'stage 3 of 4 (4x4)' in found.note
        and 'baby, boy, girl, man, woman, bicycle, bus, motorcycle, pickup_truck, train' in found.note)


def test_looking_leaves_no_trace():
    data, model = noise(16), resnet(8, 12)
    model.stages[0].eval()  # a frozen stage
    modes, state, seen = (
        [m.training for m in model.modules()],
        {k: v.clone() for k, v in model.state_dict().items()},
        torch.get_rng_state())
    compare(data, solo=model)
    show_attention({'solo': model}, data.test.normalise(data.test.x[:4]))
    show_similarity({'solo': model}, *data.examples(24))
    assert modes == [m.training for m in model.modules()] and torch.equal(seen, torch.get_rng_state())
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items()) and all(
        p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules()) and plt.get_fignums() == []


def test_modes_come_back_after_an_error():
    model = resnet(8, 12).train()
    with pytest.raises(RuntimeError):
        predict(model, [(torch.zeros(1, 5, 16, 16), torch.zeros(1))])
    assert model.training and torch.is_grad_enabled()
    with pytest.raises(KeyError), evaluating(model):
        raise KeyError
    assert model.training


def test_footnote_says_reduced_and_which_kind_is_missing():
    data, model = noise(16), resnet(8, 12)

    class Learnt:
        student, history, reduced = model, [], 'REDUCED: 1 of 240 epochs'

    Learnt.data = data
    found = compare(
        teacher=resnet(8, 12), alone=Learnt, taught=model
    )  # alone and taught agree: no image is rescued or broken
    assert (
        'no image is rescued or broken' in found.note
        and found.note.count('REDUCED') == 1
        and 'REDUCED: 1 of 240 epochs' in texts(found.fig))


# --- models without stages


class Pooling(torchvision.models.VisionTransformer):
    "It ends in the means of four tokens each, and no cut tells where these are."

    def __init__(self):
        super().__init__(
            image_size=16, patch_size=4, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=12)
        self.eval()

    def forward(self, x):
        tokens = self.encoder(torch.cat([self.class_token.expand(x.shape[0], -1, -1), self._process_input(x)], 1))
        return self.heads(tokens[:, 1:].unflatten(1, (-1, 4)).mean(2).amax(1))


class Odd(nn.Module):
    "Asks about its numbers, so it cannot be traced."

    def __init__(self, width=8):
        super().__init__()
        self.body, self.head = (
            nn.Sequential(nn.Conv2d(3, width, 3, stride=4, padding=1), nn.ReLU()),
            nn.Linear(width, 12))

    def forward(self, x):
        f = self.body(x)
        return self.head(f.amax((2, 3)) if f.mean() > 0 else f.mean((2, 3)))


def table_of(found):
    "The heads and the rows of what is shown, as text."
    lines = [line for line in found.table().markdown().splitlines() if line.startswith('| ')]
    return [[cell.strip() for cell in line[1:-1].split('|')] for line in lines]


def cells(found, heading):
    head, *lines = table_of(found)
    return [line[head.index(heading)] for line in lines]


def remedy(found): return ast.literal_eval(re.search(r'taps=(\{.*?\})', found.note)[1])


@pytest.mark.parametrize('make', [Pooling, Odd])
def test_without_stages_the_numbers_are_there_and_the_pictures_say_why_not(make, tmp_path):
    data, other = noise(16), make()
    found = compare(data, teacher=resnet(8, 12), alone=resnet(8, 12), other=other)
    assert [cells(found, h)[2] for h in ('CKA', 'blocks', 'att. 3')] == ['–'] * 3 and '–' not in cells(
        found, 'test %'
    ) + cells(found, 'agrees %') + cells(found, 'ECE')
    assert (
        type(other).__name__ in found.note
        and 'Without pictures' in found.note)
    assert not any(t.get_text().startswith('other') for ax in found.fig.axes for t in [ax.title])
    assert accuracy(*predict(other, data.test)) == found.rows[2]['accuracy']
    found.savefig(tmp_path / 'it.png')


@pytest.mark.filterwarnings('ignore:Odd cannot be traced')
@pytest.mark.parametrize('make, attention', [(Pooling, False), (Odd, True)])
def test_the_remedy_that_the_note_names_works(make, attention):
    data, nets = noise(16), dict(teacher=resnet(8, 12), other=make())
    taps = remedy(compare(data, **nets))
    found = compare(data, **nets, taps=taps)
    assert (
        list(taps) == ['other']
        and 'Without pictures' not in found.note
        and '–' not in cells(found, 'CKA') + cells(found, 'blocks'))
    assert (
        (cells(found, 'att. 3')[1] != '–') == attention
        and ('tokens or channels-last' in found.note) != attention
        and taps['other'] in found.note)
    x, y = data.examples(24)
    assert ('no maps: other' in texts(show_attention(nets, x, taps=taps))) != attention
    assert [ax.get_title() for ax in show_similarity(nets, x, y, taps=taps).axes][:2] == ['teacher', 'other']


def test_a_vision_transformer_shows_its_attention():
    vit = torchvision.models.VisionTransformer(
        image_size=16, patch_size=4, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=12).eval()
    found = compare(noise(16), teacher=resnet(8, 12), vit=vit)
    assert 'Without pictures' not in found.note and 'tokens' not in found.note and 'stage 3 of 3' in found.note
    assert cells(found, 'att. 3')[1] != '–' and cells(found, 'CKA')[1] != '–'


def test_the_teacher_has_no_stages():
    found = compare(noise(16), teacher=Pooling(), alone=resnet(8, 12), another=resnet(8, 12), taught=resnet(8, 12))
    assert cells(found, 'CKA')[:4] == ['–'] * 4 and cells(found, 'CKA')[4] != '–'  # the seed noise needs no teacher
    assert (
        cells(found, 'blocks')[0] == '–'
        and 'minus teacher' not in texts(found.fig)
        and 'stage 3 of 3 (4x4)' in texts(found.fig))


def test_no_model_has_stages(tmp_path):
    found = compare(noise(16), teacher=Pooling(), odd=Odd())
    assert table_of(found)[0] == ['', 'parameters', 'test %', 'agrees %', 'ECE'] and 'Maps' not in found.note
    assert len(found.fig.axes) == 8
    assert "taps={'teacher': 'encoder.layers.encoder_layer_1', 'odd': 'body.1'}" in ' '.join(found.note.split())
    found.savefig(tmp_path / 'it.png')
    with pytest.raises(ValueError, match='no attention to show'):
        show_attention(dict(odd=Odd()), noise(16).examples(4)[0])


def test_several_places_are_paired_from_the_last():
    data, model = noise(16), resnet(8, 12)
    named = compare(
        data,
        teacher=model,
        alone=resnet(8, 12),
        taps={'teacher': ['stages.1', 'stages.2'], 'alone': ['stages.1', 'stages.2']})
    assert list(named.rows[0]['attention_by_stage']) == [1, 2] and 'stages.2 (4x4)' in named.note
    plain, by_hand = (
        compare(data, teacher=model, alone=model),
        compare(data, teacher=model, alone=model, taps={'alone': 'stages.2'}))
    assert (
        by_hand.rows[1]['cka'] == pytest.approx(plain.rows[1]['cka'])
        and cells(by_hand, 'att. 2')[1] == '–'
        and cells(by_hand, 'att. 3') == cells(plain, 'att. 3'))


def test_places_that_cannot_be_read_are_refused():
    data, nets = noise(16), dict(teacher=resnet(8, 12), other=Pooling())
    for taps, said in [
        ({'othre': 'conv_proj'}, 'did you mean other'),
        ({'other': 'no.such'}, 'unknown tap'),
        ({'other': 'class_token'}, 'does not give features')]:
        with pytest.raises(ValueError, match=said):
            compare(data, **nets, taps=taps)
    with pytest.raises(TypeError, match='give the name of a place'):
        compare(data, **nets, taps={'other': []})


def test_a_scheme_is_taken_by_its_student():
    data, teacher, student = noise(16), resnet(8, 12).eval(), resnet(8, 12)
    found = compare(
        data, teacher=teacher, alone=Alone(resnet(8, 12)), taught=Distill(student, teacher, 'kd', size=16), bare=student
    )
    by_name = {r['name']: {k: v for k, v in r.items() if k != 'name'} for r in found.rows}
    assert by_name['taught'] == by_name['bare'] and by_name['alone']['parameters'] == by_name['bare']['parameters']


# --- what compare says and refuses


def test_a_gain_is_measured_from_both_baselines():
    "A student may gain, and still be further from its teacher than two baselines are from each other."
    note = ' '.join(
        compare(noise(16), **{k: resnet(8, 12) for k in ('teacher', 'alone', 'another', 'taught')}).note.split())
    assert (
        'A gain counts if taught is nearer to the teacher than both of them, by more than their two numbers differ.'
        in note
        and ' only where' not in note)


def test_models_without_names_are_told_to_give_names():
    data, net = noise(16), resnet(8, 12)
    for call in (
        lambda: compare(net, net),
        lambda: compare(data, net, net),
        lambda: compare(net, alone=net),
        lambda: compare(Alone(net), alone=net),
        lambda: compare(data, dict(alone=net))):
        with pytest.raises(ValueError, match=re.escape('give names: compare(teacher=teacher, alone=alone)')):
            call()

    class Learnt:
        history = [dict(ce=1.0, train_acc=3.0)]

    for call in (
        lambda: show_history(Learnt, Learnt),
        lambda: show_history(Learnt.history, Learnt.history),
        lambda: show_history([Learnt, Learnt])):
        with pytest.raises(ValueError, match=re.escape('give names: show_history(dict(alone=alone, taught=taught))')):
            call()


@pytest.mark.parametrize('names', [('teacher', 'alone', 'another', 'taught'), ('mine', 'theirs')])
def test_no_label_runs_into_a_photograph(names):
    long = '''mushroom mountain aquarium_fish sweet_pepper willow_tree caterpillar lawn_mower chimpanzee maple_tree
        pickup_truck skyscraper wardrobe'''
    data = noise(16, names=long)
    fig = compare(data, **{k: resnet(8, 12) for k in names}).fig
    fig.draw_without_rendering()
    photographs = min(ax.get_window_extent().x0 for ax in fig.axes)
    labels = [t for t in fig.texts if t.get_text().startswith('label:')]
    assert len(labels) >= 4 and max(t.get_window_extent().x1 for t in labels) < photographs
    assert ''.join(t.get_text() for t in labels).count('[...]') == 0  # no name was cut


@pytest.mark.filterwarnings('error')
def test_many_histories_leave_room_for_curves():
    show_history(
        {f'standardized-{i}': [dict(ce=1.0, kd=2.0, train_acc=3.0, valid_acc=4.0)] * 2 for i in range(60)}
    ).draw_without_rendering()


# --- what they say, class by class, stage by stage

SHOWN = show_logits, show_dark_knowledge, show_cka


@pytest.mark.parametrize('show', SHOWN)
def test_asking_leaves_no_trace(show):
    data, model = noise(16), resnet(8, 12)
    model.stages[0].eval()
    modes, state, seen = (
        [m.training for m in model.modules()],
        {k: v.clone() for k, v in model.state_dict().items()},
        torch.get_rng_state())
    show({'solo': model}, data)
    assert modes == [m.training for m in model.modules()] and torch.equal(seen, torch.get_rng_state())
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items()) and all(
        p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules()) and plt.get_fignums() == []


@pytest.mark.parametrize('show', SHOWN)
def test_learners_schemes_and_reduced_runs_are_shown(show):
    data, teacher, student = noise(16), resnet(8, 12).eval(), resnet(8, 12)

    class Learnt:
        reduced = 'REDUCED: 1 of 240 epochs'

    Learnt.student = student
    fig = show(dict(alone=Learnt, teacher=teacher, taught=Distill(resnet(8, 12), teacher, 'kd', size=16)), data)
    assert (
        texts(fig).count('REDUCED: 1 of 240 epochs') == 1
        and 'teacher' in texts(fig).split('REDUCED')[0]
        and 'taught' in texts(fig))


@pytest.mark.parametrize('show', SHOWN)
@pytest.mark.parametrize(
    'wrong, error, said',
    [
        ('digits', TypeError, 'images are str'),
        (torch.zeros(4, 3, 16, 16, dtype=torch.uint8), TypeError, r'images are torch.uint8 of shape \(4, 3, 16, 16\)'),
        (torch.zeros(0, 3, 16, 16), TypeError, 'give a Data'),
        (torch.zeros(3, 16, 16), TypeError, 'give a Data')])
def test_what_is_no_image_is_refused(show, wrong, error, said):
    with pytest.raises(error, match=said):
        show(dict(teacher=resnet(8, 12)), wrong, *[torch.zeros(4)] * (show is not show_cka))


def test_a_set_sorted_by_class_is_shown_evenly():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randint(0, 256, (1200, 3, 8, 8), dtype=torch.uint8, generator=g), torch.arange(1200) // 100
    data = Data((x, y), None, (x, y), [f'c{i}' for i in range(12)], bs=16, device='cpu', name='sorted')
    images, labels = spread_images(data)
    assert labels.bincount().tolist() == pytest.approx([500 / 12] * 12, abs=1) and torch.equal(
        images[-1], data.test.normalise(x[-1:])[0])


def test_logits_of_a_batch_and_of_its_data_are_the_same():
    data, nets = noise(16), dict(teacher=resnet(8, 12), alone=resnet(8, 12))
    by_data, by_batch = show_logits(nets, data), show_logits(nets, *data.examples(60), data)
    assert (
        texts(by_data) == texts(by_batch)
        and 'label: aquarium_fish' in texts(by_data)
        and 'the other 2: ' in texts(by_data))
    unnamed = texts(show_logits(nets, *data.examples(60), n=1, T=2, classes=3))
    assert 'label: class 0' in unnamed and 'T = 2' in unnamed and 'the other 9: ' in unnamed


def test_one_scale_a_temperature_and_one_a_page_of_matrices():
    data, nets = noise(16), dict(teacher=resnet(8, 12), alone=resnet(8, 12))
    limits = [ax.get_xlim() for ax in show_logits(nets, data, n=3, T=(1, 4)).axes if ax.patches]
    assert len(limits) == 6 and len(set(limits[:3])) == len(set(limits[3:])) == 1 and limits[0][1] > limits[3][1]
    maps = [ax.images[0].get_clim() for ax in show_dark_knowledge(nets, data).axes if ax.images and not ax.collections]
    assert len(maps) == 2 and len(set(maps)) == 1


def test_people_and_vehicles_are_the_ten_classes():
    data = noise(16)
    fig = show_dark_knowledge(dict(teacher=resnet(8, 12)), data)
    assert [
        t.get_text() for t in fig.axes[0].get_yticklabels()
    ] == 'baby,boy,girl,man,woman,bicycle,bus,motorcycle,pickup_truck,train'.split(',')
    with pytest.raises(ValueError, match='two classes or more'):
        show_dark_knowledge(dict(teacher=resnet(8, 12)), data.examples(1)[0], torch.zeros(1, dtype=torch.long))


def test_cka_in_batches_is_that_of_all_images_and_blind_to_rotation_scale_and_shift():
    g = torch.Generator().manual_seed(0)
    a = torch.randn(1000, 5, generator=g)
    b = a @ torch.randn(5, 7, generator=g) + torch.randn(1000, 7, generator=g)
    turn = torch.linalg.qr(torch.randn(7, 7, generator=g))[0]
    assert (
        minibatch_cka(a, b)
        == pytest.approx(minibatch_cka(a, b, bs=1000), abs=0.01)
        == pytest.approx(linear_cka(a, b), abs=0.02))
    assert minibatch_cka(a, b) == pytest.approx(minibatch_cka(a, 3 * b @ turn - 2), abs=1e-6)
    assert abs(minibatch_cka(torch.randn(200, 5000, generator=g), torch.randn(200, 5000, generator=g))) < 0.03


def test_a_dead_stage_is_a_dash():
    data, dead = noise(16), resnet(8, 12)
    with torch.no_grad():
        for p in dead.stages[2].parameters():
            p.zero_()
        for p in dead.stages[2].parameters():
            p.requires_grad_(False)
    dead.stages[2].register_forward_hook(lambda m, i, o: torch.zeros_like(o))
    fig = show_cka(dict(teacher=resnet(8, 12), alone=dead), data)
    assert [t.get_text() for t in fig.axes[1].texts][2::3] == ['–'] * 3 and '–' not in [
        t.get_text() for t in fig.axes[1].texts
    ][:2]
