"""The zoo: runs that are read from anywhere, in half precision, and never written; fetched where they are not there."""

import hashlib
import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from docs import zoo as keeper
from kdnb.all import Distill, Frozen, Learner, Run, create_model, load_data, load_model, load_results, predict, seeded
from kdnb.data import list_zoo, read_zoo, zoo_names
from kdnb.files import zoo_root

def small_net(seed=0):
    with seeded(seed): return create_model('resnet8', 10)


@pytest.fixture
def data(): return load_data('digits', size=8, n_train=60, bs=20, device='cpu')


@pytest.fixture
def kept(tmp_path, monkeypatch, data):
    "A zoo of two runs: one with its weights, one without."
    monkeypatch.setenv('KDNB_ZOO', str(tmp_path/'zoo'))
    monkeypatch.setenv('KDNB_RUNS', str(tmp_path/'runs'))
    listed = tmp_path/'zoo.json'
    listed.write_text(json.dumps({'': ''}))
    monkeypatch.setattr('kdnb.data.zoo.manifest_file', lambda: listed)
    monkeypatch.setattr('docs.zoo.manifest_file', lambda: listed)
    for seed in (0, 1):
        Learner(small_net(seed), data, run=f'kept-{seed}', seed=seed, cbs=[]).fit(1)
        keeper.list_run(keeper.copy_run(Run(f'kept-{seed}'), f'kept-{seed}', weights=seed == 0), 'kdnb_train')
    return tmp_path


def test_a_kept_run_is_loaded_as_any_other(kept, data, capsys):
    own = Learner(small_net(), data, run='kept-0', cbs=[]).fit(1)
    learn = Learner(small_net(), data, run='zoo:kept-0', cbs=[]).fit(1)
    assert 'finished, loaded (1 epoch, in half precision)' in capsys.readouterr().out
    assert learn.result == own.result and learn.history == own.history
    theirs, ours = (predict(one.student, data.test)[0] for one in (learn, own))
    torch.testing.assert_close(theirs, ours, atol=.02, rtol=0)
    for model in (load_model('zoo:kept-0', 'last'), create_model('resnet8', 10, weights='zoo:kept-0')):
        assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), learn.student.state_dict().values()))


def test_it_teaches(kept, data):
    taught = Learner(Distill(small_net(1), Frozen('zoo:kept-0'), 'kd'), data, run='taught', cbs=None).fit(1)
    row, = load_results('taught')
    assert taught.result and row['teacher']


def test_tables_read_patterns(kept):
    assert [row['run'] for row in load_results('zoo:kept-*')] == ['kept-0', 'kept-1']
    assert len(list_zoo('kept-*')) == 2
    assert read_zoo()['kept-0']['test_again'] == list_zoo('kept-0').records()[0]['from weights']
    with pytest.raises(ValueError, match='unknown run of the zoo .*did you mean kept'):
        load_results('zoo:kept-O')


def test_nothing_is_written(kept, data):
    def files(): return {p.name: p.read_bytes() for p in zoo_root().rglob('*') if p.is_file()}

    before = files()
    for how in (dict(epochs=2), dict(epochs=1, fresh=True)):
        with pytest.raises((ValueError, RuntimeError), match='comes with kdnb and is only read|was run differently'):
            Learner(small_net(), data, run='zoo:kept-0', cbs=None).fit(**how)
    with pytest.raises((ValueError, OSError), match='unknown run of the zoo'):
        Learner(small_net(), data, run='zoo:mine', cbs=None).fit(1)
    with pytest.raises(OSError, match='is kept without weights'):
        Learner(small_net(1), data, run='zoo:kept-1', seed=1, cbs=None).fit(1)
    assert files() == before


@pytest.fixture
def release(kept):
    "A server that has the kept runs, and nothing of them here."
    zoo_root().rename(kept/'release')
    handler = partial(SimpleHTTPRequestHandler, directory=str(kept/'release'))
    server = ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    listed = read_zoo() | {'': f'http://127.0.0.1:{server.server_port}'}
    (kept/'zoo.json').write_text(json.dumps(listed))
    yield kept/'release'
    server.shutdown()
    server.server_close()


def test_what_is_not_there_is_fetched(release, data, capsys):
    model = load_model('zoo:kept-0', 'last')
    assert 'zoo:kept-0 is fetched once' in capsys.readouterr().out and model.call['depth'] == 8
    assert [p.name for p in zoo_root().iterdir()] == ['kept-0']


def test_what_is_damaged_or_gone_is_one_sentence_and_nothing_is_kept(release):
    (release/'kept-0'/'last.pt').write_bytes(b'other')
    (release/'kept-1'/'result.json').unlink()
    for name, why in ('kept-0', 'invalid hash'), ('kept-1', '404'):
        with pytest.raises(OSError, match=f'could not be fetched .*{why}.*nothing is kept: try again') as e:
            load_results(f'zoo:{name}')
        assert len(str(e.value).splitlines()) == 1
    assert not [*zoo_root().iterdir()]


def test_the_list_is_true():
    "Every run that the repository keeps has the files of the list, and its weights score what the list says."
    assert {p.name for p in zoo_root().iterdir() if p.is_dir()} == {name for name in read_zoo() if name}
    assert sum(p.stat().st_size for p in zoo_root().rglob('*.pt')) < 25e6
    for name in zoo_names():
        files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (zoo_root()/name).iterdir()}
        assert files == {file: known['sha256'] for file, known in read_zoo()[name]['files'].items()}
