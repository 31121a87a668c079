"""Models of different kinds: tokens as maps, OFA and VkD as their authors have them, every method on pairs of kinds."""
import copy
import json
import pickle
import sys
from pathlib import Path

import pytest
import torch
import torchvision.models as tvm
from torch import nn

from kdnb.data import Data
from kdnb.methods import AT, Term, known_methods, parse_method
from kdnb.models import create_model, resnet
from kdnb.schemes import Distill, JointRD, needs_classes
from kdnb.schemes.scheme import trial_batch
from kdnb.seeds import seeded
from kdnb.taps import Tapped, find_taps, tail

HERE = Path(__file__).resolve().parent/'reference'
sys.path.insert(0, str(HERE))
from across import CASES, GAMMAS, T, free, inputs  # noqa: E402 - found by the line above
from fixed import fill, settle  # noqa: E402 - found by the line above
from transfer import figure  # noqa: E402 - found by the line above

FIGURES = json.loads((HERE/'across.json').read_text())


def ours(name: str, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, list[torch.Tensor]]:
    "The loss of a term without its weight, and what of the student it is differentiated by."
    fs, z, t, y = inputs(name)
    fs, z, t = [f.to(dtype).requires_grad_() for f in fs], z.to(dtype).requires_grad_(), t.to(dtype)
    is_ofa = name.startswith('ofa')
    term = parse_method(f'ofa(gamma={[*GAMMAS]}, T={T})' if is_ofa else 'vkd')[-1]
    _, width, theirs = CASES[name]
    s = [*fs, z, torch.zeros(10, width)] if is_ofa else fs
    t = [t]*(len(fs) + 1) + [torch.zeros(10, theirs)] if is_ofa else [t]
    adapters = term.connect([f.detach().float() for f in s], [f.float() for f in t])
    if is_ofa:
        fill(adapters, 3)
    else:
        adapters[0].free.data.copy_(free(name))
    with torch.autocast('cpu', torch.bfloat16, enabled=dtype == torch.bfloat16):
        return term(term.through(adapters.train(), s, t), t, y), [*fs, z] if is_ofa else fs


def errors(name: str) -> tuple[float, float]:
    "The relative errors of the value and, in parts of its length, of the gradient."
    theirs, mine = FIGURES['losses'][name], figure(*ours(name))
    parts = [abs(a - b)/their[0] for my, their in zip(mine['gradient'], theirs['gradient'], strict=True)
             for a, b in zip(my, their, strict=True)]
    return abs(mine['value'] - theirs['value'])/abs(theirs['value']), max(parts)


def test_the_figures_are_of_known_commits():
    assert all(len(commit) == 40 for commit in FIGURES['commits'].values()) and [*FIGURES['losses']] == [*CASES]


@pytest.mark.parametrize('name', CASES)
def test_value_and_gradient_across_kinds_are_those_of_the_authors_code(name):
    value, gradient = errors(name)
    assert value < 1e-5 and gradient < 2e-5, (value, gradient)


@pytest.mark.parametrize('name', CASES)
def test_across_kinds_a_loss_is_computed_in_float32_whatever_the_autocast(name):
    loss, s = ours(name, torch.bfloat16)
    grads = torch.autograd.grad(loss, s)
    assert loss.dtype == torch.float32 and all(g.isfinite().all() for g in grads)
    assert loss.item() == pytest.approx(FIGURES['losses'][name]['value'], rel=.05)


# --- tokens as maps


def vit(depth=3):
    model = tvm.VisionTransformer(32, 8, depth, 4, 64, 128, num_classes=10)
    nn.init.normal_(model.heads.head.weight, std=.02)   # torchvision begins with logits of 0, which DIST cannot turn
    return model


def swin(): return tvm.SwinTransformer([4, 4], 24, [1, 1, 1], [1, 2, 2], [2, 2], num_classes=10)


def timm(name, **options):
    return pytest.importorskip('timm').create_model(name, num_classes=10, **options)


