"""The public names and where they come from: read by lazy_loader at run time, and by type checkers.

A module is public when it stands here, and then with every name of its ``__all__``.
"""

from . import data as data
from . import evaluation as evaluation
from . import inference as inference
from . import models as models
from . import training as training
from . import viz as viz
from .data.datasets import Sample as Sample
from .data.datasets import fly_neuron as fly_neuron
from .data.datasets import simulated_neurons as simulated_neurons
from .data.datasets import split_by_source as split_by_source
from .data.io import check_volume as check_volume
from .data.io import read_spacing as read_spacing
from .data.io import read_volume as read_volume
from .data.io import scale_intensity as scale_intensity
from .data.io import write_volume as write_volume
from .data.patches import Patches as Patches
from .data.simulate import Growth as Growth
from .data.simulate import Microscope as Microscope
from .data.simulate import grow_neuron as grow_neuron
from .data.simulate import render as render
from .data.simulate import simulate_neuron as simulate_neuron
from .data.swc import Tree as Tree
from .data.swc import rasterise as rasterise
from .data.swc import read_swc as read_swc
from .data.swc import write_swc as write_swc
from .data.v3d import read_v3draw as read_v3draw
from .data.v3d import write_v3draw as write_v3draw
from .evaluation.voxels import best_threshold as best_threshold
from .evaluation.voxels import dice as dice
from .evaluation.voxels import evaluate_masks as evaluate_masks
from .evaluation.voxels import hd95 as hd95
from .evaluation.voxels import precision as precision
from .evaluation.voxels import recall as recall
from .inference.sliding import predict as predict
from .inference.trace import trace as trace
from .models.families import vit_config as vit_config
from .models.inflate import grey_fold as grey_fold
from .models.inflate import inflate_depth as inflate_depth
from .models.inflate import inflate_kernel as inflate_kernel
from .models.inflate import inflate_state_dict as inflate_state_dict
from .models.inflate import resize_kernel as resize_kernel
from .models.segmenter import PRESETS as PRESETS
from .models.segmenter import NeuronSegmenter as NeuronSegmenter
from .models.segmenter import SegmenterConfig as SegmenterConfig
from .models.teacher import DEFAULT_TEACHER as DEFAULT_TEACHER
from .models.teacher import Teacher as Teacher
from .models.teacher import TeacherSource as TeacherSource
from .models.teacher import load_teacher as load_teacher
from .models.vit import ViT3D as ViT3D
from .models.vit import ViTConfig as ViTConfig
from .training.distill import Distillation as Distillation
from .training.distill import DistillConfig as DistillConfig
from .training.loop import TrainConfig as TrainConfig
from .training.loop import TrainResult as TrainResult
from .training.loop import train as train
from .training.losses import SegmentationLoss as SegmentationLoss
from .training.losses import dice_cross_entropy as dice_cross_entropy
from .training.losses import skeleton_recall_loss as skeleton_recall_loss
from .training.losses import skeleton_tube as skeleton_tube
from .training.losses import soft_cldice_loss as soft_cldice_loss
from .training.similarity import cosine_loss as cosine_loss
from .training.similarity import gram_loss as gram_loss
from .training.similarity import mse_loss as mse_loss
from .training.views import TokenCache as TokenCache
from .training.views import multi_view_tokens as multi_view_tokens
from .viz.plot import plot_comparison as plot_comparison
from .viz.plot import plot_history as plot_history
from .viz.plot import plot_kernels as plot_kernels
from .viz.plot import plot_projections as plot_projections

__version__: str
