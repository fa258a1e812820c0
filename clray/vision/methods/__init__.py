"""The methods of the vision track, one file each, and the list of their names.

A method is a class with a ``Settings`` schema for its hyper-parameters (``base.py``). Its code does not
use files, sweeps or Ray. To add one: write its file, add its line below, declare a variant that names it.
"""

from __future__ import annotations

from clray.registry import Registry
from clray.vision.methods.base import Method

METHODS: Registry[Method] = Registry(
    __name__,
    {
        # on perceptrons, one example at a time
        "online": "online:Online",
        "independent": "independent:Independent",
        "task_input": "task_input:TaskInput",
        "ewc": "ewc:Ewc",
        "gem": "gem:Gem",
        "er": "er:Er",
        "mer": "mer:Mer",
        # on torch modules, in batches
        "naive": "naive:Naive",
        "stable_sgd": "stable_sgd:StableSgd",
        "ewc_online": "ewc_online:EwcOnline",
        "agem": "agem:AGem",
        "er_reservoir": "er_reservoir:ErReservoir",
        "multitask_cyclic": "multitask_cyclic:MultitaskCyclic",
        "er_tiny": "er_tiny:ErTiny",
        "mer_batches": "mer_batches:MerBatches",
        # on class-incremental streams
        "ocl_naive": "incremental.naive:Naive",
        "ocl_er": "incremental.er:Er",
        "er_ace": "incremental.er_ace:ErAce",
        "der": "incremental.der:Der",
        "derpp": "incremental.der:Derpp",
        "scr": "incremental.scr:Scr",
        "pcr": "incremental.pcr:Pcr",
        "hpcr": "incremental.hpcr:Hpcr",
        "uer": "incremental.uer:Uer",
        "enmix": "incremental.enmix:EnMix",
        "nearest_mean": "incremental.nearest_mean:NearestMean",
        "mir": "incremental.mir:Mir",
        "ocl_agem": "incremental.agem:AGem",
        "aser": "incremental.aser:Aser",
        "refresh_derpp": "incremental.refresh:RefreshDerpp",
        "refresh_er": "incremental.refresh:RefreshEr",
        "ocm": "incremental.ocm:Ocm",
        "onpro": "incremental.onpro:OnPro",
    },
    base="clray.vision.methods.base:Method",
    group="clray.methods",
)
