#!/bin/bash
# tiny-device: written by tumen's slurm engine; `sbatch job.sh` submits it by hand
#SBATCH --job-name=tiny-device
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output='/runs/it'"'"'s 100%%/jobs/device/log'

export PYTHONUNBUFFERED=1
export TOKENIZERS_PARALLELISM=false
folder='/runs/it'"'"'s 100%/jobs/device'
python=/opt/tumen/bin/python
ranks_per_node=1
command=(/opt/tumen/bin/python -m tumen train /runs/v2 device)
agent='cores=$((SLURM_CPUS_ON_NODE / ranks_per_node))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > 0 ? cores : 1))}
exec "$python" -m tumen.cluster.agents --folder "$folder" --epoch "$epoch" --attempt "$attempt" \
  --node "$SLURMD_NODENAME" --address "$SLURMD_NODENAME" --nodes "$SLURM_JOB_NUM_NODES" \
  --node-rank "$SLURM_NODEID" --ranks-per-node "$ranks_per_node" \
  --master "$MASTER_ADDR:$MASTER_PORT" --standby -- "$@"'

attempt=$((${SLURM_RESTART_COUNT:-0} + 1))
# Fencing: agents of an older epoch, on a node that Slurm lost, read this file and exit.
epoch=$SLURM_JOB_ID.$attempt
echo "$epoch" > "$folder/epoch.part" && mv "$folder/epoch.part" "$folder/epoch"
echo "$SLURM_JOB_ID" > "$folder/id.part" && mv "$folder/id.part" "$folder/id"
rm -f "$folder/exit"
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))
export folder epoch attempt python ranks_per_node MASTER_ADDR MASTER_PORT
echo "tumen: job $SLURM_JOB_ID, start $attempt, on $SLURM_JOB_NODELIST" >&2
# An agent on each node. One that fails ends all; one that is killed is restarted by its starter
# while the run is watched.
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpu-bind=none --kill-on-bad-exit=1 \
  --wait=30 bash -c "$agent" agent "${command[@]}" &
step=$!
wait "$step"
while kill -0 "$step" 2> /dev/null; do wait "$step"; done  # a trap ends a wait early
wait "$step"
code=$?
# Slurm lost this node and started the job elsewhere: its exit code is not ours to write.
[ "$(cat "$folder/epoch")" = "$epoch" ] || exit "$code"
echo "$code" > "$folder/exit.part" && mv "$folder/exit.part" "$folder/exit"
exit "$code"
