"Images that may have several classes: rows of 0 and 1, sigmoids, bkd, mean average precision, everywhere."

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from kdnb.all import (
    Alone,
    Data,
    Distill,
    EarlyStop,
    JointRD,
    Learner,
    Online,
    compare,
    load_data,
    load_results,
    plainnet,
    predict,
    remember,
    resnet,
    show_batch,
    show_history,
    show_tradeoff,
)
from kdnb.losses import ce_loss
from kdnb.measure import mean_average_precision, precision_of_classes
from kdnb.methods import BKD, Term, known_methods, parse_method
from kdnb.schemes import check_terms
from kdnb.seeds import seeded
from kdnb.systems import Recipe
from kdnb.train import Callback, fit_together

CLASSES = ['a', 'b', 'c', 'd']


class Calls(Callback):
    "Call a function after each epoch."
    def __init__(self, after): self.after_epoch = after


def draw(n, seed):
    "Grey noise of 8 pixels; class k is there where quarter k is bright."
    g = torch.Generator().manual_seed(seed)
    rows = (torch.rand(n, 4, generator=g) < .4).long()
    x = torch.randint(0, 120, (n, 3, 8, 8), dtype=torch.uint8, generator=g)
    for i, (top, left) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
        x[:, :, top:top + 4, left:left + 4] += 90*rows[:, i].view(-1, 1, 1, 1).to(torch.uint8)
    return x, rows


def quarters(n=80, **options):
    return Data(draw(n, 0), draw(40, 1), draw(60, 2), CLASSES, 20, None, 'cpu', name='quarters', **options)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    "A teacher, and a student alone and taught, in runs of their own."
    root, data = tmp_path_factory.mktemp('runs'), quarters()
    with seeded(0):
        own = Recipe(3, lr=.05, wd=5e-4, ema=.9)
        teacher = Learner(resnet(14, 4), data, run=root/'teacher', cbs=None, recipe=own).fit(3)
        alone = Learner(resnet(8, 4), data, run=root/'alone', cbs=None).fit(2)
        taught = Learner(Distill(resnet(8, 4), root/'teacher', 'bkd'), data, run=root/'taught', cbs=None).fit(2)
    return root, data, teacher, alone, taught


# --- the measure

def test_map_is_scikit_learns_with_equal_scores():
    g = torch.Generator().manual_seed(0)
    for decimals in 3, 0:
        z = torch.randn(150, 6, generator=g).round(decimals=decimals)
        rows = (torch.rand(150, 6, generator=g) < .3).long()
        each = 100*average_precision_score(rows, z, average=None)
        assert np.allclose(precision_of_classes(z, rows), each)
        assert mean_average_precision(z, rows) == pytest.approx(each.mean())


def test_classes_without_images_are_left_out_and_told():
    x, rows = draw(40, 0)
    few = rows.clone()
    few[:, 2] = 0
    with pytest.warns(UserWarning, match='test has no image with c: its mAP is the mean over 3 of 4 classes'):
        Data((x, rows), None, (x, few), CLASSES, bs=20, device='cpu')
    with pytest.raises(ValueError, match='no image of test has a class: label some of them'):
        Data((x, rows), None, (x, 0*rows), CLASSES, bs=20, device='cpu')
    z = torch.randn(40, 4)
    kept = [0, 1, 3]
    assert mean_average_precision(z, few) == pytest.approx(mean_average_precision(z[:, kept], few[:, kept]))


# --- the loss

def test_labels_of_whole_numbers_are_yes_or_no():
    z, rows = torch.randn(6, 4), (torch.rand(6, 4) < .5).long()
    want = torch.nn.functional.binary_cross_entropy(z.sigmoid(), rows.float(), reduction='sum')/6
    assert ce_loss(z, rows).item() == pytest.approx(want.item(), rel=1e-5)
    with pytest.raises(ValueError, match=r'whole numbers: give y.long\(\)'): ce_loss(z, torch.ones(6, 4))


# --- the data

