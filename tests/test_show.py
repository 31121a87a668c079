"What the notebook of pictures cannot show: other people's models, and that looking leaves no trace."
import ast, re
import matplotlib, pytest, torch, torchvision
matplotlib.use('agg')
import matplotlib.pyplot as plt
from torch import nn
from kdnb.data import Data
from kdnb.measure import accuracy, evaluating, predict
from kdnb.models.resnet import resnet
from kdnb.schemes import Alone, Distill
from kdnb.show import _table, compare, show_attention, show_similarity

def noise(size, n=60, classes='aquarium_fish apple baby boy girl man woman bicycle bus motorcycle pickup_truck train'.split()):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=g), torch.arange(n) % len(classes)
    return Data((x, y), None, (x, y), classes, bs=16, device='cpu', name='noise')

def texts(fig): return '\n'.join(t.get_text() for t in fig.findobj(matplotlib.text.Text))

def test_torchvision_at_64_pixels():
    data = noise(64)
    found = compare(data, teacher=torchvision.models.resnet18(num_classes=12), alone=torchvision.models.mobilenet_v2(num_classes=12), n=20)
    assert [r['name'] for r in found.rows] == ['teacher', 'alone']
    assert 'stage 3 of 4 (4x4)' in found.note and 'baby, boy, girl, man, woman, bicycle, bus, motorcycle, pickup_truck, train' in found.note

def test_looking_leaves_no_trace():
    data, model = noise(16), resnet(8, 12)
    model.stages[0].eval()                                   # somebody froze a stage
    modes, state, seen = [m.training for m in model.modules()], {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    compare(data, solo=model); show_attention({'solo': model}, data.test.normalise(data.test.x[:4])); show_similarity({'solo': model}, *data.examples(24))
    assert modes == [m.training for m in model.modules()] and torch.equal(seen, torch.get_rng_state())
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items()) and all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules()) and plt.get_fignums() == []

def test_modes_come_back_after_an_error():
    model = resnet(8, 12).train()
    with pytest.raises(RuntimeError): predict(model, [(torch.zeros(1, 5, 16, 16), torch.zeros(1))])
    assert model.training and torch.is_grad_enabled()
    with pytest.raises(KeyError):
        with evaluating(model): raise KeyError
    assert model.training

def test_footnote_says_reduced_and_which_kind_is_missing():
    data, model = noise(16), resnet(8, 12)
    class Learnt: student, history, reduced = model, [], 'REDUCED: 1 of 240 epochs'
    Learnt.data = data
    found = compare(teacher=resnet(8, 12), alone=Learnt, taught=model)        # alone and taught agree: nobody is rescued or broken
    assert 'no image is rescued or broken' in found.note and found.note.count('REDUCED') == 1 and 'REDUCED: 1 of 240 epochs' in texts(found.fig)

# --- models without stages

def vit(): return torchvision.models.VisionTransformer(image_size=16, patch_size=4, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=12).eval()

class Odd(nn.Module):
    "Asks about its numbers, so it cannot be traced."
    def __init__(self, width=8):
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Conv2d(3, width, 3, stride=4, padding=1), nn.ReLU()), nn.Linear(width, 12)
    def forward(self, x):
        f = self.body(x)
        return self.head(f.amax((2, 3)) if f.mean() > 0 else f.mean((2, 3)))

def cells(found, heading):
    head, *lines = _table(found.rows)
    return [line[head.index(heading)] for line in lines]

def remedy(found): return ast.literal_eval(re.search(r'taps=(\{.*?\})', found.note)[1])

@pytest.mark.parametrize('make', [vit, Odd])
def test_without_stages_the_numbers_are_there_and_the_pictures_say_why_not(make, tmp_path):
    data, other = noise(16), make()
    found = compare(data, teacher=resnet(8, 12), alone=resnet(8, 12), other=other)
    assert [cells(found, h)[2] for h in ('CKA', 'blocks', 'att. 3')] == ['–']*3 and '–' not in cells(found, 'test %') + cells(found, 'agrees %') + cells(found, 'ECE')
    assert type(other).__name__ in found.note and 'Without pictures' in found.note and 'Without pictures' in texts(found.fig)
    assert not any(t.get_text().startswith('other') for ax in found.fig.axes for t in [ax.title])
    assert accuracy(*predict(other, data.test)) == found.rows[2]['accuracy']
    found.savefig(tmp_path/'it.png')

