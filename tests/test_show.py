"What the notebook of pictures cannot show: other people's models, and that looking leaves no trace."
import matplotlib, pytest, torch, torchvision
matplotlib.use('agg')
import matplotlib.pyplot as plt
from kdnb.data import Data
from kdnb.measure import evaluating, predict
from kdnb.models.resnet import resnet
from kdnb.show import compare, show_attention, show_similarity

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
