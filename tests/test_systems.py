"Systems: what holds for all of them together, and how one more is added."
import re
import shutil
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path

import pytest

from kdnb.systems import (
    Loading,
    Preset,
    Published,
    Recipe,
    System,
    add_system,
    find_loading,
    find_preset,
    find_recipe,
    find_system,
    find_weights,
    loadings,
    method_weights,
    recipes,
    sweep_presets,
    systems,
)

RULES = 'last epoch', 'best epoch on test', 'median of 5 last epochs', 'not said'
VIEWS = systems, recipes, loadings, method_weights, sweep_presets
RECIPE = Recipe(10, lr=.1, wd=0)

@pytest.fixture
def registry():
    "The registry, put back as it was afterwards."
    before = [dict(view) for view in VIEWS]
    yield systems
    for view, old in zip(VIEWS, before, strict=True):
        view.clear()
        view.update(old)

def every_entry():
    for system in systems.values():
        yield from (system, *system.recipes.values(), *system.loading.values(), *system.presets)
    for preset in sweep_presets.values(): yield from preset.published

def test_nothing_of_a_system_can_be_set():
    for entry in every_entry():
        for f in fields(entry):
            with pytest.raises(FrozenInstanceError): setattr(entry, f.name, None)

def test_the_best_known_are_listed_first():
    assert ' '.join(systems) == ('crd paper reducenet kdpytorch distillation jointrd cheapconv imagenet '
                                 'deit funmatch short finetune takd ban')
    assert ' '.join(recipes) == ('crd reducenet kdpytorch distillation jointrd cheapconv '
                                 'cinic10 imagenet jointrd_imagenet vit funmatch short finetune')
    assert ' '.join(method_weights) == 'crd paper kdpytorch distillation reducenet funmatch'
    assert ' '.join(sweep_presets) == ('crd cifar100-wrn cinic10-shufflenet kd-grid jointrd jointrd-imagenet '
                                       'imagenet reducenet reducenet-cifar100 cheapconv takd ban short')

def test_the_views_hold_what_the_systems_hold():
    assert set(recipes) == set(loadings) == {name for s in systems.values() for name in s.recipes}
    assert method_weights == {s.name: s.weights for s in systems.values() if s.weights}
    assert set(sweep_presets) == {p.name for s in systems.values() for p in s.presets}
    assert all(entry.name == name for view in (systems, sweep_presets) for name, entry in view.items())

NEW = 'vit', 'funmatch', 'short', 'finetune'         # since Recipe has more than SGD and two schedules

@pytest.mark.parametrize('name', recipes)
def test_a_recipe_can_be_followed(name):
    recipe, loading = find_recipe(name), find_loading(name)
    always = ['epochs', 'lr', 'wd', 'nesterov', 'drops', 'gamma']
    assert list(recipe.config())[:6] == always and (name in NEW or len(recipe.config()) == 6)
    assert (recipe.drops is None) == (recipe.gamma is None) and loading.bs > 0 and loading.padding in ('', '+reflect')
    drops = recipe.drop_epochs()
    assert drops == sorted(set(drops)) and all(0 < e < recipe.epochs for e in drops)
    whole = [f*recipe.epochs for f in recipe.drops or ()]
    assert drops == pytest.approx(whole, abs=1e-9)
    for mean, std in loading.stats.values():
        assert len(mean) == len(std) == 3 and all(0 <= m < 1 for m in mean) and all(s > 0 for s in std)

@pytest.mark.parametrize('name', sweep_presets)
def test_a_preset_has_its_recipe_its_rows_and_its_columns(name):
    p = find_preset(name)
    students = {s for _, s in p.pairs}
    assert p.recipe in recipes and p.title and p.data and len(set(p.pairs)) == len(p.pairs) and set(p.lr) <= students
    named = {m for m, words in p.methods.items() if words == m}
    assert p.weights is None or named <= set(find_weights(p.weights))
    assert all(set(p.stated) <= set(p.methods) and set(pairs) <= set(p.pairs) for pairs in p.stated.values())
    columns = {'teacher', 'alone', *p.methods, *(f'shrunk, {m}' for m in p.methods if p.cut)}
    for source in p.published:
        assert source.source and source.rule in RULES
        assert set(source.scores) <= columns and all(len(row) == len(p.pairs) for row in source.scores.values())
        assert all(v is None or 10 < v < 100 for row in source.scores.values() for v in row)
    for pair in p.pairs:
        assert {m: p.words(m, pair) for m in p.methods} == {**p.methods, **p.settings.get(pair, {})}

@pytest.mark.parametrize('name', sweep_presets)
def test_the_words_of_a_preset_are_methods(name):
    from kdnb.all import parse_method
    from kdnb.schemes import parse_scheme
    p = find_preset(name)
    for words in {p.words(m, pair) for pair in p.pairs for m in p.methods}:
        assert parse_scheme(words) or parse_method(words, p.weights)

@pytest.mark.parametrize('name', method_weights)
def test_the_words_of_a_system_are_methods(name):
    from kdnb.all import parse_method
    for method, words in find_weights(name).items():
        assert repr(parse_method(method, name)) == repr(parse_method(words))

