"""Commands of the five systems: what the README of each source system tells its users to type, and what to type here.

Theirs are from the README, or from the script that the README sources; a row tells where an option has another value
that the README lists. The rows are data, and a test types every command of ours as it stands here, for one epoch on a
handful of images.

Three things are the same in all of them. A run of ours holds out a tenth of the training images to choose the best
epoch, and looks at the test images at the end; with `--valid 0` it trains on all and scores test in each epoch, as
these systems do. Epochs, learning rate and its drops, batch size and normalisation are the recipe's. And the word
after `--run` is what a later command calls the result.

We left out `source` of their other scripts, which are these commands with other widths: the presets `cifar100-wrn`
and `cinic10-shufflenet` of `kdnb_sweep` have all of them.
"""
from itertools import groupby

def _row(system: str, source: str, theirs: str, *ours: str, note: str = '') -> dict:
    "A row: their command, and ours in the order in which they are typed."
    return dict(system=system, source=source, theirs=theirs, ours=[*ours], note=note)

# --- ReduceNet: teacher and student come out of one process of theirs; here each is a run

def _reduce(student: str, data: str = 'cifar10', method: str = 'kd --weights reducenet') -> tuple[str, str]:
    "Train a teacher with branches, then the student that is cut from it."
    run = f'{data}-{student}'
    same = f'--data {data} --recipe reducenet'
    return (f'kdnb_train {same} --student {student} --seed 666 --run {run}',
            f'kdnb_distill {same} --shrink {run} --teacher {run} --method {method} --seed 666 --run {run}-shrunk')

_reducenet = [
    _row(
        'ReduceNet', 'README', 'python main.py -m reduce20', *_reduce('reduce20'),
        note='kdnb_sweep reducenet adds the controls that tell what branch, weights and second training did'),
    _row('ReduceNet', 'README', 'python main.py -m reduce56', *_reduce('reduce56')),
    _row(
        'ReduceNet', 'run.sh, one of its twelve', 'python main.py -d cifar100 -m reduce20 --seed $seed -ws 2',
        *_reduce('reduce20w2', 'cifar100', "'ce(.3)+kd(.007, T=5)'"),
        note='their loss divides KD by the number of classes as well: .007 for a hundred, where --weights reducenet '
        'has the .07 of ten')]

# --- Knowledge Distillations with PyTorch: their index of a trial names folders only; here it is the seed

_kdpytorch_notes = {
    'FN': 'theirs stops at the first batch',
    'OD': 'theirs stops before the first batch',
    'KD': '--weights kdpytorch: their weights, which for AT and NST are half of the usual ones'}

def _kdpytorch_row(method: str) -> dict:
    "One of their seven methods."
    return _row(
        'KD with PyTorch', 'README' if method == 'KD' else f'README, --distype {method}',
        'python3 ./distill.py --type cifar100 --teacher resnet --student resnet --depth 110 --tn 1 --sdepth 20 --stn 1 '
        f'--distype {method}',
        'kdnb_distill --data cifar100 --recipe kdpytorch --teacher resnet110-1 --student resnet20 '
        f'--method {method.lower()} --weights kdpytorch --seed 1 --run resnet20-{method.lower()}-1',
        note=_kdpytorch_notes.get(method, ''))

_kdpytorch = [
    _row(
        'KD with PyTorch', 'README', 'python3 ./train.py --type cifar100 --model resnet --depth 110 --tn 1',
        'kdnb_train --data cifar100 --recipe kdpytorch --student resnet110 --seed 1 --run resnet110-1'),
    *map(_kdpytorch_row, ('KD', 'FN', 'NST', 'AT', 'RKD', 'SP', 'OD'))]

# --- Distillation: their alpha is the weight of the labels; --weights distillation has it, and the README's temperature

_taught = (
    'python3 train.py --dataset cifar100 --teacher_name wrn-28-4 --student_name wrn-16-2 --epochs 200 --teacher_model '
    'runs/teacher/cifar100_wrn_28_4_e200/model_best.pth.tar --tensorboard')
