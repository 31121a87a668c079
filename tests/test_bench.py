"What a notebook cannot show of the benchmark: a real Ctrl-C, a clean stderr, `make bench`, a place that cannot be written."
import json, os, re, signal, subprocess, sys, time
from pathlib import Path
import pytest
from kdnb.bench import kdnb_bench

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = 'import sys; from kdnb.bench import kdnb_bench; sys.exit(kdnb_bench())'
TINY = '--bs 8 --device cpu --teacher resnet14 --student resnet8 --threads 1'.split()
ENV = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}

def start(*words): return subprocess.Popen([sys.executable, '-c', PROGRAM, *TINY, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV, start_new_session=True,
                                         preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))      # what a shell started in the background would have it ignore

def test_the_table_and_nothing_else_is_printed(tmp_path):
    child = start('--pairs', '1', '--methods', 'nst', 'kd(T=2)+at', '--write', str(tmp_path/'new'/'costs.json'))
    out, err = child.communicate(timeout=120)
    assert (child.returncode, err) == (0, ''), err                    # the profiler's log among it
    rows = json.loads((tmp_path/'new'/'costs.json').read_text())['rows']
    assert [l.split('  ')[0] for l in out.splitlines()[1:3]] == [r['method'] for r in rows] == ['nst', 'kd(T=2)+at']
    assert os.listdir(tmp_path/'new') == ['costs.json']

def test_ctrl_c_is_one_sentence_and_nothing_is_written(tmp_path):
    child = start('--pairs', '100000', '--write', str(tmp_path/'costs.json'))
    try:
        assert child.stdout.readline().split()[:2] == ['extra', 'parameters']      # it measures
        time.sleep(.3); child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    finally: child.kill(); child.wait()
    assert (child.returncode, err.strip(), os.listdir(tmp_path)) == (130, 'kdnb_bench: interrupted, nothing is written', [])

def test_make_bench_starts_it():
    line = next(l for l in subprocess.run(['make', '-n', 'bench', 'ARGS=--methods rkd'], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines() if 'kdnb_bench' in l)
    assert re.search(r'kdnb_bench.*--methods rkd$', line)

def test_a_file_in_the_way_is_told_before_anything_is_measured(tmp_path, capsys):
    (tmp_path/'thesis').write_text('x')
    assert kdnb_bench([*TINY, '--write', str(tmp_path/'thesis'/'costs.json')]) == 1
    out, err = capsys.readouterr()
    assert out == '' and err.startswith('kdnb_bench: ') and len(err.splitlines()) == 1 and (tmp_path/'thesis').read_text() == 'x'