def test_labels_that_do_not_fit_are_refused():
    x, rows = draw(40, 0)
    def make(y, test=None, classes=CLASSES):
        return Data((x, y), None, (x, y if test is None else test), classes, bs=20, device='cpu')
    one = torch.eye(4)[torch.arange(40) % 4]
    for y, says in (
        (one, r'each image has exactly one class: give its number as the label \(y.argmax'),
        (rows*2, r'labels \(N, C\) are 0 or 1, and one is 2'),
        (rows*.5, r'labels \(N, C\) are 0 or 1, and one is 0.5'),
        (rows[:, :3], r'labels of shape \(40, 3\): give 40 class numbers, or for each image a row of 4')):
        with pytest.raises(ValueError, match=says): make(y)
    with pytest.raises(ValueError, match='some splits have class numbers and some rows of 0 and 1'):
        make(rows, torch.arange(40) % 4)
    with pytest.raises(ValueError, match='per_class=2 is for images of one class'):
        make(rows).examples(4, per_class=2)


def test_a_dataset_may_give_rows_held_and_streamed():
    x, rows = draw(40, 0)
    items = [(image.permute(1, 2, 0).numpy(), row.bool().tolist()) for image, row in zip(x, rows, strict=True)]
    held = Data((x, rows), None, (x, rows), CLASSES, bs=20, augment=None, device='cpu')
    for stream in False, True:
        data = Data(items, None, items, CLASSES, bs=20, augment=None, device='cpu', stream=stream, workers=0)
        assert data.multi_label and data.describe()['multi_label'] is True
        for (xa, ya), (xb, yb) in zip(data.train.epoch(0, 0), held.train.epoch(0, 0), strict=True):
            assert torch.equal(ya, yb) and torch.allclose(xa, xb, atol=1e-5)
    with pytest.raises(ValueError, match='the labels of the images are not alike'):
        Data([*items, (items[0][0], 1)], None, items, CLASSES, bs=20, device='cpu')


def test_valid_and_few_images_are_drawn_from_rows(tmp_path):
    x, rows = draw(100, 0)
    x = x.permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path/'own.npz', x_train=x, y_train=rows, x_test=x[:40], y_test=rows[:40])
    data = load_data(tmp_path/'own.npz', n_train=30, bs=10, valid=.2, device='cpu')
    assert [len(s) for s in (data.train, data.valid, data.test)] == [30, 20, 40]
    assert (data.train.y.sum(0) > 0).all() and data.classes == ['0', '1', '2', '3']
    turned = load_data(tmp_path/'own.npz', bs=10, device='cpu', classes=['3', '2', '1', '0'])
    assert torch.equal(turned.test.y, rows[:40].flip(1))


# --- training

def test_history_result_and_config_say_map(runs):
    root, data, teacher, alone, taught = runs
    assert {'train_mAP', 'valid_mAP'} <= set(taught.history[0]) and list(taught.history[0])[3:5] == ['ce', 'bkd']
    assert not any(name.endswith('_acc') for name in taught.history[0])
    assert 'ema_mAP' in teacher.history[0] and set(teacher.result) == {'last', 'best', 'ema'}
    best = max(teacher.history, key=lambda row: row['valid_mAP'])
    assert teacher.result['best']['epoch'] == best['epoch'] and 'test_mAP' in teacher.result['best']
    z, y = predict(taught.student, data.test)
    want = 100*average_precision_score(y, z.sigmoid())
    assert taught.result['last']['test_mAP'] == pytest.approx(want, abs=1e-3) and want > 60
    assert json.loads((root/'taught'/'config.json').read_text())['data']['multi_label'] is True
    assert 'test_mAP' in repr(alone)


def test_an_interrupted_run_goes_on_bit_for_bit(runs, tmp_path):
    root, data, _, _, taught = runs
    def begin(**more):
        with seeded(3): student = resnet(8, 4)
        return Learner(Distill(student, root/'teacher', 'bkd'), data, recipe=Recipe(3, lr=.05, wd=5e-4, ema=.9), **more)
    def stop(learn):
        if learn.epoch == 1: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): begin(run=tmp_path/'cut', cbs=[Calls(stop)]).fit(3)
    whole, cut = begin(cbs=None).fit(3), begin(run=tmp_path/'cut', cbs=None).fit(3)
    untimed = [[{k: v for k, v in row.items() if k not in ('seconds', 'images_per_second')} for row in learn.history]
               for learn in (whole, cut)]
    assert untimed[0] == untimed[1] and whole.result == cut.result


