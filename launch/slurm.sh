#!/usr/bin/env bash
#SBATCH --job-name=specexit
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
# One run on the GPUs of several nodes, a process a GPU:
#   sbatch --nodes=4 launch/slurm.sh launch.train --config=… --workdir=/shared/…
# Options given to sbatch go before those above. The workdir must be on a file system that every node sees.
#   PYTHON=…    an interpreter with requirements.txt and "jax[cuda13]", the same on every node
# Five minutes before its time is up, or when it is preempted, the run saves and stops; the same command goes on from there.
# The first process to fail ends the others; JAX ends those that lose one without a word (distributed.HEARTBEAT_SECONDS).
set -euo pipefail

[[ $# -ge 1 ]] || {
  echo "error: usage: sbatch launch/slurm.sh MODULE [--flag=value …]" >&2
  exit 1
}
[[ -n ${SLURM_JOB_ID:-} ]] || {
  echo "error: this is no Slurm job: submit it with sbatch launch/slurm.sh $*" >&2
  exit 1
}
# sbatch runs a copy of this file: the repository is where it was submitted from.
export PYTHONPATH=$SLURM_SUBMIT_DIR${PYTHONPATH:+:$PYTHONPATH}
# srun takes the processors of a task from this variable alone; beside decoding, they grade answers.
if [[ -n ${SLURM_CPUS_PER_TASK:-} ]]; then
  export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
fi
# Of a GPU's memory JAX takes three quarters unless it is told; launch.plan counts on nine tenths (--usable).
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.9}
# JAX reads process count, number and the coordinator's node from Slurm's variables.
export SPECEXIT_CLUSTER=slurm
exec srun --kill-on-bad-exit=1 --label "${PYTHON:-python3}" -P -m "$@"
