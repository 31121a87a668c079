"""Store the pictures of notebooks in 256 colours, a third of the bytes.

    python -m docs.smaller nbs/tutorials/03_at.ipynb

Drawn pictures have few colours besides the shades of their letters. A picture that is small already stays as it is.
"""

import base64
import io
import json
import sys
from pathlib import Path

from PIL import Image

def smaller(code: str) -> str:
    """A PNG in base64 with 256 colours at most, if that is shorter."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(code))) as image:
        image.convert('RGB').quantize(256, dither=Image.Dither.NONE).save(out, 'png', optimize=True)
    return min(code, base64.b64encode(out.getvalue()).decode(), key=len)

def shrink_pictures(path: Path) -> None:
    """Store a notebook's pictures in 256 colours."""
    nb = json.loads(path.read_text(encoding='utf-8'))
    for out in [out for cell in nb['cells'] for out in cell.get('outputs', [])]:
        data = out.get('data', {})
        if 'image/png' not in data: continue
        data['image/png'] = smaller(data['image/png'])
    path.write_text(json.dumps(nb, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')

if __name__ == '__main__':
    for name in sys.argv[1:]:
        shrink_pictures(Path(name))
