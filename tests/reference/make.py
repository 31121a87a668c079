"""Compute what the published code gives: `python tests/reference/make.py REPDISTILLER MDISTILLER DIST > figures.json`.

The arguments are checkouts of HobbitLong/RepDistiller, megvii-research/mdistiller and hunto/DIST_KD. Their nets get the
weights of kdnb's, layer by layer in the order in which the layers run, and must then give the same logits. All that
follows is computed by their nets and their losses: the features that they hand over, their shapes, and the weighted
loss of each method without the labels. `tests/test_reference.py` compares kdnb with it.

mdistiller's OFD does not run with ResNet-50 or MobileNetV2: the one tells the widths of other stages, the other lists
no features in front of the activation. `Listed` gives it the widths of the features, and the features that there are.
"""
import importlib.util
import json
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import torch
from fixed import CLASSES, fill, images, our_nets
from torch import nn

from kdnb.models import create_model
from kdnb.systems import find_preset

REPOSITORIES = 'HobbitLong/RepDistiller', 'megvii-research/mdistiller', 'hunto/DIST_KD'
THEIR_NAMES = {'resnet50': 'ResNet50', 'mobilenetv2_0.5': 'MobileNetV2', 'shufflenetv1': 'ShuffleV1',
               'shufflev2': 'ShuffleV2'}
BETAS = {                                           # of DKD, as mdistiller's files for the pairs have them; else 8
    'resnet56 -> resnet20': 2., 'resnet110 -> resnet32': 2., 'wrn_40_2 -> wrn_16_2': 6., 'wrn_40_2 -> wrn_40_1': 6.,
    'vgg13 -> vgg8': 6., 'vgg13 -> mobilenetv2_0.5': 6.}
ADAPTERS = dict(fitnet=11, ofd=21, review=31, vid=41, cc=51, ab=61, ft=71)  # seeds; the k-th adapter has the k-th


def layers_run(net, x):
    "The layers with weights, in the order in which they first run."
    found, hooks = [], []
    for m in net.modules():
        if not [*m.children()] and [*m.parameters()]:
            hooks.append(m.register_forward_hook(lambda m, *_: found.append(m)))
    with torch.no_grad():
        net.eval()(x)
    for h in hooks:
        h.remove()
    return [*dict.fromkeys(found)]


def with_weights_of(theirs, ours, x):
    "Their net with our weights."
    a, b = layers_run(theirs, x), layers_run(ours, x)
    assert len(a) == len(b) and all(type(m) is type(n) for m, n in zip(a, b))
    for m, n in zip(a, b):
        m.load_state_dict(n.state_dict())
    with torch.no_grad():
        z = theirs.eval()(x)
        z = z[0] if isinstance(z, tuple) else z
        assert torch.allclose(z, ours(x), atol=1e-4), float((z - ours(x)).abs().max())
    return theirs


def shapes(fs, ft):
    return [[list(a.shape), list(b.shape)] for a, b in zip(fs, ft, strict=True)]


def figure(loss, fs=(), ft=()):
    return dict(shapes=shapes(fs, ft), loss=float(loss))


def filled(method, *nets):
    "Their adapters with the weights of a method's seeds, in eval mode."
    return [fill(net, ADAPTERS[method] + k).eval() for k, net in enumerate(nets)]


