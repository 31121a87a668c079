"What the model notebooks cannot show: another process, a compiled model, every name that is listed."
import copy, os, subprocess, sys
import pytest, torch
from torch.utils.flop_counter import FlopCounterMode
from kdnb.models.mobile import mobilenetv2, shufflenetv1, shufflenetv2
from kdnb.models.plain import plainnet
from kdnb.models.resnet import resnet
from kdnb.models.vgg import vgg
from kdnb.models.wide import wrn
from kdnb.models.zoo import create_model, list_models, load_model, num_params, save_model, weights_hash

@pytest.mark.parametrize('build,args,params', [
    (shufflenetv2, (.5,), 356_018), (shufflenetv2, (1,), 1_268_646), (shufflenetv2, (1.5,), 2_492_466), (shufflenetv2, (2,), 5_366_566),      # PkuDavidGuan, 10 classes
    (shufflenetv2, (1, 100, False), 1_355_528), (shufflenetv1, (100,), 949_258), (mobilenetv2, (.5, 100), 812_836),                           # RepDistiller, 100 classes
    (mobilenetv2, (1, 100), 2_351_972 + 32*32 + 2*32),                                                                                        # torchvision's, and the first block's 1x1
    (vgg, (8, 100), 3_965_028), (vgg, (11, 100), 9_277_284), (vgg, (13, 100), 9_462_180), (vgg, (16, 100), 14_774_436), (vgg, (19, 100), 20_086_692)])
def test_the_published_numbers_of_parameters(build, args, params):
    with torch.device('meta'): model = build(*args)
    assert num_params(model) == params
    assert model(torch.empty(2, 3, 32, 32, device='meta')).shape == (2, model.call['num_classes'])

SMALL = dict(shufflenetv1=lambda: shufflenetv1(7), shufflenetv2=lambda: shufflenetv2(.5, 7), shufflenetv2_post=lambda: shufflenetv2(.5, 7, preact=False), mobilenetv2=lambda: mobilenetv2(.5, 7), vgg8=lambda: vgg(8, 7))

@pytest.mark.parametrize('name', SMALL)
def test_fits_eight_random_pictures(name):
    torch.manual_seed(0)
    model, xb, yb = SMALL[name](), torch.randn(8, 3, 32, 32), torch.arange(8) % 7
    opt = torch.optim.SGD(model.parameters(), lr=.02, momentum=.9)
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(model(xb), yb)
        opt.zero_grad(); loss.backward(); opt.step()
    assert loss < .1 and all(p.grad.isfinite().all() for p in model.parameters())

@pytest.mark.parametrize('name', SMALL)
def test_a_copy_in_another_memory_format_says_the_same(name):
    torch.manual_seed(0)
    model, xb = SMALL[name]().eval(), torch.randn(2, 3, 64, 64)
    want = model(xb)
    again = copy.deepcopy(model).to(memory_format=torch.channels_last)
    torch.testing.assert_close(again(xb.to(memory_format=torch.channels_last)), want, rtol=1e-4, atol=1e-5)

def test_a_compiled_shufflenet_says_the_same():
    torch.manual_seed(0)
    model, xb = shufflenetv2(.5).eval(), torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(torch.compile(model, backend='aot_eager', fullgraph=True)(xb), model(xb))

@pytest.mark.parametrize('build,args,says', [
    (shufflenetv2, (3,), 'has no ratio 3: it has 0.5, 1, 1.5, 2'), (shufflenetv2, (None,), 'no ratio None'), (shufflenetv2, ([1],), r'no ratio \[1\]'), (shufflenetv2, (True,), 'no ratio True'),
    (mobilenetv2, (0,), 'from 1/16 up'), (mobilenetv2, (-1,), 'from 1/16 up'), (mobilenetv2, (.01,), 'from 1/16 up'), (mobilenetv2, (float('nan'),), 'is a number'), (mobilenetv2, ('.5',), 'is a number'),
    (vgg, (12,), 'no VGG has depth 12: there is 8, 11, 13, 16, 19'), (vgg, (8.,), 'no VGG has depth 8.0'), (vgg, ([8],), 'no VGG has depth'), (shufflenetv1, (0,), 'at least 1 class'), (vgg, (8, 2.5), 'at least 1 class')])
def test_a_wrong_argument_is_one_clear_sentence(build, args, says):
    with pytest.raises(ValueError, match=says) as e: build(*args)
    assert '\n' not in str(e.value)

