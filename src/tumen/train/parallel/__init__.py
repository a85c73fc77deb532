"""One step over many ranks, a file for each dimension of the mesh.

rank_mesh.py           which rank holds which part
collectives.py         exchanges between ranks, each with its backward pass
data_parallel.py       FSDP2 and HSDP: weights sharded around every block
tensor_parallel.py     heads and inner features split over ranks
expert_parallel.py     experts split over ranks, tokens sent by all-to-all
context_parallel.py    sequences split over ranks
pipeline_parallel.py   layers split over ranks, torch's schedules
trainer.py             `DistributedTrainer`: one rank of all of these
"""
