"What the notebooks of the first room cannot show: IPython, locks of several processes, the logger, doctests."
import csv
import doctest
import io
import logging
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kdnb import errors, files, seeds, text
from kdnb.errors import CannotRun, FileTrouble, Interrupted, Mistake, WrongType, WrongValue, say, warn_user
from kdnb.files import Lock
from kdnb.text import Column, Marked, Table, Tables

ROOT = Path(__file__).resolve().parent.parent
OURS = [WrongValue, WrongType, FileTrouble, CannotRun]
ENV = {**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONUNBUFFERED': '1'}
needs_flock = pytest.mark.skipif(sys.platform == 'win32', reason='no locks there')

def python(program, *args):
    "A new Python with its output in pipes."
    return subprocess.Popen([sys.executable, '-c', program, *map(str, args)], env=ENV, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)

def output(program, *args):
    "What a new Python prints: (standard output, standard error)."
    return python(program, *args).communicate(timeout=120)

@pytest.mark.parametrize('module', [errors, files, seeds, text])
def test_examples_in_docstrings_run(module):
    found = doctest.testmod(module)
    assert found.failed == 0 and found.attempted > 0

# --- errors

SHELL = '''
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance(colors='nocolor', history_length=0)
def cell(text): shell.run_cell(text, store_history=True)
'''

def in_ipython(*cells):
    "The lines that IPython prints for each cell."
    program = SHELL + ''.join(f"cell({c!r})\nprint('=====')\n" for c in cells)
    return [part.strip('\n').splitlines() for part in output(program)[0].split('=====\n')[:-1]]

def test_a_mistake_is_short_in_ipython_and_full_after_a_switch():
    call = 'from kdnb.files import run_path\nfrom kdnb.errors import show_tracebacks\nrun_path(\n    3)'
    cells = call, f'show_tracebacks()\n{call}', f'show_tracebacks(False)\n{call}', '%tb Verbose'
    short, full, again, verbose = in_ipython(*cells)
    assert short[0] == 'Cell In[1], line 3' and short[1] == '----> run_path('
    assert short[3] == 'WrongValue: a run is a name or a path, not 3' and len(short) <= 8 and len(again) <= 8
    assert any('Traceback' in line for line in full) and any('files.py' in line for line in full)
    assert any('Traceback' in line for line in verbose) and any('run = 3' in line for line in verbose)

def test_the_line_shown_is_yours_though_torch_stands_between():
    net = ('import torch\nfrom kdnb import errors\n'
           'exec("class Net(torch.nn.Module):\\n def forward(self, x): raise WrongValue(\'three channels\')", '
           'vars(errors) | dict(torch=torch), found := {})\n')
    (lines,) = in_ipython(net + "Net = found['Net']\nNet()(1)")
    assert lines[1] == '----> Net()(1)' and lines[3] == 'WrongValue: three channels' and len(lines) <= 8

def test_a_cause_is_in_the_full_form_only():
    call = 'from kdnb.files import write_atomic\nwrite_atomic("/nowhere/at/all.txt", b"")'
    short, verbose = in_ipython(call, '%tb Verbose')
    assert len(short) <= 8 and 'could not write /nowhere/at/all.txt: No such file or directory' in short[3]
    assert any('direct cause' in line for line in verbose) and not any('direct cause' in line for line in short)

def test_other_errors_look_as_always_in_ipython():
    mine, torchs = in_ipython('from kdnb.errors import say\n1/0', 'import torch\ntorch.ones(2, 3) @ torch.ones(2, 3)')
    assert any('Traceback' in line for line in mine) and any('Traceback' in line for line in torchs)

def test_ctrl_c_is_short_and_still_ctrl_c():
    program = ('from kdnb.errors import Interrupted\ntry: raise KeyboardInterrupt\n'
               'except KeyboardInterrupt as e: raise Interrupted("the same cell goes on") from e')
    (lines,) = in_ipython(program)
    assert len(lines) <= 8 and 'Interrupted: the same cell goes on' in lines
    with pytest.raises(KeyboardInterrupt): raise Interrupted('x')
    assert not issubclass(Interrupted, Exception) and not issubclass(Interrupted, Mistake)

def test_plain_python_shows_the_whole_traceback():
    err = output('from kdnb.files import run_path; run_path(3)')[1].splitlines()
    assert err[0].startswith('Traceback') and any('files.py' in line for line in err)
    assert err[-1] == 'kdnb.errors.WrongValue: a run is a name or a path, not 3'

@pytest.mark.parametrize(('ours', 'builtin'), [*zip(OURS, [ValueError, TypeError, OSError, RuntimeError], strict=True)])
def test_errors_are_the_kinds_that_people_catch(ours, builtin):
    with pytest.raises(builtin, match='why') as e: raise ours('why')
    again = pickle.loads(pickle.dumps(e.value))                      # as between processes
    assert type(again) is ours and str(again) == 'why'
    assert isinstance(again, Mistake) and isinstance(again, errors.MISTAKES)

def test_importing_needs_no_ipython_and_no_torch():
    program = 'import sys, kdnb.errors, kdnb.files, kdnb.text; print({"torch", "IPython"} & {*sys.modules})'
    assert output(program)[0] == 'set()\n'

# --- the logger

def test_reports_reach_capsys(capsys):
    say('50 % done')
    assert capsys.readouterr() == ('50 % done\n', '')

LOGS = '''
import logging, sys
{before}
from kdnb.errors import say
{after}
say('hello')
'''

@pytest.mark.parametrize(('before', 'after', 'out', 'err'), [
    ('', '', 'hello\n', ''),
    ('logging.basicConfig(level="INFO")', '', 'hello\n', ''),
    ('', 'logging.basicConfig(level="INFO")', 'hello\n', ''),
    ('', 'logging.basicConfig(level="INFO"); logging.getLogger("kdnb").propagate = True', '', 'INFO:kdnb:hello\n'),
    ('', 'logging.getLogger("kdnb").setLevel("WARNING")', '', ''),
    ('logging.getLogger("kdnb").setLevel("WARNING")', '', '', ''),
    ('', 'logging.getLogger("kdnb").addHandler(logging.StreamHandler())', '', 'hello\n'),
    ('logging.getLogger("kdnb").addHandler(logging.StreamHandler())', '', '', 'hello\n'),
    ('', 'logging.getLogger("kdnb").addHandler(logging.NullHandler())', '', ''),
    ('', 'import importlib, kdnb.errors; importlib.reload(kdnb.errors)', 'hello\n', ''),
])
def test_a_report_is_printed_once_and_where_you_want_it(before, after, out, err):
    assert output(LOGS.format(before=before, after=after)) == (out, err)

def test_a_closed_pipe_is_an_error_as_it_is_for_print():
    p = python("from kdnb.errors import say\nfor i in range(100_000): say(str(i))")
    p.stdout.readline()
    p.stdout.close()
    assert 'BrokenPipeError' in p.stderr.read() and p.wait(60) == 1
    p.stderr.close()

def test_a_report_leaves_the_root_logger_alone():
    assert logging.getLogger('kdnb') is errors.logger and not any(h.name == 'kdnb' for h in logging.root.handlers)

# --- locks

HOLDS = '''
import os, sys, time
from kdnb.files import Lock
lock = Lock(sys.argv[1], on_wait='waits'); lock.acquire(); print('has it')
if sys.argv[2] == 'fork' and not os.fork(): print('forked')
time.sleep(float(sys.argv[3])); print('ends')
'''

def holder(path, fork='', seconds=60):
    "A process that has the lock."
    p = python(HOLDS, path, fork or '-', seconds)
    assert p.stdout.readline() == 'has it\n'
    if fork: assert p.stdout.readline() == 'forked\n'
    return p

def end(p):
    p.kill()
    p.communicate()

@pytest.mark.slow
@needs_flock
@pytest.mark.parametrize('kind', ['folder', 'file'])
def test_a_lock_ends_with_its_process_and_not_with_the_child_of_that(tmp_path, kind):
    path = tmp_path if kind == 'folder' else tmp_path/'deep'/'a.lock'
    p, mine = python(HOLDS, path, 'fork', 5), Lock(path)
    assert {p.stdout.readline(), p.stdout.readline()} == {'has it\n', 'forked\n'}
    assert not mine.acquire(wait=False) and not mine.taken_here
    os.kill(p.pid, signal.SIGKILL)
    p.wait()
    assert mine.acquire(wait=False) and mine.held
    mine.release()
    p.communicate()                                              # the child ends
    assert [f.name for f in tmp_path.rglob('*')] == ([] if kind == 'folder' else ['deep', 'a.lock'])

@needs_flock
def test_a_process_waits_and_says_so_once(tmp_path):
    first = holder(tmp_path)
    second = python(HOLDS, tmp_path, '-', 0)
    assert second.stdout.readline() == 'waits\n'
    end(first)
    assert second.communicate(timeout=60)[0] == 'has it\nends\n'

@needs_flock
def test_ctrl_c_ends_a_wait_and_leaves_nothing_locked(tmp_path):
    first = holder(tmp_path)
    mine = Lock(tmp_path, on_wait=lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt): mine.acquire()
    assert not mine.held and not files._held
    end(first)
    assert mine.acquire(wait=False)
    mine.release()

@needs_flock
def test_a_child_can_take_what_its_parent_gave_back(tmp_path):
    lock = Lock(tmp_path)
    with lock:
        child = os.fork()
        if not child: os._exit(10*lock.held + lock.acquire(wait=False))              # the parent has it still
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 and lock.held
    child = os.fork()
    if not child: os._exit(10*lock.held + lock.acquire(wait=False))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1

def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(*_): raise PermissionError(13, 'Permission denied')
    monkeypatch.setattr(os, 'open', refuse)
    with pytest.raises(PermissionError): Lock(tmp_path/'a.lock').acquire()
    assert not files._held

def test_a_lock_that_was_opened_twice_is_held_once(tmp_path):
    lock = Lock(tmp_path)
    assert lock.acquire() and lock.acquire(wait=False) and len(files._held) == 1
    lock.release()
    assert not files._held and repr(lock).endswith('free)')

# --- tables

def test_a_table_of_anything_survives_every_form():
    odd = ['a|b', '<i>&"', '50 % of #1_{x}~^\\', '', 'é±→', '-3']
    table = Table(['x', Column('y|', note='n|<')], [[o, Marked(i, f'note {i % 2} |<')] for i, o in enumerate(odd)])
    both = Tables([table, table])
    assert [r['x'] for r in csv.DictReader(io.StringIO(table.csv()))] == odd
    assert table.html().count('</td>') == 2*len(odd) and '<i>' not in table.html() and 'note 1' in table.text()
    assert all(line.count('|') - line.count(r'\|') == 3 for line in table.markdown().splitlines()[:8])
    assert len(table.text().splitlines()) == 1 + len(odd) + 3
    for form in 'text', 'html', 'markdown', 'latex', 'csv':
        assert len(getattr(both, form)()) > len(getattr(table, form)())

def test_numbers_of_numpy_and_torch_are_numbers():
    import numpy as np
    import torch
    rows = [['x', np.float32(1.25), np.int64(5000)], ['y', float('nan'), None]]
    table = Table(['', Column('a', '.1f'), Column('b', ',')], rows)
    assert table.text().splitlines()[1:] == ['x  1.2  5,000', 'y    –      –']
    assert Column('').show(torch.tensor(3).item()) == '3'

def test_more_than_nine_footnotes():
    table = Table(['n'], [[Marked(i, f'note {i}')] for i in range(12)])
    assert table.text().splitlines()[12] == '11¹²' and table.text().endswith('¹² note 11')


def test_a_warning_points_past_a_decorator_of_contextlib():
    code = ('import contextlib\n@contextlib.contextmanager\ndef entered(): yield\n'
            "@entered()\ndef f(): warn_user('told')\n")
    inside = {'__name__': 'kdnb.somewhere', 'warn_user': warn_user}
    exec(compile(code, 'inside.py', 'exec'), inside)
    with pytest.warns(UserWarning, match='told') as caught:
        inside['f']()
    assert caught[0].filename == __file__
