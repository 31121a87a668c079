"""What you type: `from kdnb.all import *`. Everything else is imported from its package, such as `kdnb.methods`."""
from kdnb.seeds import seeded
from kdnb.systems import Recipe, recipes, sweep_presets
from kdnb.parallel import torchrun
from kdnb.data import Data, list_zoo, load_data
from kdnb.models import (
    resnet, wrn, plainnet, mobilenetv2, shufflenetv1, shufflenetv2, vgg, grow, shrink, reducenet, reestimate_bn,
    cheapen, cheapnet, create_model, list_models, load_model, num_params, save_model, weights_hash,
)
from kdnb.taps import Tapped, find_taps, fuse, tail
from kdnb.measure import (
    accuracy, agreement, attention_correlation, attention_map, block_contrast, calibration_error, evaluating,
    linear_cka, linear_probe, profile, rescued_broken, similarity_matrix,
)
from kdnb.losses import (
    at_loss, ce_loss, dist_loss, dkd_loss, hint_loss, kd_loss, nst_loss, ofd_loss, ofd_margin,
    ofd_margin_measured, pkt_loss, review_loss, rkd_angle_loss, rkd_distance_loss, sp_loss, standardize_logits,
    wttm_loss,
)
from kdnb.methods import (
    AT, CE, DIST, DKD, KD, LS, NST, OFD, PKT, RKD, SP, WTTM, FitNet, Method, ReviewKD, Term, known_methods,
    parse_method, regressor,
)
from kdnb.schemes import Alone, Distill, Frozen, JointRD, Online, Scheme, joint_gate, weigh
from kdnb.train import Callback, Diverged, Learner, Run, fit_together, read_history, remember, stamp
from kdnb.show import (
    compare, explore, show_attention, show_batch, show_cka, show_dark_knowledge, show_history, show_logits,
    show_similarity,
)
from kdnb.callbacks import EMA, EarlyStop, Film, LRFinder, Progress, TensorBoard, show_film
from kdnb.experiments import (
    Job, Results, grid_noise, load_results, mean_std, paired_difference, published_table, report_page, run_jobs,
    show_grid, show_tradeoff, sweep, sweep_commands, tune,
)
from kdnb.deploy import export, predict

__all__ = [
    'seeded', 'Recipe', 'recipes', 'sweep_presets', 'torchrun', 'Data', 'list_zoo', 'load_data', 'resnet', 'wrn',
    'plainnet', 'mobilenetv2', 'shufflenetv1', 'shufflenetv2', 'vgg', 'grow', 'shrink', 'reducenet', 'reestimate_bn',
    'cheapen', 'cheapnet', 'create_model', 'list_models', 'load_model', 'num_params', 'save_model', 'weights_hash',
    'Tapped', 'find_taps', 'fuse', 'tail', 'accuracy', 'agreement', 'attention_correlation', 'attention_map',
    'block_contrast', 'calibration_error', 'evaluating', 'linear_cka', 'linear_probe', 'profile', 'rescued_broken',
    'similarity_matrix', 'at_loss', 'ce_loss', 'dist_loss', 'dkd_loss', 'hint_loss', 'kd_loss', 'nst_loss', 'ofd_loss',
    'ofd_margin', 'ofd_margin_measured', 'pkt_loss', 'review_loss', 'rkd_angle_loss', 'rkd_distance_loss', 'sp_loss',
    'standardize_logits', 'wttm_loss', 'AT', 'CE', 'DIST', 'DKD', 'KD', 'LS', 'NST', 'OFD', 'PKT', 'RKD', 'SP', 'WTTM',
    'FitNet', 'Method', 'ReviewKD', 'Term', 'known_methods', 'parse_method', 'regressor', 'Alone', 'Distill', 'Frozen',
    'JointRD', 'Online', 'Scheme', 'joint_gate', 'weigh', 'Callback', 'Diverged', 'Learner', 'Run', 'fit_together',
    'read_history', 'remember', 'stamp', 'compare', 'explore', 'show_attention', 'show_batch', 'show_cka',
    'show_dark_knowledge', 'show_history', 'show_logits', 'show_similarity', 'EMA', 'EarlyStop', 'Film', 'LRFinder',
    'Progress', 'TensorBoard', 'show_film', 'Job', 'Results', 'grid_noise', 'load_results', 'mean_std',
    'paired_difference', 'published_table', 'report_page', 'run_jobs', 'show_grid', 'show_tradeoff', 'sweep',
    'sweep_commands', 'tune', 'export', 'predict',
]
