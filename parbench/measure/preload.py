"""The modules that the fork server imports once, so that no trial waits for them. No torch operator runs here."""

import contextlib
import gc
import importlib

import torch._dynamo

import parbench.measure.worker
from parbench.models.base import FAMILIES
from parbench.strategies.base import STRATEGIES

# A strategy or family whose modules are missing fails in its own trial, with its own message.
modules = [module for strategy in STRATEGIES.classes().values() for module in strategy.imports]
modules += [module for family in FAMILIES.classes().values() for module in family.imports]
modules += ["tqdm"]  # torch.compile uses it where it is installed
for module in modules:
    with contextlib.suppress(ImportError):
        importlib.import_module(module)

# These modules live as long as any rank. Once frozen, the ranks' garbage collectors skip them; otherwise a collection
# would write to, and thereby copy, the pages that ranks share.
gc.freeze()

__all__ = ["parbench", "torch"]
