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
export TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE='[rank ${rank}] '
folder='/runs/it'"'"'s 100%/jobs/device'
python=/opt/tumen/bin/python
processes=1
command=(/opt/tumen/bin/python -m tumen train /runs/v2 device)
agent='export RANK=$SLURM_NODEID WORLD_SIZE=$SLURM_JOB_NUM_NODES LOCAL_RANK=0 LOCAL_WORLD_SIZE=1; exec "$@"'

echo "$SLURM_JOB_ID" > "$folder/id.part" && mv "$folder/id.part" "$folder/id"
rm -f "$folder/exit"
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))
export folder python processes MASTER_ADDR MASTER_PORT
echo "tumen: job $SLURM_JOB_ID, start ${SLURM_RESTART_COUNT:-0}, on $SLURM_JOB_NODELIST" >&2
# One task a node. The first that fails ends all: a rank alone only waits in a collective.
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpu-bind=none --kill-on-bad-exit=1 --wait=30 \
  bash -c "$agent" agent "${command[@]}" &
step=$!
wait "$step"
while kill -0 "$step" 2> /dev/null; do wait "$step"; done  # a trap ends a wait early
wait "$step"
code=$?
echo "$code" > "$folder/exit.part" && mv "$folder/exit.part" "$folder/exit"
exit "$code"
