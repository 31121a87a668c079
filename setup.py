"""Install kdnb: what there is to know of the package stands in settings.ini, where nbdev keeps it."""
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
CONFIG = ConfigParser(delimiters=['='], interpolation=None)
CONFIG.read(HERE/'settings.ini', encoding='utf-8')
CFG = CONFIG['DEFAULT']

def lines_of(key: str) -> list[str]:
    "The lines of a setting."
    return [line.strip() for line in CFG[key].splitlines() if line.strip()]

def readme() -> str:
    "README for PyPI, where no repository stands beside the page: relative figures and links become absolute."
    path = HERE/'README.md'
    if not path.exists(): return CFG['description']
    raw = CFG['git_url'].replace('github.com', 'raw.githubusercontent.com') + f"/{CFG['branch']}/"
    blob = f"{CFG['git_url']}/blob/{CFG['branch']}/"

    def absolute(link: re.Match) -> str:
        return link[1] + link[2] + (raw if link[1] else blob)

    return re.sub(r'(!?)(\[[^\]]*\]\()(?![a-z]+:|#)', absolute, path.read_text(encoding='utf-8'))

setup(
    name=CFG['lib_name'], version=CFG['version'], description=CFG['description'], keywords=CFG['keywords'].split(),
    license='Apache-2.0', author=CFG['author'], author_email=CFG['author_email'], url=CFG['git_url'],
    long_description=readme(), long_description_content_type='text/markdown', classifiers=lines_of('classifiers'),
    packages=find_packages(include=['kdnb', 'kdnb.*']), python_requires=f">={CFG['min_python']}", zip_safe=False,
    package_data=dict(kdnb=['zoo.json']),
    install_requires=CFG['requirements'].split(),
    extras_require={k.removesuffix('_requirements'): v.split() for k, v in CFG.items() if k.endswith('_requirements')},
    entry_points=dict(
        console_scripts=lines_of('console_scripts'), nbdev=[f"{CFG['lib_path']}={CFG['lib_path']}._modidx:d"]))
