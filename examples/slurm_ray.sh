#!/usr/bin/env bash
# A folder of images on several nodes at once: a Ray cluster inside one SLURM job, and headclip on top of it.
#
#   sbatch --nodes=4 examples/slurm_ray.sh /data/images /data/runs/line3
#   sbatch --nodes=4 --gpus-per-node=2 examples/slurm_ray.sh /data/images /data/runs/line3 --actors 8 --cpus-per-actor 4
#
# What stands after the two folders goes to `headclip predict`. Both folders must lie on a disk that all nodes see, or
# be URLs such as s3://bucket/prefix. A job that is preempted is queued again and goes on with what is not done.
# Where no cluster is needed, slurm_array.sh does the same with independent tasks and without Ray.

#SBATCH --job-name=headclip-ray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append

set -euo pipefail

if (($# < 2)); then
    echo "usage: $0 IMAGES RUN [OPTION OF headclip predict]..." >&2
    exit 2
fi
images=$1 run=$2
shift 2

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
port=$((20000 + SLURM_JOB_ID % 20000)) # jobs that share a node do not meet
address="$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}'):$port"
common=(--num-cpus="$SLURM_CPUS_PER_TASK" --disable-usage-stats --block)

stop() {
    kill "${started[@]}" 2>/dev/null || true
}
started=()
trap stop EXIT

srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
    ray start --head --node-ip-address="${address%:*}" --port="$port" --include-dashboard=false "${common[@]}" &
started+=($!)
for _ in $(seq 60); do # until the head answers
    if srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" ray status --address="$address" >/dev/null 2>&1; then
        break
    fi
    sleep 2
done
if ((${#nodes[@]} > 1)); then
    srun --overlap --nodes=$((${#nodes[@]} - 1)) --ntasks=$((${#nodes[@]} - 1)) --exclude="$head" \
        ray start --address="$address" "${common[@]}" &
    started+=($!)
fi

# Actors start as nodes come in: one for each, with all its processors; options given above take precedence.
export RAY_ADDRESS=$address
headclip predict "$images" --out "$run" \
    --engine ray --actors "1:${#nodes[@]}" --cpus-per-actor "$SLURM_CPUS_PER_TASK" --resume --quiet "$@"
