"""What each source system's README tells its users to type, and what to type here."""

import re

five_systems = []  # dicts: system, source, theirs, ours (a list of commands), note


def _add(system, source, theirs, ours, note=''):
    five_systems.append(dict(system=system, source=source, theirs=theirs, ours=ours.strip().splitlines(), note=note))


def _reduce(name, data='cifar10', width='', method='kd --weights reducenet'):
    run = f'{data}-{name}{width}'
    return f"""kdnb_train --data {data} --recipe reducenet --student {name}{width} --seed 666 --run {run}
kdnb_distill --data {data} --recipe reducenet --shrink {run} --teacher {run} --method {method} --seed 666 --run {run}-shrunk"""


_add(
    'ReduceNet',
    'README',
    'python main.py -m reduce20',
    _reduce('reduce20'),
    'kdnb_sweep reducenet adds the controls that tell what the branch, the weights and the second training did')
_add('ReduceNet', 'README', 'python main.py -m reduce56', _reduce('reduce56'))
_add(
    'ReduceNet',
    'run.sh, one of its twelve',
    'python main.py -d cifar100 -m reduce20 --seed $seed -ws 2',
    _reduce('reduce20', 'cifar100', 'w2', "'ce(.3)+kd(.007, T=5)'"),
    'their loss divides KD by the number of classes as well: .007 for a hundred, where --weights reducenet has the .07 '
    'of ten')


_add(
    'KD with PyTorch',
    'README',
    'python3 ./train.py --type cifar100 --model resnet --depth 110 --tn 1',
    'kdnb_train --data cifar100 --recipe kdpytorch --student resnet110 --seed 1 --run resnet110-1')
for _m in 'KD', 'FN', 'NST', 'AT', 'RKD', 'SP', 'OD':
    _add(
        'KD with PyTorch',
        'README' if _m == 'KD' else f'README, --distype {_m}',
        'python3 ./distill.py --type cifar100 --teacher resnet --student resnet --depth 110 --tn 1 --sdepth 20 --stn '
        f'1 --distype {_m}',
        'kdnb_distill --data cifar100 --recipe kdpytorch --teacher resnet110-1 --student resnet20 --method '
        f'{_m.lower()} --weights kdpytorch --seed 1 --run resnet20-{_m.lower()}-1',
        {
            'FN': 'theirs stops at the first batch',
            'OD': 'theirs stops before the first batch',
            'KD': '--weights kdpytorch: their weights, which for AT and NST are half of the usual ones',
        }.get(_m, ''))


_wrn = 'kdnb_distill --data cifar100 --recipe distillation --teacher wrn-28-4 --student wrn-16-2'
_theirs = (
    'python3 train.py --dataset cifar100 --teacher_name wrn-28-4 --student_name wrn-16-2 --epochs 200 --teacher_model '
    'runs/teacher/cifar100_wrn_28_4_e200/model_best.pth.tar --tensorboard')

_add(
    'Distillation',
    'README',
    'python simple_train.py --teacher_name wrn-28-4 --dataset cifar100 --name teacher/cifar100_wrn_28_4_e200 '
    '--tensorboard',
    'kdnb_train --data cifar100 --recipe distillation --student wrn-28-4 --tensorboard --run wrn-28-4',
    'theirs divides the learning rate by ten every 30 epochs, which its students do not')
_add(
    'Distillation',
    'README',
    f'{_theirs} --name cifar100.wrn_28_4_16_2.kd --kd_method kd --alpha 0.8 --temperature 16',
    f'{_wrn} --method kd --weights distillation --tensorboard --run wrn-16-2-kd')
for _m, _file, _more in ('at', 'at', ' --preReLU'), ('sp', 'sp', ''), ('margin_ReLU', 'margin', ' --preReLU'):
    _add(
        'Distillation',
        f'scripts/cifar100.wrn_28_4_16_2.{_file}.sh',
        f'{_theirs} --name cifar100.wrn_28_4_16_2.{_file}{_more} --kd_method {_m}',
        f'{_wrn} --method {_m} --weights distillation --tensorboard --run wrn-16-2-{_file}')


_places = '["stem.bn", "stages.0.3.shuffle", "stages.1.7.shuffle", "stages.2.3.shuffle", "head.bn"]'

_add(
    'Distillation',
    'scripts/cinic10.teacher.Sh.NetV2-1.0.sh',
    'python simple_train.py --teacher_name shufflenetV2-1.0 --dataset cinic10 --name teacher/cinic10_Sh.NetV2-1.0_e140 '
    '-b 96 -j 8 --epochs 140 --lr 0.01 --root /data/cinic10 --tensorboard',
    'kdnb_train --data cinic10 --recipe cinic10 --student shufflenetV2-1.0 --tensorboard --run shufflenet-1.0')
