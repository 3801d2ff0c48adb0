"""A target's run starts from a folder if one is given, and refuses the folder of a model of other shapes."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny_folders import write_tiny

from specexit_jax.data.documents import Mixture
from specexit_jax.models.checkpoints.hf import load_target
from specexit_jax.training.loop import LoopConfig
from specexit_jax.training.optimizer import OptimizerConfig
from specexit_jax.training.target_run import TargetRun, train_target


def test_a_run_goes_on_from_a_folder_and_refuses_another_shape(tmp_path):
    folder = write_tiny(tmp_path / "tiny") / "target"
    model, params = load_target(folder)
    run = TargetRun(1, 300, Mixture(), 4096, 1, 0, 1.0, init=str(folder))
    state = train_target(run, model, OptimizerConfig(), LoopConfig(0), tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, state.params, params)
    saved = load_target(tmp_path / "run" / "target")[1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2**-8), saved, params)  # written in bfloat16
    with pytest.raises(
        ValueError, match=r"train.row_length is 4, .* none is left to train on; .* train.row_length=[0-9]+"
    ):
        train_target(
            dataclasses.replace(run, row_length=4), model, OptimizerConfig(), LoopConfig(0), tmp_path / "short"
        )
    other = dataclasses.replace(model, intermediate_size=32)
    with pytest.raises(ValueError, match="has other shapes than the config's"):
        train_target(run, other, OptimizerConfig(), LoopConfig(0), tmp_path / "other")