def test_numbers_that_are_stated_for_some_pairs_only_are_marked():
    p = find_preset('crd')
    assert {m: sum(p.is_stated(m, pair) for pair in p.pairs) for m in ('dkd', 'wttm', 'kd_ls', 'at')} == dict(
        dkd=11, wttm=1, kd_ls=1, at=13)
    betas = {pair: p.words('dkd', pair) for pair in p.pairs if p.words('dkd', pair) != 'dkd'}
    assert list(betas.values()) == ['dkd(beta=6)']*2 + ['dkd(beta=2)']*2 + ['dkd(beta=6)']*2

# --- adding one

def test_a_name_is_taken_once(registry):
    for taken, words in [
            (System('crd', 'Mine'), "system 'crd' is taken by RepDistiller"),
            (System('a', 'A', recipes=dict(cinic10=RECIPE)), "recipe 'cinic10' is taken"),
            (System('a', 'A', presets=(find_preset('kd-grid'),)), "preset 'kd-grid' is taken")]:
        with pytest.raises(ValueError, match=words): add_system(taken)
    assert 'a' not in systems and find_system('crd').title == 'RepDistiller'

def test_the_same_system_again_changes_nothing(registry):
    before = [list(view.items()) for view in VIEWS]
    for system in list(systems.values()): add_system(replace(system))
    assert [list(view.items()) for view in VIEWS] == before

def test_a_system_takes_the_place_of_an_older_one(registry):
    old = find_system('distillation')
    add_system(replace(old, title='New', presets=old.presets[:1], weights={}), replace=True)
    assert find_system('distillation').title == 'New'
    assert 'kd-grid' not in sweep_presets and 'distillation' not in method_weights
    assert 'cinic10' in recipes and 'cifar100-wrn' in sweep_presets

def test_a_refused_system_leaves_no_trace(registry):
    before = [dict(view) for view in VIEWS]
    preset = Preset('a', 'A', 'digits', 'crd', dict(kd='kd'), (('resnet14', 'resnet8'),))
    good = System('a', 'A', recipes=dict(a=RECIPE), loading=dict(a=Loading(8)), weights=dict(kd='kd'))
    ragged = Published('A', 'last epoch', scores=dict(kd=(1., 2.)))
    for bad, words in [
            (dict(recipe='crdd'), 'did you mean crd'),
            (dict(settings={('x', 'y'): {}}), 'none of its pairs'),
            (dict(settings={preset.pairs[0]: dict(at='at')}), 'unknown method'),
            (dict(stated=dict(at=preset.pairs)), 'unknown method'),
            (dict(stated=dict(kd=(('x', 'y'),))), 'none of its pairs'),
            (dict(published=(ragged,)), '2 numbers of kd for 1 pairs')]:
        with pytest.raises(ValueError, match=words): add_system(replace(good, presets=(replace(preset, **bad),)))
    with pytest.raises(ValueError, match='give one of each a name'): add_system(replace(good, loading={}))
    assert [dict(view) for view in VIEWS] == before
    add_system(replace(good, presets=(preset,)))
    assert list(recipes)[-1] == list(method_weights)[-1] == list(sweep_presets)[-1] == 'a'

@pytest.mark.parametrize('find, kind', [
    (find_system, 'system'), (find_recipe, 'recipe'), (find_loading, 'recipe'), (find_weights, 'system'),
    (find_preset, 'preset')])
def test_an_unknown_name_is_told_the_nearest(find, kind):
    with pytest.raises(ValueError, match=f"unknown {kind} 'crdd': did you mean crd"): find('crdd')
    for odd in (None, ['crd'], 3): # no name at all
        with pytest.raises(ValueError, match=f'unknown {kind}'): find(odd)

def test_one_more_module_is_one_more_system(tmp_path):
    "A copy of the package with one more file, and no other touched, knows it."
    import kdnb
    shutil.copytree(Path(kdnb.__file__).parent, tmp_path/'kdnb', ignore=shutil.ignore_patterns('__pycache__'))
    (tmp_path/'kdnb'/'systems'/'added.py').write_text('''
from kdnb.systems.system import Loading, Recipe, System, add_system
recipe, loading = Recipe(3, lr=.1, wd=0), Loading(8)
add_system(System('added', 'Added', recipes=dict(added=recipe), loading=dict(added=loading), weights=dict(kd='kd')))
''')
    told = '''
from kdnb.systems import *
print(list(systems)[-1], list(recipes)[-1], list(method_weights)[-1], find_recipe('added').epochs)
'''
    res = subprocess.run([sys.executable, '-c', told], cwd=tmp_path, env={'PYTHONPATH': str(tmp_path)},
                         capture_output=True, text=True, timeout=120)
    assert res.returncode == 0 and res.stdout.split() == ['added', 'added', 'added', '3'], res.stderr

def test_the_room_imports_nothing_of_kdnb_but_errors_and_text():
    import kdnb.systems
    for path in Path(kdnb.systems.__file__).parent.glob('*.py'):
        for dots, name in re.findall(r'^(?:from|import) (\.*)([\w.]*)', path.read_text(), re.M):
            if dots: assert name in (('', 'system') if dots == '.' else ('errors', 'text')), (path.name, dots, name)
            else: assert name.split('.')[0] in sys.stdlib_module_names, (path.name, name)