def with_adapters(fs, ft, before, pooled):
    "VID, CC, AB, FT, and FSP and KDSVD where the widths are equal; `before`: both lists in front of the activation."
    from distiller_zoo import FSP, ABLoss, Correlation, FactorTransfer, VIDLoss
    from models.util import Connector, LinearEmbed, Paraphraser, Translator
    from transfer import turned_kdsvd
    s, t = fs[1:], ft[1:]
    guesses = filled('vid', *(VIDLoss(a.shape[1], b.shape[1], b.shape[1]) for a, b in zip(s, t)))
    embed, = filled('cc', nn.ModuleList([LinearEmbed(f.shape[1], 128) for f in pooled]))
    connectors = filled('ab', *Connector(*([f.shape for f in side] for side in before)).connectors)
    connected = [connector(f) for connector, f in zip(connectors, before[0])]
    translator, paraphraser = filled('ft', Translator(s[-1].shape, t[-1].shape), Paraphraser(t[-1].shape))
    factor, rebuilt = paraphraser(t[-1])
    found = dict(
        vid=figure(sum(guess(a, b) for guess, a, b in zip(guesses, s, t)), s, t),
        cc=figure(.02*Correlation()(*(net(f) for net, f in zip(embed, pooled))), pooled[:1], pooled[1:]),
        ab=figure(sum(ABLoss(len(s))(connected, before[1])), *before),
        ft=figure(200*FactorTransfer()(translator(s[-1]), factor) + nn.functional.mse_loss(rebuilt, t[-1]),
                  s[-1:], t[-1:]))
    if [f.shape[1] for f in fs] != [f.shape[1] for f in ft]: return found
    return found | dict(fsp=figure(50*sum(FSP([f.shape for f in fs], [f.shape for f in ft])(fs, ft)), fs, ft),
                        kdsvd=figure(sum(turned_kdsvd()(s, t)), s, t))


def by_repdistiller(pair, ours, x, y):
    "What its features and losses give, with the weights of its script."
    from distiller_zoo import PKT, Attention, DistillKL, HintLoss, NSTLoss, RKDLoss, Similarity
    from models import model_dict
    from models.util import ConvReg
    teacher, student = (with_weights_of(model_dict[THEIR_NAMES.get(name, name)](num_classes=CLASSES), net, x)
                        for name, net in zip(pair, ours))
    with torch.no_grad():
        (fs, zs), (ft, zt) = student(x, is_feat=True), teacher(x, is_feat=True)
        before = [net(x, is_feat=True, preact=True)[0][1:-1] for net in (student, teacher)]
        regressor = fill(ConvReg(fs[2].shape, ft[2].shape), ADAPTERS['fitnet']).eval()
        return dict(
            kd=figure(.9*DistillKL(4)(zs, zt)),
            fitnet=figure(100*HintLoss()(regressor(fs[2]), ft[2]), fs[2:3], ft[2:3]),
            at=figure(1000*sum(Attention()(fs[1:-1], ft[1:-1])), fs[1:-1], ft[1:-1]),
            nst=figure(50*sum(NSTLoss()(fs[1:-1], ft[1:-1])), fs[1:-1], ft[1:-1]),
            sp=figure(3000*sum(Similarity()([fs[-2]], [ft[-2]])), fs[-2:-1], ft[-2:-1]),
            rkd=figure(RKDLoss()(fs[-1], ft[-1]), fs[-1:], ft[-1:]),
            pkt=figure(3e4*PKT()(fs[-1], ft[-1]), fs[-1:], ft[-1:])) | with_adapters(
                fs[:-1], ft[:-1], before, (fs[-1], ft[-1]))


class Listed(nn.Module):
    "A net that tells the true widths, and lists its features as those in front of the activation if it lists none."

    def __init__(self, net, x):
        super().__init__()
        self.net = net
        self.get_bn_before_relu = getattr(net, 'get_bn_before_relu', None)
        self.widths = [f.shape[1] for f in net(x)[1]['feats']]

    def get_stage_channels(self):
        return self.widths

    def forward(self, x):
        z, features = self.net(x)
        return z, {'preact_feats': features['feats'], **features}