SMALL = dict(img_size=32, patch_size=8, depth=3, embed_dim=64, num_heads=4)
TOKENS = {                                          # model, size, stages
    'vit': (vit, 32, [(4, 4)]*3),
    'swin': (swin, 64, [(16, 16), (8, 8), (4, 4)]),
    'convnext': (lambda: tvm.ConvNeXt(
        [tvm.convnext.CNBlockConfig(8, 16, 1), tvm.convnext.CNBlockConfig(16, None, 1)], num_classes=10),
        32, [(8, 8), (4, 4)]),
    'timm vit': (lambda: timm('vit_tiny_patch16_224', **SMALL), 32, [(4, 4)]*3),
    'timm deit': (lambda: timm('deit_tiny_distilled_patch16_224', **SMALL), 32, [(4, 4)]*3),
    'timm swin': (lambda: timm('swin_tiny_patch4_window7_224', img_size=64, window_size=4, embed_dim=16,
                               depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 2)),
                  64, [(16, 16), (8, 8), (4, 4), (2, 2)]),
    'timm convnext': (lambda: timm('convnext_atto', depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)),
                      64, [(16, 16), (8, 8), (4, 4), (2, 2)])}


@pytest.mark.parametrize('name', TOKENS)
def test_transformers_have_stages_that_are_read_as_maps(name):
    make, size, sizes = TOKENS[name]
    model = make().eval()
    taps = find_taps(model, size)
    assert [r.size for r in taps] == sizes and taps[0].stage == 0
    places = [n for r in taps for n in (r.sum, r.pre, r.post) if n]
    assert all(r.sum and r.pre for r in taps)
    logits, read = Tapped(model, places)(x := torch.randn(2, 3, size, size))
    assert torch.equal(logits, model(x))
    for r in taps:
        assert read[r.post].shape == (2, r.channels, *r.size) and read[r.sum].shape == read[r.post].shape
        assert read[r.pre].shape[2:] == r.size


def test_the_patches_are_where_they_are_in_the_image():
    "The class token, and DeiT's distillation token, stand in front; what changes one patch changes that place most."
    for model in vit(1).eval(), timm('deit_tiny_distilled_patch16_224', **SMALL).eval():
        place = find_taps(model, 32)[1].sum
        raw = place.partition(':')[0]
        x = torch.randn(1, 3, 32, 32)
        other = x.clone()
        other[..., 8:16, 24:] += 9
        tapped = Tapped(model, [place, raw])
        with torch.no_grad():
            (_, a), (_, b) = tapped(x), tapped(other)
        moved = (a[place] - b[place]).norm(dim=1)[0]
        assert divmod(moved.argmax().item(), 4) == (1, 3)
        assert torch.equal(a[place][0, :, 1, 3], a[raw][0, a[raw].shape[1] - 16 + 7])


def test_a_transformer_of_timm_that_was_built_for_small_images_gets_small_images():
    teacher = timm('vit_tiny_patch16_224', **SMALL)                 # its pretrained_cfg says 224
    assert find_taps(teacher).size == 32
    losses, _ = Distill(resnet(8), teacher, 'at')(torch.randn(2, 3, 32, 32), torch.arange(2))
    assert losses['at'] > 0 and teacher.own_images.size == 32


def test_swin_is_read_as_its_channels_last_features_are():
    model = swin().eval()
    place = find_taps(model, 64)[1].post
    read = Tapped(model, [place, place.partition(':')[0]])(torch.randn(2, 3, 64, 64))[1]
    first, last = read.values()
    assert torch.equal(first, last.permute(0, 3, 1, 2)) and first.shape == (2, 24, 16, 16)


@pytest.mark.filterwarnings('ignore')
def test_a_transformer_without_a_graph_is_read_as_a_map_by_name():
    model = timm('test_vit')
    scheme = Distill(resnet(8), model, AT(taps={-1: 'blocks.1:10x10'}), size=160)
    losses, _ = scheme(torch.randn(2, 3, 160, 160), torch.arange(2))
    assert losses['at'] > 0


def test_what_is_no_map_is_told_with_the_remedy():
    with pytest.raises(ValueError, match=r'\(2, 17, 64\), which holds no map of 7x7'):
        Tapped(vit(), ['encoder.ln:7x7'])(torch.randn(2, 3, 32, 32))
    with pytest.raises(ValueError, match=r'\(2, 64, 32, 32\), which holds no map of 32x32.*needs no size'):
        Tapped(resnet(8, width=4), ['stages.0:32x32'])(torch.randn(2, 3, 32, 32))
    with pytest.raises(ValueError, match='unknown tap .*did you mean'):
        Tapped(vit(), ['encoder.l:4x4'])
    with pytest.raises(ValueError, match=r"'encoder.ln:4x4' is a map made of tokens.*take a convolutional net"):
        tail(vit(), 'encoder.ln:4x4')
    with pytest.raises(ValueError, match='is a map made of tokens'):
        JointRD(create_model('plainnet18', 10), vit(), size=32)
    with pytest.raises(ValueError, match="at cannot compare .* name tokens with their size, such as 'blocks.1:7x7'"):
        Distill(resnet(8), vit(), AT(taps={-1: 'encoder.ln'}), size=32).check(some())
    with pytest.raises(ValueError, match="VkD needs maps .* name tokens with their size, such as 'blocks.1:7x7'"):
        Distill(resnet(8), vit(), 'vkd(taps={-1: "encoder.ln"})', size=32)


