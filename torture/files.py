"""Damaged files: of runs, of data, of archives; every loader takes them or refuses them in words."""

import json
import random
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from kdnb.data import load_data, unpack
from kdnb.experiments import load_results, repeat_options
from kdnb.models import create_model, load_model, save_model, weights_hash
from kdnb.train import Run, read_history, remember

from .odd import VALUES, flip, odd_history, odd_json
from .runs import digits, empty, image_folder, net, one_sentence, teacher, train, undisturbed

def _copy(root: Path, name: str, to: str) -> tuple[Path, Path]:
    "A copy of a whole run; the run, and the copy."
    _, whole = undisturbed(name, root)
    shutil.copytree(whole, empty(root/to))
    return whole, root/to


def bit_flip(rng: random.Random, root: Path) -> None:
    "One to eight bits of a file of a finished or unfinished run change: refused, mended, or nothing changed."
    name = rng.choice(['alone', 'kd+at'])
    _, folder = _copy(root, name, 'flipped')
    (_, _, weights), _ = undisturbed(name, root)
    if rng.random() < .5: (folder/'result.json').unlink()
    file = rng.choice(sorted(folder.iterdir()))
    file.write_bytes(flip(file.read_bytes(), rng, rng.randint(1, 8)))
    one_sentence(lambda: load_results(str(folder)))
    for which in 'best', 'last':
        if file.stem in (which, 'config'): one_sentence(lambda w=which: load_model(folder, w))
    learn = one_sentence(lambda: train(name, folder))
    if learn is not None and file.suffix == '.pt':
        assert weights_hash(learn.student) == weights, 'other weights, and no word'


def _drawn(rng: random.Random, strategy):
    "One example of a strategy of hypothesis, from these random numbers."
    found = []

    @seed(rng.randrange(2**32))
    @settings(max_examples=1, database=None, phases=[Phase.generate], deadline=None,
              suppress_health_check=list(HealthCheck))
    @given(strategy)
    def draw(value): found.append(value)

    draw()
    return found[-1]


def _cut_or_noise(content: bytes, rng: random.Random) -> bytes:
    "Content that ends early, is noise, has other bits, or a part twice."
    at = rng.randrange(len(content) or 1)
    return rng.choice([content[:at], rng.randbytes(rng.randrange(300)), flip(content, rng, rng.randint(1, 64)),
                       content[:at] + content])


def _odd_record(file: Path, rng: random.Random) -> None:
    "A checkpoint that is well-formed, with other values in it."
    saved = torch.load(file, weights_only=True)
    inside = saved['train'] if file.stem == 'last' and rng.random() < .5 else saved
    inside[rng.choice([*inside])] = rng.choice([None, 3, -1, 10**9, [], {}, 'x', {'a': 1}, torch.zeros(2)])
    torch.save(saved, file)


def damaged_file(rng: random.Random, root: Path) -> None:
    "A file of a run has odd contents, is cut short or is noise: what reads it takes it or refuses it in words."
    whole, folder = _copy(root, 'kd+at', 'damaged')
    file = folder/rng.choice(['config.json', 'result.json', 'history.jsonl', 'last.pt', 'best.pt'])
    content = file.read_bytes()
    if rng.random() < .3:
        file.write_bytes(_cut_or_noise(content, rng))
    elif file.suffix == '.pt':
        _odd_record(file, rng)
    else:
        odd = odd_history(read_history(Run(folder))) if file.suffix == '.jsonl' else odd_json(json.loads(content))
        file.write_bytes(_drawn(rng, odd))
    results = load_results([whole, folder])
    assert whole.name in {row['run'] for row in results}
    results.table().text(), results.table().csv()
    if file.stem == 'config': one_sentence(lambda: repeat_options(file))
    if file.stem in ('config', 'last'): one_sentence(lambda: load_model(folder, 'last'))
    if file.stem == 'best': one_sentence(lambda: create_model('resnet8', 10, weights=file))
    if rng.random() < .2:
        (folder/'result.json').unlink(missing_ok=True)
        one_sentence(lambda: train('kd+at', folder))


# --- files that are no runs

@cache
def _made(root: Path) -> dict:
    "{a file: what reads it}."
    at = root/'files'
    at.mkdir()
    pixels, labels = np.zeros((12, 8, 8, 3), np.uint8), np.arange(12) % 3
    np.savez(at/'set.npz', x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    save_model(net(), at/'model.pt')
    load_results(undisturbed('alone', root)[1]).save(at/'results.json')
    images = sorted(shutil.copytree(image_folder(root), at/'images').rglob('*.png'))
    (at/'labels.csv').write_text('file,label\n' + ''.join(f'{p.relative_to(at/"images")},{i % 3}\n'
                                                          for i, p in enumerate(images)))
    for kind in 'tar', 'zip': shutil.make_archive(str(at/'archive'), kind, at, 'images')
    remember(teacher(), digits(), 1, root=at/'remembered')
    how = dict(size=8, bs=4, device='cpu')
    return {
        at/'set.npz': lambda: load_data(at/'set.npz', **how),
        at/'model.pt': lambda: load_model(at/'model.pt'),
        at/'results.json': lambda: load_results(at/'results.json').table().text(),
        images[0]: lambda: load_data(at/'images', **how),
        images[1]: lambda: next(iter(load_data(at/'images', stream=True, workers=0, **how).train)),
        at/'labels.csv': lambda: load_data(at/'images', labels=at/'labels.csv', **how),
        at/'archive.tar': lambda: unpack(at/'archive.tar', empty(at/'from-tar')),
        at/'archive.zip': lambda: unpack(at/'archive.zip', empty(at/'from-zip')),
        next((at/'remembered').rglob('*.npy')): lambda: remember(teacher(), digits(), 1, root=at/'remembered')}


def damaged_data(rng: random.Random, root: Path) -> None:
    """A file that is no run's (image, array, labels, archive, remembered logits, saved table, model) is cut short,
    noise or flipped: its loader takes it or refuses it in words."""
    file, read = rng.choice([*_made(root).items()])
    content = file.read_bytes()
    try:
        file.write_bytes(_cut_or_noise(content, rng))
        one_sentence(read)
    finally: file.write_bytes(content)


def odd_value(rng: random.Random, root: Path) -> None:
    "JSON of any shape in the place of a configuration."
    folder = root/'odd'
    folder.mkdir(exist_ok=True)
    (folder/'config.json').write_text(json.dumps(_drawn(rng, VALUES)))
    assert not load_results([folder])
