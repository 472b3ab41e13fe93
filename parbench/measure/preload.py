"""What the fork server imports once, so that no trial pays for it. Imports only: no operator runs here."""

import contextlib
import gc
import importlib

import torch._dynamo

import parbench.measure.worker
from parbench.models.base import FAMILIES
from parbench.strategies.base import STRATEGIES

# A strategy or family whose modules are missing fails in its own trial, with its own message.
needed = [module for strategy in STRATEGIES.classes().values() for module in strategy.imports]
needed += [module for family in FAMILIES.classes().values() for module in family.imports]
needed += ["tqdm"]  # if it is there, torch.compile uses it
for module in needed:
    with contextlib.suppress(ImportError):
        importlib.import_module(module)

# What is imported here lives as long as any rank: no rank's collector has to walk, and thereby copy, all of it.
gc.freeze()

__all__ = ["parbench", "torch"]