def by_mdistiller(pair, ours, x, y, beta):
    "What its OFD, ReviewKD and DKD give; no label counts."
    from mdistiller.distillers.DKD import dkd_loss
    from mdistiller.distillers.OFD import OFD
    from mdistiller.distillers.ReviewKD import ReviewKD
    from mdistiller.models.cifar import cifar_model_dict
    teacher, student = (with_weights_of(cifar_model_dict[THEIR_NAMES.get(name, name)][0](num_classes=CLASSES), net, x)
                        for name, net in zip(pair, ours))
    teacher, student = Listed(teacher, x), Listed(student, x)
    with torch.no_grad():
        (zs, fs), (zt, ft) = student(x), teacher(x)
        ofd = OFD(student, teacher, SimpleNamespace(OFD=SimpleNamespace(
            LOSS=SimpleNamespace(CE_WEIGHT=1., FEAT_WEIGHT=1e-3), CONNECTOR=SimpleNamespace(KERNEL_SIZE=1))))
        for k, connector in enumerate(ofd.connectors.connectors):
            fill(connector, ADAPTERS['ofd'] + k)
        own, others = ofd._align_list(fs['preact_feats'][1:], ft['preact_feats'][1:])
        levels = [[*side[1:], pooled[:, :, None, None]] for side, pooled in
                  ((fs['feats'], fs['pooled_feat']), (ft['preact_feats'], ft['pooled_feat']))]
        sizes = [[f.shape[-1] for f in reversed(side)] for side in levels]
        widths = [[f.shape[1] for f in side] for side in levels]
        review = ReviewKD(student, teacher, SimpleNamespace(REVIEWKD=SimpleNamespace(
            SHAPES=sizes[0], OUT_SHAPES=sizes[1], IN_CHANNELS=widths[0], OUT_CHANNELS=widths[1], CE_WEIGHT=1.,
            REVIEWKD_WEIGHT=5., WARMUP_EPOCHS=20, STU_PREACT=False, MAX_MID_CHANNEL=512)))
        for k, level in enumerate(review.abfs[::-1]):
            fill(level, ADAPTERS['review'] + k)
        found = dict(
            ofd=figure(ofd.eval().forward_train(x, y)[1]['loss_kd'], own, others),
            review=figure(review.eval().forward_train(x, y, epoch=240)[1]['loss_kd'], *levels),
            dkd=figure(dkd_loss(zs, zt, y, 1., beta, 4.)))
        found['review']['parameters'] = review.get_extra_parameters()
        return found, zs, zt


def head(checkout):
    "The commit of a checkout, or of the file `commit` beside it."
    noted = Path(checkout)/'commit'
    if noted.exists():
        return noted.read_text().strip()
    return subprocess.run(['git', '-C', checkout, 'rev-parse', 'HEAD'], check=True, capture_output=True,
                          text=True).stdout.strip()


def main(repdistiller, mdistiller, dist_kd):
    sys.path[:0] = [repdistiller, mdistiller]
    spec = importlib.util.spec_from_file_location('dist_kd', f'{dist_kd}/segmentation/losses/dist_kd.py')
    dist = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(dist)
    figures = {}
    for pair in find_preset('crd').pairs:
        ours, (x, y) = our_nets(pair, create_model), images()
        name = f'{pair[0]} -> {pair[1]}'
        with redirect_stdout(sys.stderr):                           # their MobileNetV2 prints
            found, zs, zt = by_mdistiller(pair, ours, x, y, BETAS.get(name, 8.))
            figures[name] = by_repdistiller(pair, ours, x, y) | found
        figures[name]['dist'] = figure(2*4**2*dist.DIST()(zs/4, zt/4))      # weight and T of the strategy for CIFAR
    commits = dict(zip(REPOSITORIES, map(head, (repdistiller, mdistiller, dist_kd)), strict=True))
    lines = [f' {json.dumps(k)}: {{\n' + ',\n'.join(f'  {json.dumps(m)}: {json.dumps(v)}' for m, v in of.items()) + '}'
             for k, of in figures.items()]
    print(f'{{"commits": {json.dumps(commits)}, "pairs": {{\n' + ',\n'.join(lines) + '}}')


if __name__ == '__main__':
    main(*sys.argv[1:])