@pytest.mark.parametrize('method', ['at', 'sp', 'fitnet', 'rkd', 'cat', 'ls'])
def test_methods_on_features_learn(runs, method):
    root, data, teacher, *_ = runs
    student = resnet(8, 4)
    scheme = Alone(student, method) if method == 'ls' else Distill(student, root/'teacher', method)
    assert 'train_mAP' in Learner(scheme, data, cbs=None).fit(1).history[0]


def test_methods_of_one_class_are_refused_before_training(runs):
    root, data, *_ = runs
    refused = set()
    for name in known_methods:
        try:
            check_terms(SimpleNamespace(method=parse_method(name)), data)
        except ValueError as e:
            assert 'needs one class an image, and those of quarters may have several: take bkd' in str(e), name
            refused.add(name)
    assert {'kd', 'dkd', 'dist', 'wttm', 'nkd', 'hard', 'mlkd', 'ctkd', 'crd', 'sdd', 'self'} <= refused
    assert {'ce', 'ls', 'bkd', 'at', 'fitnet', 'sp', 'rkd', 'cat', 'vid', 'simkd'}.isdisjoint(refused)
    with pytest.raises(ValueError, match='kd needs one class an image'):
        Learner(Distill(resnet(8, 4), root/'teacher', 'kd+at'), data, cbs=None)
    with pytest.raises(ValueError, match='kd needs one class an image'):
        Learner(Online([resnet(8, 4), resnet(8, 4)]), data, cbs=None)
    own = Term(lambda s, t: (s.sigmoid() - t.sigmoid()).square().mean(), 10, taps=None, name='own')
    assert Learner(Distill(resnet(8, 4), root/'teacher', own), data, cbs=None)


@pytest.mark.parametrize('fields', [dict(mixup=.8), dict(cutmix=1.), dict(smoothing=.1)])
def test_mixtures_of_labels_are_refused(fields):
    with pytest.raises(ValueError, match='is for one class an image, and those of quarters may have several'):
        Learner(resnet(8, 4), quarters(), recipe=Recipe(2, lr=.05, wd=5e-4, **fields), cbs=None)


def test_mixtures_of_images_alone_and_other_schemes_learn(runs):
    _, data, teacher, *_ = runs
    strong = Recipe(2, lr=.05, wd=5e-4, erase=.25, augment='trivialaugment')
    assert 'train_mAP' in Learner(resnet(8, 4), data, recipe=strong, cbs=None).fit(1).history[0]
    joint = JointRD(plainnet(8, 4), resnet(8, 4))
    assert 'train_mAP' in Learner(joint, data, cbs=None).fit(1).history[0]


def test_remembered_and_together(runs):
    root, data, *_ = runs
    memory = remember(root/'teacher', data, views=1)
    learners = [Learner(Distill(resnet(8, 4), root/'teacher', m), data, cbs=None) for m in ('bkd', 'bkd(T=2)')]
    own = Learner(Distill(resnet(8, 4), memory, BKD()), data, cbs=None).fit(1)
    for learn in (own, *fit_together(learners, 1, cbs=None)):
        assert learn.history[0]['train_mAP'] > 0


def test_early_stop_watches_map(runs):
    learn = Learner(resnet(8, 4), runs[1], cbs=[EarlyStop(patience=1, least=100)]).fit(5)
    assert learn.epoch == 2


# --- what is shown

def test_tables_and_figures_say_map(runs):
    root, data, teacher, alone, taught = runs
    results = load_results([root/'alone', root/'taught'])
    assert 'mAP in % on test' in results.table().text()
    assert [ax.get_ylabel() for ax in show_history(dict(alone=alone, taught=taught)).axes] == ['loss', 'mAP, %']
    assert show_tradeoff(results, against='parameters').axes[0].get_ylabel().startswith('mAP')
    titles = [ax.get_title() for ax in show_batch(data, 4).axes]
    rows = data.one_batch()[1][:4]
    assert titles == [', '.join(np.array(CLASSES)[row.numpy() == 1]) or 'no class' for row in rows]
    with pytest.raises(ValueError, match='sorts images by their one class'): compare(teacher=teacher, alone=alone)
