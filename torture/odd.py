"""What a stranger, a bug or a bad disk may leave in a run folder; for `make torture` and the tests of trust."""

import copy
import json
import random

from hypothesis import strategies as st

ODD = [None, True, -1, 0, 10**9, 10**400, 1e308, float('nan'), float('inf'), '', 'x' * 5000, '\ud800', '\x1b[31mred',
       'a\nb', '=1+1', '$\\input{x}$', '<script>', '../../etc/passwd', 'theirs:small', [], {}, [[]], {'': {}},
       [1, 'a', None], 'kd(' * 50, '9**9**9']
deep: object = 0
for _ in range(150): deep = {'a': deep}
VALUES = st.sampled_from(ODD) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=6)


def places(value, at=()):
    "All paths into JSON."
    yield at
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for k, v in inner:
        yield from places(v, (*at, k))


def change(value, at, new, remove=False):
    "JSON with another value at a path, or without it."
    if not at: return new
    value = copy.deepcopy(value)
    inner = value
    for k in at[:-1]: inner = inner[k]
    if remove:
        del inner[at[-1]]
    else:
        inner[at[-1]] = new
    return value


def flip(content: bytes, rng: random.Random, bits: int = 1) -> bytes:
    "Content with some bits changed."
    changed = bytearray(content)
    for _ in range(bits):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


@st.composite
def odd_json(draw, value):
    "A run's JSON with one to three odd places, as bytes."
    if draw(st.integers(0, 9)) == 0: return draw(st.binary(max_size=30) | st.just(b'[' * 10**4))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.sampled_from([*places(value)]))
        value = change(value, at, draw(VALUES | st.just(deep)), draw(st.booleans()))
    return json.dumps(value).encode()


@st.composite
def odd_history(draw, rows):
    "The lines of a history, some of them odd."
    lines = [json.dumps(row).encode() for row in rows]
    which = draw(st.integers(0, len(rows) - 1))
    lines[which] = draw(odd_json(rows[which]))
    return b'\n'.join(lines) + b'\n'
