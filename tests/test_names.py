"Other methods, other names of runs."
import pytest

from kdnb.all import CE, KD, SP, load_data, sweep, sweep_commands, sweep_presets
from kdnb.cli.train import _name_run, settle_options, train_parser
from kdnb.experiments import name_method

def runs_of(commands):
    return [words[-1] for words in commands]


def test_a_sign_and_a_list_stay_in_the_name():
    one, two = (runs_of(sweep_commands('crd', methods=[m])) for m in ('sp(taps=1)', 'sp(taps=-1)'))
    both = runs_of(sweep_commands('crd', methods=['sp(taps=1)', 'sp(taps=-1)']))
    alone = set(one) & set(two)
    assert len(both) == len({*both}) == 2*(len(one) - len(alone)) + len(alone)
    assert len([run for run in both if '-sp-' in run]) == 26


def test_the_same_method_twice_is_once():
    once, twice = (runs_of(sweep_commands('crd', methods=m)) for m in (['kd(T=2)'], ['kd(T=2)', 'kd( T=2 )']))
    assert once == twice


@pytest.mark.parametrize('preset', sweep_presets)
def test_the_names_of_presets_are_their_own(preset):
    commands = sweep_commands(preset)
    assert len({*runs_of(commands)}) == len(commands)


def test_a_command_names_its_run():
    def name(*words):
        a = train_parser().parse_args(['--data', 'digits', '--teacher', 't', '--method', *words])
        settle_options(a)
        return _name_run(a)
    assert name('kd(T=4)') == 'digits-resnet20-kd-T-4-0'
    assert name('sp(taps=1)') != name('sp(taps=-1)')


def test_a_sum_of_terms_is_one_method(tmp_path, monkeypatch):
    monkeypatch.setenv('KDNB_RUNS', str(tmp_path))
    data = load_data('digits', size=8, n_train=60, bs=20, device='cpu')
    found = sweep('resnet8', teacher='resnet8', method=CE(.5) + KD(.5), seeds=1, epochs=1, data=data)
    assert [row['method'] for row in found] == ['CE(1)', 'CE(1)', 'CE(0.5) + KD(0.5, T=4)']
    assert [name_method(m) for m in ('kd', [CE(.5), KD(.5)])] == ['kd', name_method(CE(.5) + KD(.5))]
    assert len({name_method(m) for m in (SP(1, taps=1), SP(1, taps=-1), KD(.5), KD(.6))}) == 4


def method_of(words): return words[words.index('--method') + 1], '--weights' in words


def test_a_presets_own_method_by_its_name_is_the_presets():
    pair = [('vgg13', 'vgg8')]
    whole = sweep_commands('crd')
    for name in ('kd', 'review', 'kd_ls'):
        asked = sweep_commands('crd', methods=[name], pairs=pair)
        assert len(asked) == 3 and all(words in whole for words in asked)
    other = sweep_commands('crd', methods=['kd(T=2)', 'kd'], pairs=pair)
    assert [method_of(words) for words in other[2:]] == [('kd(T=2)', False), ('kd', True)]


def test_pairs_of_a_preset():
    runs = runs_of(sweep_commands('crd', pairs=[('resnet56', 'resnet20'), ['resnet32x4', 'resnet8x4']]))
    nets = {'resnet56', 'resnet20', 'resnet32x4', 'resnet8x4'}
    assert {run.split('-')[2] for run in runs} == nets and len(runs) == 4 + 2*len(sweep_presets['crd'].methods)
    with pytest.raises(ValueError, match='no pair resnet20 resnet56 .teacher, then student.: it has wrn_40_2'):
        sweep_commands('crd', pairs=[('resnet20', 'resnet56')])
    with pytest.raises(ValueError, match='has no pair r e s'):
        sweep_commands('crd', pairs=['res'])
