"""Model-based reinforcement learning: dynamics models trained by likelihood or a learned reward.

The names below are the public interface of the core; agents are in its subpackage `agents`, tasks
and environments in `envs`. Each is imported when it is first used.
"""

from typing import TYPE_CHECKING

from mbrl_bilevel.lazy_names import lazy_names

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mbrl_bilevel.data.minari import Dataset as Dataset
    from mbrl_bilevel.data.minari import load_dataset as load_dataset
    from mbrl_bilevel.data.split import split as split
    from mbrl_bilevel.data.transitions import Transitions as Transitions
    from mbrl_bilevel.errors import InputError as InputError
    from mbrl_bilevel.errors import TrainingDiverged as TrainingDiverged
    from mbrl_bilevel.evaluation.model_evaluation import evaluate as evaluate
    from mbrl_bilevel.models.dynamics import DynamicsModel as DynamicsModel
    from mbrl_bilevel.models.propagation import Propagation as Propagation
    from mbrl_bilevel.models.settings import ModelSettings as ModelSettings
    from mbrl_bilevel.objectives.new_model import new_model as new_model
    from mbrl_bilevel.objectives.settings import OBJECTIVES as OBJECTIVES
    from mbrl_bilevel.objectives.settings import BetaNLLSettings as BetaNLLSettings
    from mbrl_bilevel.objectives.settings import BilevelSettings as BilevelSettings
    from mbrl_bilevel.objectives.settings import FaithfulSettings as FaithfulSettings
    from mbrl_bilevel.objectives.settings import MSESettings as MSESettings
    from mbrl_bilevel.objectives.settings import NLLSettings as NLLSettings
    from mbrl_bilevel.objectives.settings import TwoMeansSettings as TwoMeansSettings
    from mbrl_bilevel.objectives.spec import ObjectiveSpec as ObjectiveSpec
    from mbrl_bilevel.planning.settings import PLANNERS as PLANNERS
    from mbrl_bilevel.training.fit import fit as fit
    from mbrl_bilevel.training.loop import Callback as Callback
    from mbrl_bilevel.training.loop import train as train
    from mbrl_bilevel.training.run_folder import RunFolder as RunFolder
    from mbrl_bilevel.training.settings import FitSettings as FitSettings
else:
    _MODULES = {
        "data.minari": ("Dataset", "load_dataset"),
        "data.split": ("split",),
        "data.transitions": ("Transitions",),
        "errors": ("InputError", "TrainingDiverged"),
        "evaluation.model_evaluation": ("evaluate",),
        "models.dynamics": ("DynamicsModel",),
        "models.propagation": ("Propagation",),
        "models.settings": ("ModelSettings",),
        "objectives.new_model": ("new_model",),
        "objectives.settings": (
            "OBJECTIVES",
            "BetaNLLSettings",
            "BilevelSettings",
            "FaithfulSettings",
            "MSESettings",
            "NLLSettings",
            "ObjectiveSpec",
            "TwoMeansSettings",
        ),
        "planning.settings": ("PLANNERS",),
        "training.fit": ("fit",),
        "training.loop": ("Callback", "train"),
        "training.run_folder": ("RunFolder",),
        "training.settings": ("FitSettings",),
    }
    __getattr__, __dir__ = lazy_names(__name__, _MODULES)

__all__ = [
    "OBJECTIVES",
    "PLANNERS",
    "BetaNLLSettings",
    "BilevelSettings",
    "Callback",
    "Dataset",
    "DynamicsModel",
    "FaithfulSettings",
    "FitSettings",
    "InputError",
    "MSESettings",
    "ModelSettings",
    "NLLSettings",
    "ObjectiveSpec",
    "Propagation",
    "RunFolder",
    "TrainingDiverged",
    "Transitions",
    "TwoMeansSettings",
    "evaluate",
    "fit",
    "load_dataset",
    "new_model",
    "split",
    "train",
]
