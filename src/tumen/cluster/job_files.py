"""The files of a job's folder, `RUN/jobs/TIER`.

Engine, agents, ranks, watcher and people exchange them there.

job.sh, job.yaml           what was submitted                      (engines)
id                         what the engine calls the job
log                        what the job printed
exit                       its exit code, or "cancelled"
epoch                      the start of the job that owns the run  (core/fencing.py)
secret                     32 bytes, readable by their owner alone (heartbeat/messages.py)
watcher                    host:port of the watcher, while a watcher is expected
watch.jsonl                what the watcher detected and decided   (watcher/monitor/rows.py)
snapshot.json              what the watcher knows now              (watcher/snapshot.py)
resize.json                {ranks: n}: a request for n ranks
ranks/NODE/agent.json      {pid, attempt, ranks: {rank: pid}}
ranks/NODE/ATTEMPT/RANK.log    what a rank printed
faults/RANK-ATTEMPT.json   {kind, why, step, rank}: why a rank ended itself
"""

from __future__ import annotations

SECRET_FILE = "secret"
WATCHER_FILE = "watcher"
WATCH_FILE = "watch.jsonl"
SNAPSHOT_FILE = "snapshot.json"
RESIZE_FILE = "resize.json"
AGENT_FILE = "agent.json"
RANKS_FOLDER = "ranks"
FAULTS_FOLDER = "faults"