class Pooled(nn.Module):
    "Each token is the mean of four patches, so that no cut tells the size of the map."

    def __init__(self):
        super().__init__()
        self.patches, self.mix, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 8), nn.Linear(8, 10)

    def forward(self, x):
        return self.head(self.mix(self.patches(x).flatten(2).unflatten(2, (-1, 4)).mean(3).mT).relu().mean(1))


def test_a_model_that_pools_its_tokens_is_told_how_to_name_them():
    told = r"has tokens \(1, 16, 8\) of unknown height and width: name its taps by hand with these, such as 'relu:7x7'"
    with pytest.raises(ValueError, match=told):
        find_taps(Pooled(), 32)
    with pytest.raises(ValueError, match=r'at finds no pair of taps: the student has the stages.*the teacher has no '
                                         r'stages: Pooled has tokens'):
        Distill(resnet(8), Pooled(), 'at', size=32)
    Distill(resnet(8), Pooled(), AT(taps={-1: 'relu:4x4'}), size=32).check(some())


@pytest.mark.parametrize('method', ['cat', 'sdd'])
def test_class_maps_are_refused_where_a_norm_follows_the_mean_even_if_all_biases_are_zero(method):
    convnext = TOKENS['convnext'][0]()
    with pytest.raises(ValueError, match=f"{method} needs .* the teacher's reads something else"):
        Distill(resnet(8), convnext, method, size=32)


@pytest.mark.parametrize('method', ['cat', 'sdd'])
def test_class_maps_are_refused_on_a_transformer_and_taught_by_a_swin(method):
    with pytest.raises(ValueError, match=f'{method} needs a linear classifier on the mean of the last stage, and the '
                                         "teacher's reads something else"):
        Distill(resnet(8), vit(), method, size=32)
    Distill(resnet(8), swin(), method, size=64).check(some(64))


def test_blocks_are_paired_at_even_distances(capsys):
    scheme = Distill(resnet(8), vit(6), 'at', size=32)
    blocks = [b.partition('encoder_layer_')[2][:1] for _, b in scheme.pairs[1]]
    assert blocks == ['1', '3', ''] and scheme.pairs[1][-1][1] == 'encoder.ln:4x4'
    assert 'the student has 3 stages and the teacher 6: the evenly spread 3 are paired' in capsys.readouterr().out


# --- OFA and VkD


def some(size=32):
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (24, 3, size, size), dtype=torch.uint8, generator=g)
    return Data((x, torch.arange(24) % 10), None, (x[:8], torch.arange(8)), [str(i) for i in range(10)], bs=4)


@pytest.mark.parametrize('method', ['ofa(gamma=1.5)', 'vkd'])
def test_what_is_trained_across_kinds_is_copied_pickled_and_never_leaves_with_the_student(method):
    scheme = Distill(resnet(8), vit(), method, size=32)
    for again in copy.deepcopy(scheme), pickle.loads(pickle.dumps(scheme)):
        sum(again(torch.randn(4, 3, 32, 32), torch.arange(4))[0].values()).backward()
        assert all(p.grad is not None for p in again.adapters.parameters())
        assert [*again.state_dict()] == [*scheme.state_dict()]
    assert [*scheme.student.state_dict()] == [*resnet(8).state_dict()]


def test_ofa_reads_logits_so_it_needs_the_classes_and_says_so():
    assert needs_classes('ofa') and not needs_classes('vkd')
    with pytest.raises(ValueError, match='num_classes'):
        Distill(resnet(8), resnet(8, 7), 'ofa', size=32)
    with pytest.raises(ValueError, match='gamma has 2 numbers, and there are 3 exits and the student: give 4'):
        Distill(resnet(8), vit(), 'ofa(gamma=[1, 2])', size=32)
    Distill(resnet(8), resnet(8, 7), 'vkd', size=32).check(some())


