"""The plan's arithmetic: by hand, against arrays and programs at small sizes, and against programs compiled for the H100."""

import copy
import dataclasses
import functools
import importlib
import json
import re

import jax
import numpy as np
import pytest
from test_configs import MODELS, ROOT

from launch.plan_work import assumed_of, pair_seconds, target_of, work_of
from specexit_jax.decoding.loop import segments
from specexit_jax.decoding.loop.speculative import make_loop
from specexit_jax.decoding.spec import DecodeSpec
from specexit_jax.evaluation.loop.roofline import copy_bandwidth
from specexit_jax.evaluation.loop.timing import LoopTimer, make_case
from specexit_jax.exits.boundaries import TokenBoundaries
from specexit_jax.exits.policy import NeverExit
from specexit_jax.models.checkpoints.hf import load_target_config
from specexit_jax.models.config import TargetConfig, draft_config
from specexit_jax.models.target import init_target
from specexit_jax.parallel.sharding import make_mesh, tree_shardings
from specexit_jax.sizing import compile_ahead, plan_hours, plan_memory
from specexit_jax.sizing.devices import DEVICES
from specexit_jax.sizing.plan import Assumed, Machine, longest, meshes, processes_of
from specexit_jax.sizing.plan_hours import Rates
from specexit_jax.sizing.plan_stages import plan
from specexit_jax.sizing.plan_table import as_json, by_devices, fits, table
from specexit_jax.sizing.presets import PUBLISHED, TARGETS, draft_for
from specexit_jax.sizing.random_weights import random_params
from specexit_jax.training.draft import DraftTrainingConfig
from specexit_jax.training.optimizer import OptimizerConfig

LLAMA = dataclasses.replace(TARGETS["llama-8b"], dtype="bfloat16")
ADAMW = OptimizerConfig(total_steps=1000)
LOSSES = DraftTrainingConfig(steps=4, remat=True)
NEAR = 0.25  # how far a formula may be from what is measured


