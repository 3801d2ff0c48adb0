"""Writes a draft in the format of another engine: OUT/{config.json, model.safetensors, signals.specexit, policy.json}.

The draft's policy.json is written too, adapted to the written weights.

python -m launch.export --target=TARGET --draft=WORKDIR/draft_model --out=FOLDER --format=eagle
Formats of EAGLE-3 drafts: eagle (EAGLE, SGLang, vLLM), angelslim (SpecExit's: signals are the last rows of `fc`), speculators
(vLLM's, which names its --target). --layer_ids: the key that names the captured layers, inputs (which EAGLE and vLLM read),
outputs (in `eagle_config`, which SGLang and SpecForge read) or both. Of MTP drafts: checkpoint (vLLM, SGLang: the layer under
the names of its family's checkpoints, with the tables of its --target), mtp (the layer alone). In all but angelslim the signals
are in a file of their own.
"""

from pathlib import Path

from absl import flags

from launch import door, export_policy
from specexit_jax.engine.session import BUILTIN
from specexit_jax.models.checkpoints.drafts import FORMATS, WITH_TARGET, files_of
from specexit_jax.models.checkpoints.hf import load_draft, load_target_config, save_draft, verifier_of
from specexit_jax.models.checkpoints.hf_draft_config import CONVENTIONS, LAYER_IDS
from specexit_jax.models.checkpoints.hf_tensors import local_folder
from specexit_jax.models.config import check_pair

FLAGS = flags.FLAGS
flags.DEFINE_string("draft", None, "Folder of the draft, in any of the formats that can be read.", required=True)
flags.DEFINE_string(
    "target",
    None,
    "Folder of the target. If given, a draft of another target is refused, and the captured layers are written.",
)
flags.DEFINE_string("out", None, "Folder to write to.", required=True)
flags.DEFINE_string(
    "policy",
    None,
    "The draft's policy.json, to export with it; default: the one in the draft's folder or beside it, if any.",
)
flags.DEFINE_enum("format", None, FORMATS, "Format to write; default: eagle, or checkpoint for an MTP draft.")
flags.DEFINE_enum(
    "layer_ids", "both", LAYER_IDS, "What the written layer ids count: layers' inputs, outputs, or one key for each."
)
flags.DEFINE_enum(
    "draft_layer_ids", None, CONVENTIONS, "What the layer ids in the draft's files count, where the files do not say."
)
flags.DEFINE_enum("dtype", "bfloat16", ["bfloat16", "float16", "float32"], "Data type of the written weights.")


def check() -> Path:
    """Returns the folder to write. Refuses one that is not empty, and the format speculators without its target."""
    out = Path(FLAGS.out)
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty: name a folder that is not there yet.")
    if FLAGS.format == "speculators" and not FLAGS.target:
        raise ValueError("A speculators file names the model that verifies the draft: add --target=FOLDER-OR-HUB-NAME.")
    if FLAGS.draft == BUILTIN and not FLAGS.target:
        raise ValueError(f"The draft {BUILTIN!r} lies in its target's checkpoint: add --target=FOLDER-OR-HUB-NAME.")
    return out


def main() -> None:
    out = check()
    folder = local_folder(FLAGS.target if FLAGS.draft == BUILTIN else FLAGS.draft, "draft")
    bundle = load_draft(folder, layer_ids=FLAGS.draft_layer_ids)
    policy, told = export_policy.chosen(FLAGS.policy, folder, bundle.config)
    if FLAGS.target:
        target = load_target_config(local_folder(FLAGS.target, "target"))
        check_pair(bundle.config, target)
        bundle = bundle.with_capture(target.capture_layers)
    form = FLAGS.format or files_of(bundle.config.kind).EXPORTED
    verifier = verifier_of(FLAGS.target) if FLAGS.target and form in WITH_TARGET else None
    save_draft(out, bundle, FLAGS.dtype, form, FLAGS.layer_ids, verifier)
    unread = form == "angelslim" and bundle.config.signals == "draft"
    note = ", where AngelSlim itself does not look for them" if unread else ""
    if bundle.config.norm_before_residual and form == "eagle":
        note += "; norm_before_residual is on, which vLLM reads and SGLang does not: it would draft badly there"
    door.say(f"{out}: {form}, {FLAGS.dtype}, signals at {bundle.config.signals!r}{note}")
    door.say(export_policy.written(policy, folder, bundle.config, out, FLAGS.dtype) if policy else told)


if __name__ == "__main__":
    door.run(main)