def test_soft_labels_are_taken_by_ofa():
    scheme = Distill(resnet(8), resnet(14), 'ofa', size=32).eval()
    x, y = torch.randn(4, 3, 32, 32), torch.arange(4)
    soft = nn.functional.one_hot(y, 10).float()
    assert scheme(x, soft)[0]['ofa'] == scheme(x, y)[0]['ofa']


# --- every method, on pairs of kinds

EVERY = [k for k in {make: name for name, make in reversed(known_methods.items())}.values()
         if k not in ('self', 'ls', 'ce')]
KINDS = {                                           # teacher and student, and which methods are refused
    'resnet18-mobilenet_v2': (lambda: tvm.resnet18(num_classes=10), lambda: tvm.mobilenet_v2(
        num_classes=10, width_mult=.25, dropout=0.), ['cat', 'sdd']),           # their last maps are of one pixel
    'vit_tiny-resnet20': (lambda: timm('vit_tiny_patch16_224', img_size=32, patch_size=8, embed_dim=48, depth=6),
                          lambda: resnet(20), ['cat', 'sdd']),                  # reads the class token
    'resnet56-vit': (lambda: resnet(56), lambda: vit(3), ['cat', 'sdd']),
    'convnext-shufflenet': (lambda: tvm.ConvNeXt(
        [tvm.convnext.CNBlockConfig(a, b, 1) for a, b in ((16, 32), (32, 48), (48, None))], num_classes=10),
                            lambda: tvm.ShuffleNetV2([2, 2, 2], [8, 16, 24, 32, 64], 10),
                            ['cat', 'sdd'])}                                    # a norm behind the mean


@pytest.fixture(scope='module')
def pairs():
    "Both models of each pair, made once."
    made = {}

    def make(pair):
        if pair not in made:
            with seeded(0):
                teacher, student = (build() for build in KINDS[pair][:2])
                made[pair] = settle(teacher, torch.randn(16, 3, 32, 32)), student   # else resnet56 grows to 1e5
        return made[pair][0], copy.deepcopy(made[pair][1])

    return make


def ten_steps(scheme: Distill, data: Data) -> list[float]:
    "A method's own loss on one batch, before and after ten steps along its gradient; too long ones are halved."
    scheme.check(data)
    x, y, beside = trial_batch(scheme.train(), data, 4)
    beside['taught'] = scheme.teacher(x)
    if 'view' in beside:
        beside['taught_view'] = beside['taught']
    reversed_too = scheme.names[-1] == 'ctkd'       # its temperature goes up the gradient
    trained = [p for p in (scheme.student if reversed_too else scheme).parameters() if p.requires_grad]
    losses, length, before, grads = [], .02, [p.detach().clone() for p in trained], []
    buffers = [b.clone() for b in scheme.buffers()]         # CRD's bank moves with each call
    for _ in range(40):
        for b, was in zip(scheme.buffers(), buffers, strict=True):
            b.copy_(was)
        with seeded(0):
            loss = scheme(x, y, **beside)[0][scheme.names[-1]]
        if not losses or loss.item() < losses[-1]:
            losses.append(loss.item())
            before = [p.detach().clone() for p in trained]
            grads = torch.autograd.grad(loss, trained, allow_unused=True)
        else:
            length /= 2
        if len(losses) == 11:
            break
        scale = length/sum(g.square().sum() for g in grads if g is not None)**.5
        with torch.no_grad():
            for p, b, g in zip(trained, before, grads, strict=True):
                p.copy_(b if g is None else b - scale*g)
    return losses


@pytest.mark.slow
@pytest.mark.parametrize('pair', KINDS)
@pytest.mark.parametrize('method', EVERY)
def test_every_method_takes_ten_falling_steps_on_pairs_of_kinds(pair, method, pairs):
    teacher, student = pairs(pair)
    term: list[Term] = [parse_method(method)[-1]]
    if method in KINDS[pair][2]:
        with pytest.raises(ValueError, match=f'{method} needs a linear classifier on the mean of the last stage'):
            Distill(student, teacher, term, size=32)
        return
    with seeded(0):
        scheme = Distill(student, teacher, [*parse_method('ce'), *term], size=32)
        losses = ten_steps(scheme, some())
    assert len(losses) == 11 and losses[-1] < losses[0], losses
