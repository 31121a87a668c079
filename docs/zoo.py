"""Put runs into the zoo, with their weights in half precision: `python -m docs.zoo --help`."""
import argparse
import hashlib
import io
import json
import shutil
from pathlib import Path

import torch
from torch import Tensor

from kdnb.data import manifest_file, read_zoo
from kdnb.experiments import load_run_data, student_name
from kdnb.files import run_name, zoo_root
from kdnb.measure import accuracy, predict
from kdnb.models import load_model
from kdnb.train import Run, load_state, read_config

def round_tensor(v: object) -> object:
    """Round a tensor of float32 to half precision, unless a number of it would be lost."""
    if not (isinstance(v, Tensor) and v.is_floating_point()): return v
    half = v.half()
    return half if half.isfinite().all() else v

def round_state(state: dict) -> dict:
    """Round the tensors of a state."""
    return {name: round_tensor(v) for name, v in state.items()}

def slim_checkpoint(run: Run) -> bytes:
    """Return last.pt without the optimiser, in half precision."""
    saved = load_state(run, 'last.pt')
    train = {key: saved['train'][key] for key in ('epoch', 'best', 'history')}
    saved |= dict(state=round_state(saved['state']), train=train | dict(rest=round_state(saved['train']['rest'])))
    out = io.BytesIO()
    torch.save(saved, out)
    return out.getvalue()

def describe(config: dict) -> str:
    """Say in words what a run is: 'resnet8, CE(1), seed 0, shapes (500 images)'."""
    data = config['data']
    how = f"{student_name(config['student'])}, {config.get('method') or config['scheme']}, seed {config['seed']}"
    return f"{how}, {data['name']} ({data['n_train']:,} images)"

def copy_run(run: Run, name: str, weights: bool) -> Path:
    """Copy a finished run into the zoo."""
    folder = zoo_root()/name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = read_config(run)
    config['about'] |= dict(stored='float16') if weights else {}
    (folder/'config.json').write_text(json.dumps(config, indent=1))
    for file in ('history.jsonl', 'result.json'):
        (folder/file).write_bytes(run.read(file) or b'')
    if weights:
        (folder/'last.pt').write_bytes(slim_checkpoint(run))
    return folder

def score_again(name: str) -> float:
    """Score the stored weights on test."""
    config = read_config(Run(f'zoo:{name}'))
    data = load_run_data(config, f'zoo:{name}', device='cpu')
    return round(accuracy(*predict(load_model(zoo_root()/name, 'last'), data.test)), 3)

def list_run(folder: Path, command: str) -> None:
    """Write a run into the list of the zoo."""
    zoo, config = read_zoo(), json.loads((folder/'config.json').read_text())
    entry = dict(
        what=describe(config), command=command, test=json.loads((folder/'result.json').read_text())['last']['test_acc'],
        files={f.name: dict(bytes=f.stat().st_size, sha256=hashlib.sha256(f.read_bytes()).hexdigest())
               for f in sorted(folder.iterdir())})
    if 'last.pt' in entry['files']:
        entry['test_again'] = score_again(folder.name)
    write_list(zoo | {folder.name: entry})

def write_list(zoo: dict) -> None:
    """Write the list of the zoo."""
    manifest_file().write_text(json.dumps(zoo, indent=1, sort_keys=True) + '\n', encoding='utf-8')

def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('runs', nargs='+', help='names or folders of finished runs')
    parser.add_argument('--command', default='', help='the command that made them, for the list')
    parser.add_argument('--without-weights', action='store_true', help='keep configuration, history and result only')
    a = parser.parse_args()
    for name in a.runs:
        run = Run(name)
        if run_name(run.path.name) != run.path.name:
            parser.error(f'{run.path.name} has signs that names of the zoo lack: give a copy under another name')
        folder = copy_run(run, run.path.name, not a.without_weights)
        list_run(folder, a.command)
        print(folder.name)

if __name__ == '__main__':
    main()
