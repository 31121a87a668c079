"""A file system without locks: sweeps, remembered teachers and downloads go on as runs do, and say it once."""

import errno
import hashlib
import warnings

import pytest

from kdnb import files
from kdnb.data import download
from kdnb.experiments import Job, run_jobs
from kdnb.models import resnet
from kdnb.train import Learner, remember

pytestmark = pytest.mark.usefixtures('quiet')


@pytest.mark.parametrize('code', [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_without_locks(data, tmp_path, monkeypatch, code):
    def refuse(*_): raise OSError(code, 'No locks available')

    monkeypatch.setattr('fcntl.flock', refuse)
    files._warn_no_locks.cache_clear()
    (tmp_path / 'there').write_bytes(b'data')
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        assert run_jobs([Job('a', 1, lambda: Learner(resnet(8), data, run='a')),
                         Job('b', 1, lambda: Learner(resnet(8), data, run='b'))], say=None) == {}
        remember(resnet(8), data, views=1)
        md5 = hashlib.md5(b'data').hexdigest()
        download((tmp_path / 'there').as_uri(), tmp_path / 'got', md5)
    assert [str(w.message)[:27] for w in told if 'lock' in str(w.message)] == ['there are no file locks her']


def test_no_lock_file_can_be_made(data, runs, monkeypatch):
    "The folder of the sweep's locks cannot be written: its jobs fail in words, or go on; the sweep ends."
    runs.mkdir()
    (runs / '.locks').write_text('')
    failed = run_jobs([Job('a', 1, lambda: Learner(resnet(8), data, run='a'))], say=None)
    assert all('\n' not in why for why in failed.values())