@functools.cache
def h100(devices: int = 8, **more) -> Machine:
    device = DEVICES["h100"]
    return Machine(device, devices, processes_of(device, devices), -(-devices // 8), **more)


@functools.cache
def config_of(name: str):
    return importlib.import_module(f"configs.{name}").get_config()


def changed(name: str, **values):
    config = copy.deepcopy(config_of(name))
    with config.unlocked():
        config.update_from_flattened_dict({key.replace("__", "."): value for key, value in values.items()})
    return config


def test_the_bytes_of_llama_8b_by_hand():
    draft = draft_for(LLAMA)
    parameters = 8_030_261_248
    assert plan_memory.target_bytes(LLAMA) == 2 * parameters
    norms = (2 * 32 + 1) * 4096
    assert plan_memory.target_bytes(LLAMA, (1, 8, 1)) == 2 * ((parameters - norms) // 8 + norms)
    assert plan_memory.token_cache(LLAMA) == 2 * 32 * 8 * 128 * 2 and plan_memory.token_cache(draft) == 2 * 8 * 128 * 2
    assert plan_memory.token_cache(LLAMA, (1, 1, 8)) == 2 * 32 * 128 * 2
    assert plan_memory.token_cache(LLAMA, (1, 1, 16)) == plan_memory.token_cache(LLAMA)  # 8 heads are not split by 16
    assert plan_memory.cache_bytes(LLAMA, draft, 12, 4096) == 12 * 4096 * 33 * 4096
    assert plan_memory.cache_bytes(LLAMA, None, 12, 4096, (4, 1, 1)) == 3 * 4096 * 32 * 4096
    # the draft: fc with its signals, q k v of 2 E, o, gate up down, its head, four norms
    own = 3 * 4096 * (4096 + 3) + 8192 * 48 * 128 + 4096 * 4096 + 3 * 4096 * 14336 + 4096 * 32_000 + 4 * 4096
    assert plan_memory.draft_bytes(draft) == 2 * own
    whole = plan_memory.state_bytes(draft, ADAMW, LOSSES)
    assert whole - 12 * own in range(100)  # and counters
    assert plan_memory.state_bytes(draft, ADAMW, LOSSES, (1, 8, 1)) == pytest.approx(whole / 8, rel=0.01)
    assert plan_memory.mesh_over((1, -1, 1), 8) == (1, 8, 1)
    with pytest.raises(ValueError, match="does not cover 8 devices"):
        plan_memory.mesh_over((1, 3, 1), 8)


def test_the_bytes_of_mimo_7bs_own_layer_by_hand():
    """No `fc`, and no head: that is the target's. Of a frozen layer the signals alone have moments."""
    mimo = dataclasses.replace(TARGETS["mimo-7b"], dtype="bfloat16")
    draft = draft_for(mimo, "mtp")
    norms, signals = 5 * 4096, 3 * 4096
    layer = 2 * 4096 * 4096 + (4096 + 1) * 48 * 128 + 4096 * 4096 + 3 * 4096 * 11008
    own = layer + norms + signals
    assert plan_memory.draft_bytes(draft) == 2 * own
    assert plan_memory.token_cache(draft) == 2 * 8 * 128 * 2
    assert plan_memory.state_bytes(draft, ADAMW, LOSSES) - 12 * own in range(100)  # and counters
    assert plan_memory.state_bytes(draft, ADAMW, LOSSES, learn="signals") - 4 * own - 8 * signals in range(100)


def test_the_plan_of_mimo_7bs_draft_is_that_of_its_kind():
    config, assumed = changed("mimo_7b_rl", train__features="offline"), Assumed()
    work = work_of(config, assumed)
    assert work.target.feature_size == 4096 and (work.learn, work.losses.steps) == ("all", 3)
    made = {stage.name: stage for stage in plan(work, assumed, h100())}["train"]
    frozen = work_of(changed("mimo_7b_rl", train__learn="signals"), assumed)
    held = {stage.name: stage for stage in plan(frozen, assumed, h100())}["train"]
    assert held.device["state"] < 0.4 * made.device["state"]
    state = plan_memory.state_bytes(work.draft, work.optimizer, work.losses)
    stored = work.traces["draft"] * assumed.written * 2 * 2 * 4096  # bfloat16: one feature, and the hidden of the head
    assert made.disk == pytest.approx(2 * state + plan_memory.draft_bytes(work.draft) + stored)


# (preset, program, rows, tokens, devices on data, fsdp, tensor, GiB a device), of docs/speed.md
COMPILED = [
    ("qwen3-4b", "decode", 1, 4096, (1, 1, 1), 8.6),
    ("qwen3-4b", "decode", 8, 4096, (1, 1, 1), 13.2),
    ("qwen3-4b", "decode", 64, 4096, (1, 1, 1), 50.2),
    ("llama-8b", "decode", 1, 4096, (1, 1, 1), 16.3),
    ("llama-8b", "decode", 8, 4096, (1, 1, 1), 20.6),
    ("llama-8b", "decode", 64, 4096, (1, 1, 1), 54.7),
    ("llama-8b", "decode", 8, 32768, (1, 1, 1), 49.5),
    ("llama-8b", "decode", 64, 32768, (1, 1, 8), 38.2),
    ("llama-8b", "train", 8, 16384, (1, 8, 1), 10.1),
    ("qwen-7b", "train", 8, 16384, (1, 8, 1), 10.0),
    ("qwen3-4b", "train", 16, 16384, (1, 8, 1), 13.8),
    ("llama-8b", "train", 8, 32768, (1, 8, 1), 18.9),
    ("qwen-7b", "train", 8, 32768, (1, 8, 1), 17.2),
    ("qwen3-4b", "train", 8, 32768, (1, 8, 1), 13.8),
    ("qwen3-4b", "train", 8, 2048, (1, 4, 1), 6.5),  # these three for the TPU v5e
    ("llama-8b", "train", 8, 2048, (1, 4, 1), 9.4),
    ("llama-8b", "train", 8, 32768, (1, 8, 2), 11.5),
    ("mimo-7b", "decode", 8, 4096, (1, 1, 1), 19.9),  # with its own layer, as below
    ("mimo-7b", "decode", 1, 2048, (1, 1, 1), 15.1),
    ("mimo-7b", "train", 8, 16384, (1, 8, 1), 9.6),
]


@pytest.mark.parametrize("preset, program, rows, tokens, mesh, gib", COMPILED)
def test_programs_compiled_ahead_take_what_is_planned(preset, program, rows, tokens, mesh, gib):
    target = dataclasses.replace(TARGETS[preset], dtype="bfloat16")
    draft = draft_for(target, "mtp" if preset == "mimo-7b" else "eagle3")
    planned = plan_memory.target_bytes(target, mesh)
    if program == "train":
        planned += plan_memory.state_bytes(draft, ADAMW, LOSSES, mesh)
        planned += plan_memory.train_working(target, draft, LOSSES, rows, tokens, mesh)
    else:
        planned += plan_memory.draft_bytes(draft, mesh) + plan_memory.cache_bytes(
            target, draft, rows, tokens + 128, mesh
        )
        planned += plan_memory.decode_working(target, draft, rows, 3, 512 * rows, mesh)  # prompts of 512
    assert planned / 2**30 == pytest.approx(gib, rel=NEAR)


SMALL = TargetConfig("llama", 2048, 256, 768, 4, 8, 4, 32, max_position=4096)


def test_weights_states_and_caches_are_those_of_arrays():
    """On a mesh of 8 devices, and in the slots of a loop."""
    mesh = make_mesh(1, 4, 2)
    params = jax.eval_shape(functools.partial(init_target, SMALL), jax.random.key(0))
    placed = jax.tree.map(
        lambda leaf, sharding: jax.device_put(np.zeros(leaf.shape, leaf.dtype), sharding),
        params,
        tree_shardings(params, mesh),
    )
    device = mesh.devices.flat[3]
    held = sum(s.data.nbytes for leaf in jax.tree.leaves(placed) for s in leaf.addressable_shards if s.device == device)
    assert plan_memory.target_bytes(SMALL, (1, 4, 2)) == held

    draft = draft_config(SMALL, 512, 512, "draft")
    spec = DecodeSpec(SMALL, 500, (0,), (1,), draft, 3)
    loop = make_loop(spec, random_params(SMALL, draft), NeverExit(), TokenBoundaries(np.zeros(2048, bool)))
    state = jax.eval_shape(segments.open_slots, loop, 4, spec.prefixes[-1])
    caches = compile_ahead_bytes((state.target_cache.k, state.target_cache.v, state.draft_cache.k, state.draft_cache.v))
    planned = plan_memory.cache_bytes(SMALL, draft, 4, spec.prefixes[-1])
    assert planned <= caches < (1 + NEAR) * planned  # on a CPU the draft's has SPARE positions


def compile_ahead_bytes(tree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


@pytest.mark.slow
@pytest.mark.parametrize("rows, tokens", [(8, 512), (16, 1024)])
def test_programs_compiled_here_take_what_is_planned(rows, tokens):
    """Whole programs on a CPU's mesh: the loop and a training step, arguments and what they work with."""
    target = dataclasses.replace(SMALL, row_attention="fused")
    draft = draft_config(target, 512, 512, "draft")
    mesh = make_mesh(1, 8, 1)
    losses = DraftTrainingConfig(steps=4, teacher_chunk=128, loss_chunk=128, remat=True)
    found = compile_ahead.memory_of(compile_ahead.compile_draft_step(mesh, target, draft, rows, tokens, losses))
    sizes = (1, 8, 1)
    planned = plan_memory.target_bytes(target, sizes) + plan_memory.state_bytes(draft, ADAMW, losses, sizes)
    planned += plan_memory.train_working(target, draft, losses, rows, tokens, sizes)
    assert planned == pytest.approx(found.total, rel=NEAR)
    found = compile_ahead.memory_of(compile_ahead.compile_decode(make_mesh(8, 1, 1), SMALL, draft, rows, 128, tokens))
    planned = plan_memory.target_bytes(SMALL) + plan_memory.draft_bytes(draft)
    planned += plan_memory.cache_bytes(SMALL, draft, rows, tokens, (8, 1, 1))
    planned += plan_memory.decode_working(SMALL, draft, rows, 3, 128 * rows // 8, (8, 1, 1))
    assert planned == pytest.approx(found.total, rel=NEAR)


def test_the_pace_of_decoding_by_hand():
    rates = Rates(1e12, 1e15, 0.5, 0.4)
    one = plan_hours.decoding_pace(LLAMA, None, 1, 0, 2.5, rates)
    read = 2 * (8_030_261_248 - 128_256 * 4096 + 4096) + 131_072  # the table is looked up; the token's cache is written
    assert one.seconds == pytest.approx(read / 5e11, rel=1e-6) and one.tokens == pytest.approx(1 / one.seconds)
    assert one.limit == "weights"
    many = plan_hours.decoding_pace(LLAMA, None, 8, 32_768, 2.5, rates)
    assert many.seconds - one.seconds == pytest.approx(8 * 32_768 * 131_072 / 5e11, rel=1e-3) and many.limit == "caches"
    assert plan_hours.decoding_pace(LLAMA, None, 4096, 1, 2.5, rates).limit == "FLOPs"
    halved = plan_hours.decoding_pace(LLAMA, None, 8, 32_768, 2.5, rates, (1, 1, 2))
    assert halved.seconds == pytest.approx(many.seconds / 2, rel=1e-3)
    apart = plan_hours.decoding_pace(LLAMA, None, 16, 32_768, 2.5, rates, (2, 1, 1))
    assert apart.tokens == pytest.approx(2 * many.tokens)
    drafted = plan_hours.decoding_pace(LLAMA, draft_for(LLAMA), 1, 0, 2.5, rates)
    assert 1 < drafted.seconds / one.seconds < 1.2 and drafted.tokens == pytest.approx(2.5 / drafted.seconds)
    assert plan_hours.live_prefix(15_000, 32_768) == 16_384 and plan_hours.live_prefix(99_999, 32_768) == 33_280


@pytest.mark.slow
def test_iterations_take_what_is_planned_from_two_that_were_measured():
    """Plain decoding of one row on this machine: the shares of its bandwidth at two sizes tell the time at three others."""
    sizes = [(8, 512), (8, 6000), (8, 3000), (20, 512), (20, 3000)]  # layers, tokens
    timers = []
    for layers, context in sizes:
        target = TargetConfig("llama", 8192, 512, 1536, layers, 8, 8, 64, max_position=16384)
        case = make_case(target, draft_for(target), batch=1, context=context, draft_tokens=0, iterations=20)
        timers.append(LoopTimer(case, random_params(target)))
    rounds = [[timer.run("whole") for timer in timers] for _ in range(9)]  # in turns
    seconds, bandwidth = np.median(rounds, axis=0), copy_bandwidth()

    def planned(timer, weights: float, caches: float) -> float:
        rates = Rates(bandwidth, 1e18, weights, 1.0, caches)
        return plan_hours.decoding_pace(timer.case.spec.target, None, 1, timer.case.context, 1, rates).seconds

    apart = [[planned(timer, 1, 1e9), planned(timer, 1e9, 1)] for timer in timers[:2]]
    shares = 1 / np.linalg.solve(apart, seconds[:2])
    found = [planned(timer, *shares) / took for timer, took in zip(timers, seconds, strict=True)]
    print({size: round(float(one), 2) for size, one in zip(sizes, found, strict=True)})
    assert found == pytest.approx([1.0] * 5, rel=NEAR)


def test_forced_answers_by_hand():
    rates = Rates(1e12, 1e18, 0.5, 0.5)  # FLOPs cost nothing
    took, limit = plan_hours.forcing_seconds(LLAMA, 1, 32, 10_000, 200, 400, rates)
    step = 2 * 8_030_261_248 + 131_072 * (6_000 + 32 * 200)
    assert took == pytest.approx(7 * 400 * step / 5e11, rel=0.01) and limit == "weights"  # 200 / 32 in 7 turns
    eight, _ = plan_hours.forcing_seconds(LLAMA, 8, 32, 10_000, 200, 400, rates)
    assert took / 8 < eight < took
    slow, limit = plan_hours.forcing_seconds(LLAMA, 1, 32, 10_000, 200, 400, Rates(1e18, 1e12))
    assert limit == "FLOPs" and slow > 2 * 8.03e9 * (10_000 + 80_000) / 4e11
    assert plan_hours.forward_flops(LLAMA, 1, 0, logits=False) == 2 * (8_030_261_248 - 2 * 128_256 * 4096)


@pytest.mark.parametrize("name", list(MODELS))
def test_a_published_config_fits_the_gpus_that_it_names_and_shows_its_plan(name, tmp_path):
    config, assumed = config_of(name), Assumed()
    published = (ROOT / "tests" / "fixtures" / "published" / f"{MODELS[name]}.json").read_text()
    (tmp_path / "config.json").write_text(published)
    assert target_of(config) == load_target_config(tmp_path, "bfloat16")  # the preset is the published model

    work = work_of(config, assumed)
    told = importlib.import_module(f"configs.{name}").__doc__
    least = int(re.search(r"NVIDIA\s+H100s\s+of\s+80\s+GB,\s+(\d+)\s+or\s+more", told)[1])
    slurm = (ROOT / "launch" / "slurm.sh").read_text()
    assert least == int(re.search(r"gpus-per-node=(\d+)", slurm)[1])  # a node, of as many processes
    assert "ntasks-per-node=8" in slurm and fits(plan(work, assumed, h100(least)))
    assert by_devices(work, assumed, h100, (1, 8, 16)) in told
    assert f"{plan_memory.target_bytes(work.target) / 1e9:.1f} GB of bfloat16 weights" in told
    assert f"{plan_memory.token_cache(work.target) // 1024} KiB of cache a token" in told
    assert longest(work, assumed) < 1.05 * (work.max_new_tokens + 1024)  # a buffer that is not twice what is needed


V5E = Machine(DEVICES["v5e"], 6, 2)
ONE_PROCESS = Machine(DEVICES["h100"], 12, 1)


@pytest.mark.parametrize(
    "values, stage, machine, words",
    [
        ({"rollout__batch_size": 32}, "rollout", h100(), "rollout.batch_size=12"),
        ({"rollout__max_new_tokens": 33_000, "rollout__batch_size": 12}, "rollout", h100(), "max_new_tokens=31744"),
        ({"annotate__batch_size": 16}, "annotate", h100(), "max_new_tokens=15360"),
        ({"annotate__batch_size": 16}, "evaluate", h100(), "annotate.batch_size=10"),
        ({"annotate__batch_size": 16, "evaluate__batch_size": 40}, "evaluate", h100(), "=1 --config.annotate"),
        ({"annotate__max_answer": 20_000}, "annotate", h100(), "annotate.batch_size=3"),
        ({"annotate__max_answer": 200_000}, "annotate", h100(), "batch_size=1 --config.annotate.branches=1"),
        ({"train__batch_size": 128}, "train", h100(), "train.batch_size="),
        ({"train__batch_size": 12}, "train", h100(), "train.batch_size=16"),
        ({"train__batch_size": 12, "train__mesh__data": 2}, "train", h100(), "train.mesh.data=1"),
        ({}, "train", V5E, "on 16 devices"),
        ({}, "rollout", V5E, "max_new_tokens=15360"),
        ({"evaluate__batch_size": 40}, "evaluate", h100(), "evaluate.batch_size=11"),
        ({}, "calibrate", h100(usable=0.2), "mesh.tensor=4 with 4 devices a process"),
        ({"rollout__batch_size": 7, "mesh__data": -1, "mesh__tensor": 1}, "rollout", ONE_PROCESS, "mesh.data=1"),
    ],
)
def test_every_change_that_is_proposed_makes_a_stage_fit(values, stage, machine, words):
    work = work_of(changed("qwen3_8b", **values), Assumed())
    stages = {one.name: one for one in plan(work, Assumed(), machine)}
    assert stages[stage].wrong and any(words in change for change in stages[stage].changes), stages[stage].changes
    for change in stages[stage].changes:
        settings = dict(re.findall(r"--config\.([\w.]+)=(\d+)", change))
        more = machine
        other = changed("qwen3_8b", **values | {key.replace(".", "__"): int(value) for key, value in settings.items()})
        if found := re.search(r"with (\d+) devices a process", change):
            more = dataclasses.replace(machine, processes=machine.devices // int(found[1]))
        if found := re.search(r" on (\d+) devices", change):
            devices = int(found[1])
            more = dataclasses.replace(machine, devices=devices, processes=processes_of(machine.device, devices))
        again = {one.name: one for one in plan(work_of(other, Assumed()), Assumed(), more)}
        assert not again[stage].wrong, change


def test_traces_are_assumed_to_be_no_longer_than_the_config_lets_them_be():
    """The bundled model writes 880 tokens at most, and 16 a forced answer."""
    bundled, given = config_of("embedded"), {"answer": 10, "pair_seconds": 2.0}
    assert assumed_of(config_of("qwen3_8b"), {}) == Assumed()
    assert assumed_of(bundled, {}) == Assumed(thinking=274, answer=16, boundaries=28)
    assert assumed_of(bundled, given) == Assumed(thinking=274, answer=10, boundaries=28, pair_seconds=2.0)
    for wrong, said in (
        ({"thinking": 900}, "are more than the 824 that a trace may have"),
        ({"prompt": 1024}, "--prompt=1024 fills the target's context of 1024 tokens"),
        ({"accept_length": float("nan")}, "--accept_length must be a number from 0 on, not nan"),
        ({"pair_seconds": -1.0}, "--pair_seconds must be a number from 0 on"),
    ):
        with pytest.raises(ValueError, match=re.escape(said)):
            assumed_of(bundled, wrong)


@pytest.mark.parametrize(
    "values, said",
    [
        ({"annotate__every": 0}, "annotate.every must be at least 1, not 0"),
        ({"annotate__branches": 0}, "Annotation needs branches of at least 1"),
        ({"train__batch_size": 0}, "config.train.batch_size must be at least 1, not 0"),
        ({"rollout__per_task__draft": 0}, "config.rollout.per_task.draft must be at least 1"),
    ],
)
def test_numbers_that_no_stage_could_work_with_are_refused(values, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        work_of(changed("qwen3_8b", **values), Assumed())


def test_meshes_are_refused_as_stages_refuse_them():
    """And ones alone are no mesh: a process decodes on one of its devices."""
    work, machine = work_of(config_of("embedded"), Assumed()), Machine(DEVICES["v5e"], 4, 1)
    assert meshes(work, machine) == ((1, 1, 1), (4, 1, 1))
    for values, said in (
        ({"mesh__tensor": 3}, "config.mesh: mesh data x fsdp x tensor = 1 x 1 x 3 does not cover 1 devices"),
        ({"mesh__tensor": 0}, "config.mesh: mesh sizes [1, 1, 0] must be positive"),
        ({"mesh__data": -1}, "config.mesh: mesh sizes [-1, 1, -1] must be positive, at most one -1"),
        ({"train__mesh__fsdp": 16}, "config.train.mesh: mesh data x fsdp x tensor = 1 x 16 x 1 does not cover 8"),
    ):
        with pytest.raises(ValueError, match=re.escape(said)):
            meshes(work_of(changed("qwen3_8b", **values), Assumed()), h100())
    with pytest.raises(ValueError, match="needs at least one device, not 0"):
        Machine(DEVICES["h100"], 0, 0)


def test_an_evaluation_of_few_problems_is_planned_as_that():
    config = importlib.import_module("configs.embedded").get_config("demo")
    work = work_of(config, Assumed())
    assert (work.tested, work.evaluated) == (6000, 120)


def test_rows_that_follow_the_memory_are_planned_as_if_all_were_long():
    """As many as slots open then: one row more is read beside them, and some memory is lost between arrays."""
    machine, assumed = h100(), Assumed()

    def rollout(**values):
        work = work_of(changed("qwen3_8b", **values), assumed)
        return next(stage for stage in plan(work, assumed, machine) if stage.name == "rollout")

    for most, rows in (("auto", 8), ("auto:4", 4), ("auto:7", 7)):
        told, fixed = rollout(rollout__batch_size=most), rollout(rollout__batch_size=rows)
        assert (told.device, told.hours, told.wrong) == (fixed.device, fixed.hours, "")
    row = 147_456 * longest(work_of(config_of("qwen3_8b"), assumed), assumed)
    assert rollout(cache_bytes=6 * row).device == rollout(rollout__batch_size=4).device  # of 5, one is being read
    machine = dataclasses.replace(machine, processes=2)
    assert (
        rollout(mesh__data=2, mesh__tensor=2).device
        == rollout(mesh__data=2, mesh__tensor=2, rollout__batch_size=48).device
    )
    machine = dataclasses.replace(h100(), usable=0.3)
    told = rollout()
    assert "the least number of rows of 33280 positions, and one more, do not fit 22.5 GiB a device" in told.wrong
    assert told.changes


def test_grading_counts_where_it_takes_longer_than_decoding():
    config = changed("qwen3_8b", source__name="problems.jsonl", source__checker="code")
    assert pair_seconds(config) == 1.0 and pair_seconds(config_of("qwen3_8b")) == 0.0
    assert pair_seconds(changed("qwen3_8b", source__name="gsm8k,humaneval_plus")) == 1.0
    assumed = Assumed(pair_seconds=60.0)
    stages = {one.name: one for one in plan(work_of(config, assumed), assumed, h100())}
    assert stages["annotate"].limit == "grading" and stages["train"].limit == "FLOPs"
    pairs = 2 * (16 * 800 + 200 * (400 + 1000))  # the draft split is searched; in 7 processes beside each of 8
    assert stages["annotate"].hours == pytest.approx(pairs * 60 / 56 / 3600)


def test_a_search_forces_fewer_boundaries_of_the_draft_split_alone():
    config = config_of("qwen3_8b").copy_and_resolve_references()
    with config.unlocked():
        config.annotate.update({"search": True, "every": 1, "most": 0, "sparse_splits": ("draft",)})
    forced = work_of(config, Assumed()).forced
    assert forced["draft"] == 16 and forced["calibration"] == forced["test"] == 200
    with config.unlocked():
        config.annotate.update({"search": False, "every": 3, "most": 50})
    assert work_of(config, Assumed()).forced["draft"] == 50
    with config.unlocked():
        config.annotate.update({"search": True, "every": 1, "most": 0, "kind": "first"})
    assert work_of(config, Assumed()).forced["draft"] == 200  # a search would find it too late


def test_the_table_tells_every_stage_what_is_wrong_and_what_was_assumed():
    config, machine, assumed = changed("qwen3_8b", rollout__batch_size=32), h100(), Assumed()
    work = work_of(config, assumed)
    stages = plan(work, assumed, machine)
    text = table(stages, work, assumed, machine)
    for stage in stages:
        assert re.search(rf"^{stage.name} .*{re.escape(stage.limit)}$", text, re.M)
    assert "rollout does not fit: 161.6 GiB a device are more than the 71.2 that are there. One of:" in text
    assert "--config.rollout.batch_size=12" in text and "thinking of 10,000 tokens" in text
    found = json.loads(json.dumps(as_json(stages, machine)))
    assert not found["fits"] and not found["stages"]["rollout"]["fits"] and found["stages"]["train"]["fits"]
    with pytest.raises(ValueError, match="8 devices are not shared evenly by 3 processes"):
        dataclasses.replace(machine, processes=3)


def test_sizes_that_nothing_tells_are_asked_for():
    assert set(PUBLISHED.values()) <= TARGETS.keys()
    with pytest.raises(
        ValueError, match="nobody/model is no folder with a config.json, and its sizes are not known: give"
    ):
        target_of(changed("qwen3_8b", target="nobody/model"))
    assert target_of(changed("qwen3_8b", target="nobody/model"), "llama-8b") == LLAMA
    with pytest.raises(ValueError, match="leave its variant out"):
        work_of(importlib.import_module("configs.embedded").get_config("target"), Assumed())
