"""A sweep on a Ray cluster of two nodes, one of them killed half way: each run is made once, as it is made at home."""
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from kdnb.data import load_data
from kdnb.errors import CannotRun, Interrupted
from kdnb.experiments import sweep
from kdnb.experiments.clusters import _connected
from kdnb.models import resnet

ray = pytest.importorskip('ray', reason="the package ray is not installed: pip install 'kdnb[ray]'")
ROOT = Path(__file__).resolve().parents[2]
LONG = 300                                      # seconds: each wait ends with an event, this is where it gives up
SYSTEM = dict(health_check_initial_delay_ms=0, health_check_period_ms=1000, health_check_failure_threshold=3)


def held(classes):
    "A student that says where it is made after its first epoch, and waits until the file `go` is there."
    folder = Path(os.environ['KDNB_RUNS']).parent
    where = ray.get_runtime_context().get_node_id() if ray.is_initialized() else 'home'
    seen = []

    def hold(net, _):
        seen.append(net.training)
        if sum(seen) != 5: return                       # an epoch has three batches
        (folder/f'at-{os.getpid()}').write_text(where)
        while not (folder/'go').exists():
            time.sleep(.05)

    net = resnet(8, classes)
    net.register_forward_pre_hook(hold)
    return net


def until(what):
    "What a function returns, as soon as it is true."
    end = time.monotonic() + LONG
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(.05)
    return found


def patient(get_node):
    "Ray gives a node 30 seconds to start, which is little on a busy machine."
    def found(*args):
        try:
            return get_node(*args)
        except RuntimeError:
            return None

    return lambda *args: until(lambda: found(*args))


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
    from ray.cluster_utils import Cluster
    with pytest.MonkeyPatch.context() as m:
        m.setenv('PYTHONPATH', str(ROOT))               # of the nodes
        m.setenv('OMP_NUM_THREADS', '1')
        m.setenv('RAY_USAGE_STATS_ENABLED', '0')
        m.chdir(tmp_path_factory.mktemp('nodes'))
        m.setattr('ray._private.services.get_node', patient(ray._private.services.get_node))
        made = Cluster(initialize_head=True, head_node_args=dict(
            num_cpus=1, include_dashboard=False, _system_config=SYSTEM))
        made.add_node(num_cpus=1)
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        with _connected(made.address):                  # once: each connection starts processes of its own
            yield made
        assert not ray.is_initialized()
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
        made.shutdown()


@pytest.fixture
def ask(quiet):
    data = load_data('digits', size=8, n_train=60, bs=20, device='cpu')
    return dict(student=held, teacher='resnet14', seeds=2, epochs=3, data=data, name='t', amp='off')


def histories(runs): return {p.parent.name: p.read_text() for p in runs.glob('*/history.jsonl')}


def wait_for_epoch(runs, node): until(lambda: node.node_id in [p.read_text() for p in runs.parent.glob('at-*')])


def meanwhile(do):
    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    return thread


def test_a_folder_that_nodes_do_not_share(cluster, ask, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)                         # the nodes have another working folder
    monkeypatch.setenv('KDNB_RUNS', '/proc/self/cwd/runs')
    with pytest.raises(CannotRun, match=r'did not read a file in /proc/self/cwd/runs within 300 seconds: set \$KDNB_'):
        sweep(**ask, engine='ray', address=cluster.address)
    assert [*tmp_path.glob('runs/*')] == []


def check_same(one, other):
    "Two folders of runs hold the same weights, scores and losses."
    for run in histories(one):
        a, b = (torch.load(folder/run/'last.pt', weights_only=False)['state'] for folder in (one, other))
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
        rows = ([json.loads(row) for row in histories(folder)[run].splitlines()] for folder in (one, other))
        for row, same in zip(*rows, strict=True):
            assert row['loss'] == same['loss'] and row['valid_acc'] == same['valid_acc']


def test_ctrl_c_and_a_killed_node(cluster, ask, runs, monkeypatch, tmp_path, capsys):
    there, (node,) = {}, cluster.worker_nodes

    def interrupt():
        wait_for_epoch(runs, node)
        os.kill(os.getpid(), signal.SIGINT)

    def kill():
        wait_for_epoch(runs, node)
        there.update(histories(runs))
        cluster.remove_node(node, allow_graceful=False)
        (runs.parent/'go').touch()

    meanwhile(interrupt)
    with pytest.raises(Interrupted, match='the tasks of the sweep are cancelled. Run the same cell or command again'):
        sweep(**ask, engine='ray', address=cluster.address)
    first = histories(runs)
    assert first and not (runs/'t-held-kd-1/result.json').exists()
    for path in runs.parent.glob('at-*'): path.unlink()
    thread = meanwhile(kill)
    results = sweep(**ask, engine='ray', address=cluster.address)
    thread.join(LONG)
    assert len(results) == 5 and not results.left_out and not cluster.worker_nodes
    assert '5 of 5 runs done, 0 running, 0 left' in capsys.readouterr().out
    assert len(there) >= len(first)
    for run, text in histories(runs).items():
        assert [json.loads(row)['epoch'] for row in text.splitlines()] == [1, 2, 3]      # each epoch once
        assert text.startswith(first.get(run, '')) and text.startswith(there.get(run, ''))
    monkeypatch.setenv('KDNB_RUNS', str(tmp_path/'home/runs'))
    (tmp_path/'home').mkdir()
    (tmp_path/'home/go').touch()
    sweep(**ask)
    check_same(runs, tmp_path/'home/runs')
