"Trains the runs of tutorial 09 in the hour budget, skipping finished ones: one thread, 45 minutes in all."
import os, shutil, sys, time
RUNS = os.environ.setdefault('KDNB_RUNS', '/work/t/runs5')
import torch; torch.set_num_threads(1)
sys.path.insert(0, '/work/t/j5')
import kdnb; assert kdnb.__file__.startswith('/work/t/j5/'), kdnb.__file__
from kdnb.all import *
for name in 'hour-teacher', 'hour-few-alone-0', 'hour-few-alone-1':
    if not os.path.exists(f'{RUNS}/{name}'): shutil.copytree(f'/work/main/runs/{name}', f'{RUNS}/{name}')
data = load_data('cifar100', root='/work/t/data', n_train=10000)
epochs = 10
def scheme(kind, seed):
    with seeded(seed):
        net = create_model('plainnet20', data.num_classes)
        if kind == 'alone': return net
        if kind == 'ofd': return JointRD(net, 'hour-teacher', as_released=True)
        return JointRD(net, 'hour-teacher')
only = sys.argv[1].split(',') if len(sys.argv) > 1 else ['alone:0', 'joint:0', 'alone:1', 'joint:1', 'ofd:0', 'ofd:1']
for job in only:
    kind, seed = job.split(':'); seed = int(seed)
    name = f'hour-few-plain-{kind}-{seed}'
    if os.path.exists(f'{RUNS}/{name}/result.json'): continue
    t = time.time()
    learn = Learner(scheme(kind, seed), data, run=name, seed=seed, cbs=None).fit(epochs)
    print(name, learn.result, round(time.time()-t), 's', flush=True)