_places = '["stem.bn", "stages.0.3.shuffle", "stages.1.7.shuffle", "stages.2.3.shuffle", "head.bn"]'

def _wrn(method: str, run: str) -> str:
    "Our command for a method between their wide nets."
    return ('kdnb_distill --data cifar100 --recipe distillation --teacher wrn-28-4 --student wrn-16-2 --method '
            f'{method} --weights distillation --tensorboard --run wrn-16-2-{run}')

def _wrn_row(method: str, name: str, more: str = '') -> dict:
    "One of their scripts."
    return _row(
        'Distillation', f'scripts/cifar100.wrn_28_4_16_2.{name}.sh',
        f'{_taught} --name cifar100.wrn_28_4_16_2.{name}{more} --kd_method {method}', _wrn(method, name))

_distillation = [
    _row(
        'Distillation', 'README',
        'python simple_train.py --teacher_name wrn-28-4 --dataset cifar100 --name teacher/cifar100_wrn_28_4_e200 '
        '--tensorboard',
        'kdnb_train --data cifar100 --recipe distillation --student wrn-28-4 --tensorboard --run wrn-28-4',
        note='theirs divides the learning rate by ten every 30 epochs, which its students do not'),
    _row(
        'Distillation', 'README',
        f'{_taught} --name cifar100.wrn_28_4_16_2.kd --kd_method kd --alpha 0.8 --temperature 16', _wrn('kd', 'kd')),
    _wrn_row('at', 'at', ' --preReLU'), _wrn_row('sp', 'sp'), _wrn_row('margin_ReLU', 'margin', ' --preReLU'),
    _row(
        'Distillation', 'scripts/cinic10.teacher.Sh.NetV2-1.0.sh',
        'python simple_train.py --teacher_name shufflenetV2-1.0 --dataset cinic10 --name '
        'teacher/cinic10_Sh.NetV2-1.0_e140 -b 96 -j 8 --epochs 140 --lr 0.01 --root /data/cinic10 --tensorboard',
        'kdnb_train --data cinic10 --recipe cinic10 --student shufflenetV2-1.0 --tensorboard --run shufflenet-1.0'),
    _row(
        'Distillation', 'scripts/cinic10.Sh.NetV2_1.0_0.5.margin.sh',
        'python3 train.py --dataset cinic10 --root /data/cinic10 --name cinic10.Sh.NetV2_1.0_0.5.margin --teacher_name '
        'shufflenetV2-1.0 --student_name shufflenetV2-0.5 -b 96 -j 8 --lr 0.01 --epochs 140 --preReLU --kd_method '
        'margin_ReLU --teacher_model runs/teacher/cinic10_Sh.NetV2-1.0_e140/model_best.pth.tar --tensorboard',
        'kdnb_distill --data cinic10 --recipe cinic10 --teacher shufflenet-1.0 --student shufflenetV2-0.5 --method '
        f"'margin_relu(taps={_places})' --weights distillation --tensorboard --run shufflenet-0.5-margin",
        note='the taps are their five places; without them the stages of both nets are read'),
    _row(
        'Distillation', 'scripts/kd_grid_search/, 16 files',
        'source scripts/kd_grid_search/0.2_2.sh; source scripts/kd_grid_search/0.2_4.sh; ...', 'kdnb_sweep kd-grid')]

# --- JointRD: the script's second word is where the gate of the mixed paths ends, the third names a procedure and is
# not read. The scripts as released compute the mixed paths and throw them away: the commands below train what the paper
# describes, and `as_released=True` what their code does instead. (The scripts for CIFAR also set the weight of the
# distance to 0, which leaves the labels alone: `as_released=True, weight=0`.)