# --- the networks of the papers: parameters to the unit, multiply-accumulates (torch's counter halved) in millions for 32 x 32 pixels, 100 classes

COUNTED = [(wrn, (28, 4, 100), 5_872_180, 845.6), (wrn, (16, 2, 100), 703_284, 101.1), (wrn, (16, 4, 100), 2_772_020, 392.6), (wrn, (28, 2, 100), 1_479_220, 214.4),
           (wrn, (40, 2, 100), 2_255_156, 327.6), (wrn, (40, 1, 100), 569_780, None),
           (wrn, (28, 4, 100, False), 5_873_076, 845.6), (wrn, (16, 2, 100, False), 703_732, 101.1), (wrn, (16, 4, 100, False), 2_772_916, 392.6), (wrn, (40, 2, 100, False), 2_255_604, 327.6),
           (plainnet, (18, 100), 11_220_132, None), (plainnet, (34, 100), 21_328_292, None), (plainnet, (50, 100), 23_688_356, None)]

@pytest.mark.parametrize('build, args, params, macs', COUNTED, ids=lambda v: getattr(v, '__name__', None) or ('-'.join(map(str, v)) if isinstance(v, tuple) else None))
def test_parameters_and_macs(build, args, params, macs):
    model = build(*args)
    assert sum(p.numel() for p in model.parameters()) == params
    with torch.no_grad(), FlopCounterMode(display=False) as counter: model.eval()(torch.zeros(1, 3, 32, 32))
    assert macs is None or round(counter.get_total_flops()/2e6, 1) == macs

@pytest.mark.parametrize('depth', [18, 34, 50])
@pytest.mark.parametrize('stem', ['cifar', 'imagenet'])
def test_a_plain_student_takes_the_teachers_weights(depth, stem):
    student, teacher = plainnet(depth, 7, stem), resnet(depth, 7, stem=stem)
    missing, unused = student.load_state_dict(teacher.state_dict(), strict=False)
    assert missing == [] and {n.rsplit('.', 2)[0] for n in unused} == ({'stages.0.0.short'} if depth == 50 else set())
    def ends(model):
        x, shapes = torch.randn(2, 3, 64, 64), []
        for part in (model.stem, *model.stages): x = part(x); shapes.append(x.shape)
        return shapes
    assert ends(student) == ends(teacher)

def test_loads_by_run_name_in_a_fresh_process(tmp_path):
    model = create_model('resnet8x4', 7)
    (tmp_path/'teacher').mkdir()
    save_model(model, tmp_path/'teacher'/'best.pt')
    code = "from kdnb.models.zoo import *; m = load_model('teacher'); print(weights_hash(m), m.call['depth'], m.call['num_classes'])"
    out = subprocess.run([sys.executable, '-c', code], env={**os.environ, 'KDNB_RUNS': str(tmp_path)}, capture_output=True, text=True, check=True).stdout
    assert out.split() == [weights_hash(model), '8', '7']

def test_a_compiled_model_is_saved_as_itself(tmp_path):
    model = create_model('resnet8')
    save_model(torch.compile(model), tmp_path/'m.pt')
    assert weights_hash(load_model(tmp_path/'m.pt')) == weights_hash(model)

def test_a_function_from_a_file_is_never_called(tmp_path, monkeypatch):
    (tmp_path/'mynets.py').write_text("from torch import nn\ndef small(num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(12, num_classes))\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    model = create_model('mynets:small', 3)
    save_model(model, tmp_path/'m.pt')
    with pytest.raises(ValueError, match='must not run code'): load_model(tmp_path/'m.pt')
    assert weights_hash(create_model('mynets:small', 3, weights=tmp_path/'m.pt')) == weights_hash(model)

@pytest.mark.parametrize('name', [*list_models(), 'torchvision/googlenet', 'torchvision/inception_v3'])
def test_logits_in_training_too(name):
    model = create_model(name, 7)
    size = 299 if 'inception' in name else 32
    assert model.train()(torch.randn(2, 3, size, size)).shape == (2, 7)
    assert model.call['num_classes'] == 7

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_on_a_gpu(tmp_path):
    model = create_model('resnet8').cuda().to(memory_format=torch.channels_last)
    save_model(model, tmp_path/'m.pt')
    again = load_model(tmp_path/'m.pt')
    assert next(again.parameters()).device.type == 'cpu' and weights_hash(again) == weights_hash(model)
    assert weights_hash(load_model(tmp_path/'m.pt', model=create_model('resnet8').cuda())) == weights_hash(model)
