"""What becomes of a download when the connection, the process, the server or the disk fails; judged by what a local
server was asked for."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

import kdnb.data.downloads as downloads
from kdnb.data import download, unpack

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
WHOLE = os.urandom(3 * 2**20)
HALF, MD5 = len(WHOLE) // 2, hashlib.md5(WHOLE).hexdigest()


@pytest.fixture
def server():
    """Serves WHOLE; `ranges`: honours them; `most`: bytes it sends before it hangs up; `gate`: what it waits for at
    half; `length`: tells it; `error`: all it says; `odd`: counts from 1."""
    s = SimpleNamespace(
        content=WHOLE, ranges=True, most=None, gate=None, length=True, error=None, slow=0, odd=False, asked=[])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers['Range']
            s.asked.append(wanted)
            if s.error: return self.send_error(s.error)
            start = int(wanted[6:-1]) if wanted and s.ranges else 0
            start -= bool(start and s.odd)
            if start >= len(s.content): return self.send_error(416)
            self.send_response(206 if start else 200)
            if s.length:
                self.send_header('Content-Length', len(s.content) - start if s.length is True else s.length)
            if start:
                self.send_header('Content-Range', f'bytes {start}-{len(s.content) - 1}/{len(s.content)}')
            self.end_headers()
            with suppress(OSError):  # the client is gone
                self.body(s.content[start:][: s.most])

        def body(self, body):
            gate, step = s.gate, HALF if s.gate else len(body) // 8 if s.slow else len(body)
            for i in range(0, len(body), step):
                if i and gate:
                    gate.wait(90)
                time.sleep(s.slow)
                self.wfile.write(body[i : i + step])

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=http.serve_forever, kwargs=dict(poll_interval=0.02), daemon=True).start()
    s.url = f'http://127.0.0.1:{http.server_port}/a.tar.gz'
    yield s
    if s.gate:
        s.gate.set()
    http.shutdown()
    http.server_close()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(downloads, '_download_waits', (0, 0, 0))


@pytest.fixture
def path(tmp_path): return tmp_path / 'data' / 'a.tar.gz'


def part_of(path): return path.with_name('a.tar.gz.part')


def keep(path, content):
    path.parent.mkdir(exist_ok=True)
    part_of(path).write_bytes(content)


def is_whole(path):
    return path.read_bytes() == WHOLE and sorted(f.name for f in path.parent.iterdir()) == ['a.tar.gz', 'a.tar.gz.lock']


def test_announced_fetched_and_not_again(server, path, capsys):
    assert download(server.url, path, MD5) == path and is_whole(path) and server.asked == [None]
    out = capsys.readouterr()
    assert (out.out, out.err) == (f'a.tar.gz: 3.0 MiB from 127.0.0.1 to {path.parent}\n', '')  # a log has no other line
    download(server.url, str(path), MD5)
    assert server.asked == [None] and capsys.readouterr() == ('', '')


def test_a_terminal_has_one_line_that_moves(server, path, capsys, monkeypatch):
    server.slow = 0.08
    download(server.url, path, MD5)
    path.unlink()
    assert capsys.readouterr().out.count('\r') == 0  # a log has none
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: True)
    download(server.url, path, MD5)
    first, line = capsys.readouterr().out.split('\n')
    steps = [s.strip() for s in line.split('\r') if s.strip()]
    assert (
        1 <= len(steps) <= 4
        and all(' of 3.0 MiB, ' in s and s.endswith('MiB/s') for s in steps)
        and line.endswith('\r' + ' ' * 60 + '\r'))


def test_only_the_rest_is_fetched(server, path, capsys):
    keep(path, WHOLE[:HALF])
    assert is_whole(download(server.url, path, MD5)) and server.asked == [f'bytes={HALF}-']
    out = capsys.readouterr().out
    assert '3.0 MiB from 127.0.0.1' in out and '1.5 MiB of it are here' in out


def test_a_server_that_cannot_resume_starts_over(server, path):
    server.ranges = False
    keep(path, WHOLE[:HALF])
    assert is_whole(download(server.url, path, MD5)) and server.asked == [f'bytes={HALF}-']


def test_a_server_that_sends_another_part_than_asked_starts_over(server, path):
    server.odd = True
    keep(path, WHOLE[:HALF])
    assert is_whole(download(server.url, path, MD5)) and server.asked == [f'bytes={HALF}-', None]


def test_a_part_that_was_whole_is_not_fetched(server, path):
    keep(path, WHOLE)  # killed before it got its name
    assert is_whole(download(server.url, path, MD5)) and server.asked == []


def test_a_part_that_is_too_long_is_fetched_anew(server, path):
    keep(path, WHOLE + b'more')
    assert is_whole(download(server.url, path, MD5)) and server.asked == [f'bytes={len(WHOLE) + 4}-', None]


def test_a_connection_that_breaks_is_taken_up(server, path, capsys):
    server.most = 800_000
    assert is_whole(download(server.url, path, MD5)) and server.asked == [
        None,
        'bytes=800000-',
        'bytes=1600000-',
        'bytes=2400000-']
    assert capsys.readouterr().out.count('asking for the rest') == 3


def test_a_silent_connection_is_taken_up(server, path, monkeypatch):
    monkeypatch.setattr(downloads, '_download_timeout', 0.3)
    server.gate = threading.Event()
    assert is_whole(download(server.url, path, MD5)) and server.asked == [None, f'bytes={HALF}-']


def test_it_gives_up_where_nothing_more_comes(server, path):
    server.most, server.ranges = HALF, False
    with pytest.raises(
        OSError,
        match=(
            r'a.tar.gz could not be downloaded from 127.0.0.1 \(.*ended early\); 1.5 MiB are kept, and the same call '
            r'goes on from there: .*put the file into .*data yourself \(http')):
        download(server.url, path, MD5)
    assert len(server.asked) == 4 and part_of(path).read_bytes() == WHOLE[:HALF] and not path.exists()
    server.most, server.ranges = None, True
    assert is_whole(download(server.url, path, MD5)) and server.asked[4:] == [f'bytes={HALF}-']


@pytest.mark.parametrize('code, name', [(404, 'Not Found'), (403, 'Forbidden'), (503, 'Service Unavailable')])
def test_an_http_error_is_named_and_not_tried_again(server, path, code, name):
    server.error = code
    with pytest.raises(OSError, match=rf'\({code} {name}\): try again later, or put the file into'):
        download(server.url, path, MD5)
    assert server.asked == [None] and not part_of(path).exists()


def test_no_network(path):
    start = time.monotonic()
    with pytest.raises(OSError, match=r'\(Connection refused\).*put the file into .* yourself \(http://127.0.0.1:9/'):
        download('http://127.0.0.1:9/a.tar.gz', path, MD5)
    with pytest.raises(OSError, match=r'from nowhere.invalid \(.+\): try'):
        download('http://nowhere.invalid/a.tar.gz', path, MD5)
    assert time.monotonic() - start < 3


@pytest.mark.parametrize('kept', [0, HALF])
def test_other_bytes_are_thrown_away(server, path, kept):
    "From the first byte, or where the server's file has changed since the first half."
    if kept:
        keep(path, WHOLE[:kept])
    server.content = WHOLE[::-1]
    with pytest.raises(OSError, match='its hash is not the published one, and it is deleted'):
        download(server.url, path, MD5)
    assert not path.exists() and not part_of(path).exists()
    server.content = WHOLE
    assert is_whole(download(server.url, path, MD5))


def test_a_damaged_file_is_the_users(server, path):
    path.parent.mkdir()
    path.write_bytes(b'mine')
    with pytest.raises(OSError, match=r'is damaged \(its hash is not the published one\): delete it'):
        download(server.url, path, MD5)
    assert path.read_bytes() == b'mine' and server.asked == []


def test_no_room(server, path, monkeypatch):
    monkeypatch.setattr(downloads.shutil, 'disk_usage', lambda p: SimpleNamespace(free=2**20))
    with pytest.raises(RuntimeError, match='a.tar.gz needs 3.0 MiB, and .*data has 1.0 MiB free: make room'):
        download(server.url, path, MD5)
    assert not part_of(path).exists()
    keep(path, WHOLE[: -(2**20)])  # there is room for what is left
    assert is_whole(download(server.url, path, MD5))


def test_a_full_disk_keeps_what_it_has(server, path, monkeypatch):
    server.most = HALF

    def full(fd):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(downloads.os, 'fsync', full)
    with pytest.raises(OSError, match='No space left on device.*MiB are kept'):
        download(server.url, path, MD5)


def test_size_unknown_and_a_file_of_this_machine(server, path, capsys, tmp_path):
    server.length = False
    assert (
        is_whole(download(server.url, path, MD5)) and 'a.tar.gz: size unknown from 127.0.0.1' in capsys.readouterr().out
    )
    (tmp_path / 'there').write_bytes(WHOLE)
    path.unlink()
    keep(path, b'half')
    assert (
        is_whole(download((tmp_path / 'there').as_uri(), path, MD5))
        and 'a.tar.gz: 3.0 MiB from this machine' in capsys.readouterr().out)
    path.unlink()
    with pytest.raises(OSError, match='could not be downloaded from this machine .*No such file'):
        download((tmp_path / 'gone').as_uri(), path, MD5)


@pytest.mark.parametrize('length', ['abc', '-5', '', '1e3', '9' * 30, str(len(WHOLE) + 5)])
def test_a_size_that_is_none_decides_nothing(server, path, length):
    server.length = length
    assert is_whole(download(server.url, path, MD5))


def test_a_size_that_is_too_small_is_no_file(server, path):
    server.length = '5'
    with pytest.raises(OSError, match='its hash is not the published one, and it is deleted'):
        download(server.url, path, MD5)
    assert not part_of(path).exists()


def test_hashes_in_capitals_and_hashes_that_are_none(server, path):
    assert is_whole(download(server.url, path, MD5.upper())) and is_whole(download(server.url, path, f' {MD5}\n'))
    path.unlink()
    for wrong in None, '', 'abc', 5, 'g' * 32, MD5 * 2:
        with pytest.raises(ValueError, match='is no hash: give the 32 hexadecimal digits'):
            download(server.url, path, wrong)
    assert server.asked == [None]                               # nothing was fetched for them


def test_a_folder_that_cannot_be_written(server, path, monkeypatch):
    path.parent.mkdir()
    path.write_bytes(WHOLE)

    def read_only(*_, **__):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(downloads, 'Lock', read_only)
    assert download(server.url, path, MD5) == path  # a file that is there needs no lock
    with pytest.raises(OSError, match=r'b.tar.gz is not there, and cannot be written \(Permission denied\)'):
        download(server.url, path.with_name('b.tar.gz'), MD5)


# --- processes


def process(server, path):
    "Another Python that downloads."
    patient = 'import kdnb.data.downloads as d; d._download_timeout = 600'     # the server waits for the test
    code = f'{patient}; d.download({server.url!r}, {str(path)!r}, {MD5!r}); print("has it")'
    return subprocess.Popen(
        [sys.executable, '-c', code],
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # a shell's background job ignores Ctrl-C


def until(true):
    end = time.monotonic() + 90
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize('sig', [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_has_kept_what_came(server, path, sig):
    server.gate = threading.Event()
    p = process(server, path)
    until(lambda: part_of(path).exists() and part_of(path).stat().st_size == HALF)
    p.send_signal(sig)
    p.communicate(timeout=90)
    assert p.returncode != 0 and part_of(path).read_bytes() == WHOLE[:HALF] and not path.exists()
    server.gate.set()
    assert is_whole(download(server.url, path, MD5)) and server.asked == [None, f'bytes={HALF}-']


def test_two_processes_fetch_once(server, path):
    server.gate = threading.Event()
    a = process(server, path)
    until(lambda: part_of(path).exists())
    b = process(server, path)
    assert 'another process is at work on it' in b.stdout.readline()
    server.gate.set()
    for p in (a, b):
        assert p.communicate(timeout=90)[0].endswith('has it\n') and p.returncode == 0
    assert is_whole(path) and server.asked == [None]


def test_who_waits_for_a_killed_process_goes_on_from_its_half(server, path):
    server.gate = threading.Event()
    a = process(server, path)
    until(lambda: part_of(path).exists() and part_of(path).stat().st_size == HALF)
    b = process(server, path)
    assert 'another process' in b.stdout.readline()
    server.gate.set()
    server.gate = None
    a.kill()
    a.communicate()
    assert b.communicate(timeout=90)[0].endswith('has it\n') and is_whole(path)


# --- unpacking


def tar(path, **files):
    with tarfile.open(path, 'w:gz') as t:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            t.addfile(info, io.BytesIO(text))
    return path


def tree(folder): return sorted(f.relative_to(folder).as_posix() for f in folder.rglob('*') if f.is_file())


def test_unpack(tmp_path):
    files = {'train/cat/1.png': b'a', 'README.md': b'b'}
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as z:
        for name, text in files.items():
            z.writestr(name, text)
    for archive in (tar(tmp_path / 'a.tar.gz', **files), tmp_path / 'a.zip'):
        new = unpack(archive, tmp_path / f'from-{archive.name}')
        assert tree(new) == sorted(files)
        (new / 'README.md').write_text('mine')
        unpack(archive, new)
        assert (new / 'README.md').read_text() == 'mine'  # what is there is left alone
    assert tree(unpack(tar(tmp_path / 'b.tar.gz', **{'set/1.png': b'a'}), tmp_path / 'b')) == ['1.png']


def test_a_killed_unpacking_leaves_no_half(tmp_path, monkeypatch):
    archive = tar(tmp_path / 'a.tar.gz', **{f'{i}/1.png': b'a' for i in range(9)})

    def killed(self, target, **_):
        Path(target).mkdir()
        (Path(target) / 'half').write_bytes(b'half')
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(tarfile.TarFile, 'extractall', killed)
        with pytest.raises(KeyboardInterrupt):
            unpack(archive, tmp_path / 'a')
    assert not (tmp_path / 'a').exists() and (tmp_path / 'a.unpacking' / 'half').exists()
    assert len(tree(unpack(archive, tmp_path / 'a'))) == 9 and not (tmp_path / 'a.unpacking').exists()


def test_bad_archives_leave_nothing(tmp_path):
    good = tar(tmp_path / 'a.tar.gz', **{'1.png': os.urandom(10_000), '2.png': os.urandom(10_000)})
    (tmp_path / 'cut.tar.gz').write_bytes(good.read_bytes()[:12_000])
    (tmp_path / 'page.tar.gz').write_text('<html>')
    for name, link in (('up', '../../escaped'), ('link', None)):
        with tarfile.open(tmp_path / f'{name}.tar.gz', 'w:gz') as t:
            if link:
                t.addfile(tarfile.TarInfo(link))
            else:
                info = tarfile.TarInfo('passwd')
                info.type, info.linkname = tarfile.SYMTYPE, '/etc/passwd'
                t.addfile(info)
    for name in ('cut', 'page', 'up', 'link', 'none'):
        with pytest.raises(OSError, match='could not be unpacked .* nothing of it is left'):
            unpack(tmp_path / f'{name}.tar.gz', tmp_path / 'new')
        assert (
            not (tmp_path / 'new').exists()
            and not (tmp_path / 'new.unpacking').exists()
            and not (tmp_path / 'escaped').exists())


def test_archives_without_a_file_are_damaged(tmp_path):
    with tarfile.open(tmp_path / 'empty.tar.gz', 'w:gz'): pass
    with zipfile.ZipFile(tmp_path / 'empty.zip', 'w'): pass
    for name, target in (('here', '.'), ('round', 'round'), ('lost', 'nowhere')):
        with tarfile.open(tmp_path / f'{name}.tar.gz', 'w:gz') as t:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            t.addfile(info)
    with tarfile.open(tmp_path / 'folders.tar.gz', 'w:gz') as t:
        info = tarfile.TarInfo('a')
        info.type = tarfile.DIRTYPE
        t.addfile(info)
    for archive in sorted(tmp_path.glob('*.tar.gz')) + [tmp_path / 'empty.zip']:
        with pytest.raises(OSError, match='could not be unpacked .* nothing of it is left'):
            unpack(archive, tmp_path / 'new')
        assert not os.path.lexists(tmp_path / 'new') and not (tmp_path / 'new.unpacking').exists()


def test_a_link_beside_files_is_no_one_folder(tmp_path):
    with tarfile.open(tmp_path / 'a.tar.gz', 'w:gz') as t:
        for name, link in (('set/1.png', ''), ('set/again', '1.png')):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = (tarfile.SYMTYPE, link) if link else (tarfile.REGTYPE, '')
            t.addfile(info)
    new = unpack(tmp_path / 'a.tar.gz', tmp_path / 'a')
    assert tree(new) == ['1.png', 'again'] and not new.is_symlink()


def test_two_that_unpack_at_once(tmp_path):
    archive, done = tar(tmp_path / 'a.tar.gz', **{f'{i}/1.png': b'a' for i in range(300)}), []
    threads = [threading.Thread(target=lambda: done.append(tree(unpack(archive, tmp_path / 'a')))) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(10)
    assert [len(d) for d in done] == [300] * 4