_add(
    'Distillation',
    'scripts/cinic10.Sh.NetV2_1.0_0.5.margin.sh',
    'python3 train.py --dataset cinic10 --root /data/cinic10 --name cinic10.Sh.NetV2_1.0_0.5.margin --teacher_name '
    'shufflenetV2-1.0 --student_name shufflenetV2-0.5 -b 96 -j 8 '
    '--lr 0.01 --epochs 140 --preReLU --kd_method margin_ReLU --teacher_model '
    'runs/teacher/cinic10_Sh.NetV2-1.0_e140/model_best.pth.tar --tensorboard',
    "kdnb_distill --data cinic10 --recipe cinic10 --teacher shufflenet-1.0 --student shufflenetV2-0.5 --method "
    f"'margin_relu(taps={_places})' --weights distillation --tensorboard --run shufflenet-0.5-margin",
    'the taps are their five places; without them the stages of both nets are read')
_add(
    'Distillation',
    'scripts/kd_grid_search/, 16 files',
    'source scripts/kd_grid_search/0.2_2.sh; source scripts/kd_grid_search/0.2_4.sh; ...',
    'kdnb_sweep kd-grid')


_joint = dict(system='JointRD', source='README')
_add(
    **_joint,
    theirs='bash ./script/resnet_imagenet.sh 18 0.0 RES_NMT 1e-4',
    ours='kdnb_train --data imagenet --recipe jointrd_imagenet --student resnet18_imagenet --run imagenet-resnet18',
    note='or --teacher torchvision/resnet18 below, which needs no run')
_add(
    **_joint,
    theirs='bash ./script/resnet_icifar.sh 18 0.0 RES_NMT',
    ours='kdnb_train --data cifar100 --recipe jointrd --student resnet18 --run cifar100-resnet18')
_add(
    **_joint,
    theirs='bash ./script/imagenet_plaincnn.sh 18 0.0 CNN_NMT',
    ours='kdnb_train --data imagenet --recipe jointrd_imagenet --student plainnet18_imagenet --run imagenet-plainnet18',
    note='18 is one of the values of the README\'s num_of_layers')
_add(
    **_joint,
    theirs='bash ./script/CIFAR_plaincnn.sh 18 0.0 CNN_NMT',
    ours='kdnb_train --data cifar100 --recipe jointrd --student plainnet18 --run cifar100-plainnet18')
_add(
    **_joint,
    theirs='bash ./script/resnet_imagenet.sh 18 5e-3 TA 1e-4',
    ours=(
        "kdnb_distill --data imagenet --recipe jointrd_imagenet --teacher imagenet-resnet18 --student "
        "plainnet18_dirac_imagenet --method 'jointrd(fade_to=5e-3, ramp=.5, weight=1e-4)' --seed 1 --run "
        "imagenet-plainnet18-joint"),
    note='this script builds the student with Dirac convolutions')
_add(
    **_joint,
    theirs='bash ./script/CIFAR_plaincnn.sh 18 0.5 TA 0',
    ours=(
        "kdnb_distill --data cifar100 --recipe jointrd --teacher cifar100-resnet18 --student plainnet18 --method "
        "'jointrd(fade_to=.5, ramp=60, weight=1e-3)' --seed 0 --run cifar100-plainnet18-joint"),
    note='0 is a seed')


def _cheap(kind):
    return (
        f"kdnb_train --data cifar10 --root ./data --recipe cheapconv --student cheapnet56_{kind} --method "
        f"'online(students=4, T=4)' --run cheap-{kind}")


_main = 'python3 main_teacher.py --data_dir ./data --job_dir [saving_path] --block_type {} --num_stu 4'

_add('OD-cheap-convolution', 'README', f"{_main.format('Shift')} --gpu 0", _cheap('shift'))
_add('OD-cheap-convolution', 'README, --block_type DW', f"{_main.format('DW')} --gpu 0", _cheap('dw'))
_add(
    'OD-cheap-convolution',
    'README, --block_type Group',
    f"{_main.format('Group')} --gpu 0",
    _cheap('group8'),
    'theirs has one group, which is an ordinary convolution, unless --group_num is given')
_add(
    'OD-cheap-convolution',
    'README',
    f"{_main.format('DW')} --resume [checkpoint_path] --gpu 0",
    f'{_cheap("dw")}\nkdnb_train --data cifar10 --root ./data --recipe cheapconv --student cheapnet56_dw --init '
    'cheap-dw --run cheap-dw-tuned',
    'the first goes on where it stopped, the second fine-tunes')
_add(
    'OD-cheap-convolution',
    'README',
    f"{_main.format('DW')} --test_only --resume [checkpoint_path] --gpu 0",
    'kdnb_test cheap-dw')


def five_table() -> str:  # Markdown
    "The commands of the five systems and ours, a row each."

    def code(commands): return '<br>'.join(f"<code>{re.sub('[|]', '&#124;', c)}</code>" for c in commands)

    rows = [
        f"| {r['system']}<br>{r['source']} | {code([r['theirs']])} | {code(r['ours'])} | {r['note']} |"
        for r in five_systems]
    return '\n'.join(['| system | theirs | here | |', '|---|---|---|---|', *rows])