_jointrd = [
    _row(
        'JointRD', 'README', 'bash ./script/resnet_imagenet.sh 18 0.0 RES_NMT 1e-4',
        'kdnb_train --data imagenet --recipe jointrd_imagenet --student resnet18_imagenet --run imagenet-resnet18',
        note='or --teacher torchvision/resnet18 below, which needs no run'),
    _row(
        'JointRD', 'README', 'bash ./script/resnet_icifar.sh 18 0.0 RES_NMT',
        'kdnb_train --data cifar100 --recipe jointrd --student resnet18 --run cifar100-resnet18'),
    _row(
        'JointRD', 'README', 'bash ./script/imagenet_plaincnn.sh 18 0.0 CNN_NMT',
        'kdnb_train --data imagenet --recipe jointrd_imagenet --student plainnet18_imagenet --run imagenet-plainnet18',
        note="18 is one of the values of the README's num_of_layers"),
    _row(
        'JointRD', 'README', 'bash ./script/CIFAR_plaincnn.sh 18 0.0 CNN_NMT',
        'kdnb_train --data cifar100 --recipe jointrd --student plainnet18 --run cifar100-plainnet18'),
    _row(
        'JointRD', 'README', 'bash ./script/resnet_imagenet.sh 18 5e-3 TA 1e-4',
        'kdnb_distill --data imagenet --recipe jointrd_imagenet --teacher imagenet-resnet18 --student '
        "plainnet18_dirac_imagenet --method 'jointrd(fade_to=5e-3, ramp=.5, weight=1e-4)' --seed 1 --run "
        'imagenet-plainnet18-joint', note='this script builds the student with Dirac convolutions'),
    _row(
        'JointRD', 'README', 'bash ./script/CIFAR_plaincnn.sh 18 0.5 TA 0',
        'kdnb_distill --data cifar100 --recipe jointrd --teacher cifar100-resnet18 --student plainnet18 --method '
        "'jointrd(fade_to=.5, ramp=60, weight=1e-3)' --seed 0 --run cifar100-plainnet18-joint", note='0 is a seed')]

# --- OD-cheap-convolution: their fine-tuning is `--resume`, which restores the epoch too, so that a finished checkpoint
# does nothing. To go on with an interrupted run is the same command again; to train the finished student on is another.

def _cheap(kind: str) -> str:
    "Four students of one kind of cheap convolution, which teach each other."
    return (f'kdnb_train --data cifar10 --root ./data --recipe cheapconv --student cheapnet56_{kind} --method '
            f"'online(students=4, T=4)' --run cheap-{kind}")

def _cheap_row(block: str, more: str, *ours: str, source: str = 'README', note: str = '') -> dict:
    "Their command for a kind of block."
    theirs = f'python3 main_teacher.py --data_dir ./data --job_dir [saving_path] --block_type {block} --num_stu 4'
    return _row('OD-cheap-convolution', source, f'{theirs}{more} --gpu 0', *ours, note=note)

_cheapconv = [
    _cheap_row('Shift', '', _cheap('shift')),
    _cheap_row('DW', '', _cheap('dw'), source='README, --block_type DW'),
    _cheap_row(
        'Group', '', _cheap('group8'), source='README, --block_type Group',
        note='theirs has one group, which is an ordinary convolution, unless --group_num is given'),
    _cheap_row(
        'DW', ' --resume [checkpoint_path]', _cheap('dw'),
        'kdnb_train --data cifar10 --root ./data --recipe cheapconv --student cheapnet56_dw --init cheap-dw --run '
        'cheap-dw-tuned', note='the first goes on where it stopped, the second fine-tunes'),
    _cheap_row('DW', ' --test_only --resume [checkpoint_path]', 'kdnb_test cheap-dw')]

five_systems = [*_reducenet, *_kdpytorch, *_distillation, *_jointrd, *_cheapconv]

def _shell(*commands: str) -> str: return '\n'.join(['```sh', *commands, '```'])

def five_sections() -> str:
    "The commands of the five systems and ours, a section a system, as Markdown."
    parts: list[str] = []
    for system, rows in groupby(five_systems, lambda row: row['system']):
        parts.append(f'## {system}')
        for row in rows:
            note = f" ({row['note']})" if row['note'] else ''
            parts += [f"**Theirs**, {row['source']}:", _shell(row['theirs']), f'**Here**{note}:', _shell(*row['ours'])]
    return '\n\n'.join(parts)
