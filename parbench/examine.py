"""What an arm finds when it looks at the models that people bring: run as text, by the interpreter of that arm.

Its input names the folder that paths start at and the models; it imports nothing but that arm's own parbench.
"""

import json
import sys

from parbench.errors import Unsupported
from parbench.workloads.base import FAMILIES, Family


def examine() -> None:
    """A JSON line on stdout: every model by its workload as found here with the files of all modules, or why not."""
    asked, models = json.load(sys.stdin), {}
    for name, each in asked["workloads"].items():
        family = FAMILIES[each["model"]["kind"]]
        model = family.model_validate(each["model"], context={"folder": asked["folder"]})
        try:
            models[name] = model.examined(each["vocab_size"], each["seq_len"]).model_dump(mode="json")
            if isinstance(model, Family):
                model.load()  # the examination has left nothing in this process
        except Unsupported as error:
            print(json.dumps({"refusal": f"{name}: {error}"}))
            return
    modules = [module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)]
    print(json.dumps({"models": models, "modules": modules}))


if __name__ == "__main__":
    examine()
