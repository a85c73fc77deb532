#!/bin/sh
# tiny-cloud: written by tumen's local engine; run it by hand to see it fail
export GOMP_SPINCOUNT=10000
export LOCAL_RANK=0
export LOCAL_WORLD_SIZE=1
export MASTER_PORT='1 2'
export ONEDNN_PRIMITIVE_CACHE_CAPACITY=20000
export PYTHONUNBUFFERED=1
export RANK=0
export TOKENIZERS_PARALLELISM=false
export WORLD_SIZE=1
export TUMEN_JOB_SHELL=$$
trap : TERM  # the command is told to stop; this shell stays to write how it ended
python -m tumen train 'runs/it'"'"'s' cloud
code=$?
echo $code > /runs/tiny/jobs/cloud/exit.part && mv /runs/tiny/jobs/cloud/exit.part /runs/tiny/jobs/cloud/exit
exit $code
