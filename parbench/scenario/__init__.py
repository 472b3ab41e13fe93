"""The grammar of scenarios. The models that validate scenarios also generate their JSON Schema.

Strategies and families of other packages import the models from here.
"""

from parbench.base_types import Phase as Phase
from parbench.base_types import Precision as Precision
from parbench.base_types import Scaling as Scaling
from parbench.base_types import Spec as Spec
from parbench.scenario.specs import CheckSpec as CheckSpec
from parbench.scenario.specs import DevicesSpec as DevicesSpec
from parbench.scenario.specs import MeasureSpec as MeasureSpec
from parbench.scenario.specs import OptimizerSpec as OptimizerSpec
from parbench.scenario.specs import Options as Options
from parbench.scenario.specs import Scenario as Scenario
from parbench.scenario.specs import StrategySpec as StrategySpec
from parbench.scenario.specs import WorkloadSpec as WorkloadSpec
