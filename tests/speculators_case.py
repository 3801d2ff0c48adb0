"""Run by an interpreter that has the library `speculators`: loads a draft's folder with it and saves what it loaded.

python speculators_case.py FOLDER OUT
"""

import json
import sys

import torch
from safetensors.torch import save_file
from speculators import SpeculatorModel

folder, out = sys.argv[1:]
model = SpeculatorModel.from_pretrained(folder)
state = {name: tensor.to(torch.float32).contiguous().clone() for name, tensor in model.state_dict().items()}
config = {"layer_ids": model.target_layer_ids, "verifier": model.config.speculators_config.verifier.name_or_path}
config["norm_before_residual"] = model.config.norm_before_residual
save_file(state, out, {"config": json.dumps(config)})