@pytest.mark.filterwarnings('ignore:Odd cannot be traced')
@pytest.mark.parametrize('make, attention', [(vit, False), (Odd, True)])
def test_the_remedy_that_the_note_names_works(make, attention):
    data, nets = noise(16), dict(teacher=resnet(8, 12), other=make())
    taps = remedy(compare(data, **nets))
    found = compare(data, **nets, taps=taps)
    assert list(taps) == ['other'] and 'Without pictures' not in found.note and '–' not in cells(found, 'CKA') + cells(found, 'blocks')
    assert (cells(found, 'att. 3')[1] != '–') == attention and ('tokens or channels-last' in found.note) != attention and taps['other'] in found.note
    x, y = data.examples(24)
    assert ('no maps: other' in texts(show_attention(nets, x, taps=taps))) != attention
    assert [ax.get_title() for ax in show_similarity(nets, x, y, taps=taps).axes][:2] == ['teacher', 'other']

def test_the_teacher_has_no_stages():
    found = compare(noise(16), teacher=vit(), alone=resnet(8, 12), another=resnet(8, 12), taught=resnet(8, 12))
    assert cells(found, 'CKA')[:4] == ['–']*4 and cells(found, 'CKA')[4] != '–'          # the floor needs no teacher
    assert cells(found, 'blocks')[0] == '–' and 'minus teacher' not in texts(found.fig) and 'stage 3 of 3 (4x4)' in texts(found.fig)

def test_nobody_has_stages(tmp_path):
    found = compare(noise(16), teacher=vit(), odd=Odd())
    assert _table(found.rows)[0] == ['', 'parameters', 'test %', 'agrees %', 'ECE'] and 'Maps' not in found.note
    assert len(found.fig.axes) == 8 and "taps={'teacher': 'encoder.layers.encoder_layer_1', 'odd': 'body.1'}" in ' '.join(texts(found.fig).split())
    found.savefig(tmp_path/'it.png')
    with pytest.raises(ValueError, match='no attention to show'): show_attention(dict(odd=Odd()), noise(16).examples(4)[0])

def test_several_places_are_paired_from_the_last():
    data, model = noise(16), resnet(8, 12)
    named = compare(data, teacher=model, alone=resnet(8, 12), taps={'teacher': ['stages.1', 'stages.2'], 'alone': ['stages.1', 'stages.2']})
    assert list(named.rows[0]['attention_by_stage']) == [1, 2] and 'stages.2 (4x4)' in named.note
    plain, by_hand = compare(data, teacher=model, alone=model), compare(data, teacher=model, alone=model, taps={'alone': 'stages.2'})
    assert by_hand.rows[1]['cka'] == pytest.approx(plain.rows[1]['cka']) and cells(by_hand, 'att. 2')[1] == '–' and cells(by_hand, 'att. 3') == cells(plain, 'att. 3')

def test_places_that_cannot_be_read_are_refused():
    data, nets = noise(16), dict(teacher=resnet(8, 12), other=vit())
    for taps, said in [({'othre': 'conv_proj'}, 'did you mean other'), ({'other': 'no.such'}, 'unknown tap'), ({'other': 'class_token'}, 'does not give features')]:
        with pytest.raises(ValueError, match=said): compare(data, **nets, taps=taps)
    with pytest.raises(TypeError, match='give the name of a place'): compare(data, **nets, taps={'other': []})

def test_a_scheme_is_taken_by_its_student():
    data, teacher, student = noise(16), resnet(8, 12).eval(), resnet(8, 12)
    found = compare(data, teacher=teacher, alone=Alone(resnet(8, 12)), taught=Distill(student, teacher, 'kd', size=16), bare=student)
    by_name = {r['name']: {k: v for k, v in r.items() if k != 'name'} for r in found.rows}
    assert by_name['taught'] == by_name['bare'] and by_name['alone']['parameters'] == by_name['bare']['parameters']
