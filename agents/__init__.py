"""What acts: model-predictive control, agents that learn, and the policies that collect data."""

from typing import TYPE_CHECKING

from mbrl_bilevel.lazy_names import lazy_names

if TYPE_CHECKING:
    from mbrl_bilevel.agents.behaviour import load_policy as load_policy
    from mbrl_bilevel.agents.build import make_agent as make_agent
    from mbrl_bilevel.agents.build_mpc import mpc_in_model as mpc_in_model
    from mbrl_bilevel.agents.build_mpc import mpc_in_simulator as mpc_in_simulator
    from mbrl_bilevel.agents.checks import Acting as Acting
    from mbrl_bilevel.agents.data_collection import collect_dataset as collect_dataset
    from mbrl_bilevel.agents.learning import learn as learn
    from mbrl_bilevel.agents.mpc import MPC as MPC
    from mbrl_bilevel.agents.planning_settings import LearnedModelSettings as LearnedModelSettings
    from mbrl_bilevel.agents.planning_settings import MPCSettings as MPCSettings
    from mbrl_bilevel.agents.planning_settings import mpc_settings as mpc_settings
    from mbrl_bilevel.agents.playing import play as play
    from mbrl_bilevel.agents.policy_evaluation import PolicyEvaluation as PolicyEvaluation
    from mbrl_bilevel.agents.presets import preset as preset
    from mbrl_bilevel.agents.presets import updated as updated
    from mbrl_bilevel.agents.settings import AGENTS as AGENTS
    from mbrl_bilevel.agents.settings import CloningSettings as CloningSettings
    from mbrl_bilevel.agents.settings import DHMBPOSettings as DHMBPOSettings
    from mbrl_bilevel.agents.settings import MBPOSettings as MBPOSettings
    from mbrl_bilevel.agents.settings import MOBILESettings as MOBILESettings
    from mbrl_bilevel.agents.settings import MOPOSettings as MOPOSettings
    from mbrl_bilevel.agents.settings import PETSSettings as PETSSettings
    from mbrl_bilevel.agents.settings import SACSettings as SACSettings
else:
    _MODULES = {
        "behaviour": ("load_policy",),
        "build": ("make_agent",),
        "build_mpc": ("mpc_in_model", "mpc_in_simulator"),
        "checks": ("Acting",),
        "data_collection": ("collect_dataset",),
        "learning": ("learn",),
        "mpc": ("MPC",),
        "planning_settings": ("LearnedModelSettings", "MPCSettings", "mpc_settings"),
        "playing": ("play",),
        "policy_evaluation": ("PolicyEvaluation",),
        "presets": ("preset", "updated"),
        "settings": (
            "AGENTS",
            "CloningSettings",
            "DHMBPOSettings",
            "MBPOSettings",
            "MOBILESettings",
            "MOPOSettings",
            "PETSSettings",
            "SACSettings",
        ),
    }
    __getattr__, __dir__ = lazy_names(__name__, _MODULES)

__all__ = [
    "AGENTS",
    "MPC",
    "Acting",
    "CloningSettings",
    "DHMBPOSettings",
    "LearnedModelSettings",
    "MBPOSettings",
    "MOBILESettings",
    "MOPOSettings",
    "MPCSettings",
    "PETSSettings",
    "PolicyEvaluation",
    "SACSettings",
    "collect_dataset",
    "learn",
    "load_policy",
    "make_agent",
    "mpc_in_model",
    "mpc_in_simulator",
    "mpc_settings",
    "play",
    "preset",
    "updated",
]
