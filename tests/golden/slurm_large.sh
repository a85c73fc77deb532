#!/bin/bash
# v2-cloud: written by tumen's slurm engine; `sbatch job.sh` submits it by hand
#SBATCH --job-name=v2-cloud
#SBATCH --account=llm
#SBATCH --partition=h800
#SBATCH --qos=high
#SBATCH --reservation=night
#SBATCH --nodes=256
#SBATCH --ntasks-per-node=1
#SBATCH --gres=gpu:h800:8
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --exclude=n17,n203
#SBATCH --time=1-12:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=/runs/v2/jobs/cloud/log

module load cuda/12.8
export NCCL_DEBUG=WARN
export NCCL_SOCKET_IFNAME=ib
export PYTHONUNBUFFERED=1
export TOKENIZERS_PARALLELISM=false
export TORCH_NCCL_ASYNC_ERROR_HANDLING=1
export TORCH_NCCL_DUMP_ON_TIMEOUT=1
export TORCH_NCCL_TRACE_BUFFER_SIZE=2000
folder=/runs/v2/jobs/cloud
python=/opt/tumen/bin/python
ranks_per_node=8
command=(/opt/tumen/bin/python -m tumen train /runs/v2 cloud)
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
# Shortly before the time limit: tell the ranks, then queue the job again.
again=no
trap 'again=yes; scancel --signal=TERM "$SLURM_JOB_ID"' USR1
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
# Ranks that wrote a last checkpoint end with 0, too. A training that is done by now ends at once
# when it starts again.
if [ "$again" = yes ] && scontrol requeue "$SLURM_JOB_ID"; then
  sleep 60  # Slurm ends this script
fi
echo "$code" > "$folder/exit.part" && mv "$folder/exit.part" "$folder/exit"
exit "$code"
