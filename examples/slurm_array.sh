#!/usr/bin/env bash
# A folder of images on many nodes: one SLURM array task per shard, then one task that merges.
#
#   bash examples/slurm_array.sh /data/images /data/runs/line3                 submits both jobs
#   SHARDS=64 bash examples/slurm_array.sh /data/images /data/runs/line3 --calibration line3.json
#
# What stands after the two folders goes to `headclip predict`. RUN must lie on a disk that all nodes see. A task that
# is killed or preempted is put back in the queue by SLURM and goes on with what is not done: that is what --resume is
# for, and why it can be there from the first start. A task whose every image is broken ends well; its rows say why.

#SBATCH --job-name=headclip
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# Add what your cluster needs, such as:  #SBATCH --gres=gpu:1  and  #SBATCH --partition=gpu

set -euo pipefail

if (($# < 2)); then
    echo "usage: $0 IMAGES RUN [OPTION OF headclip predict]..." >&2
    exit 2
fi
images=$1 run=$2
shift 2

if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then # inside the array: this task's shard
    export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
    exec headclip predict "$images" --out "$run" \
        --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --resume --quiet "$@"
fi

# On the login node: submit the array, and the merging for when all of it has ended well.
job=$(sbatch --parsable --array="1-${SHARDS:-16}" "$0" "$images" "$run" "$@")
sbatch --dependency="afterok:$job" --job-name=headclip-merge --time=04:00:00 --mem=8G \
    --wrap "headclip merge $(printf '%q' "$run") --quiet"
