# shellcheck shell=bash disable=SC2034
# Sourced by the scripts of this folder: what differs from one cluster to the next.

# The modules that penstock was built with, and where it is:
#   module load openmpi hdf5
#   export PATH=/shared/penstock/bin:$PATH
penstock=${PENSTOCK:-penstock}

# srun needs a Slurm with PMIx (srun --mpi=list) and an Open MPI built for it; mpirun finds the
# nodes of the job by itself where Open MPI was built with Slurm.
launcher=${LAUNCHER:-srun}

# Each rank on cores of its own; srun does not take --cpus-per-task over from sbatch everywhere.
cores=${SLURM_CPUS_PER_TASK:-1}
srun_options=(--mpi=pmix --cpus-per-task="$cores" --cpu-bind=cores)
mpirun_options=(--map-by "slot:PE=$cores" --bind-to core)

# The cluster's fabric. What MPI and NCCL open listens on every network of the node, unless told:
#   export OMPI_MCA_btl_tcp_if_include=ib0 OMPI_MCA_oob_tcp_if_include=ib0
#   export UCX_NET_DEVICES=mlx5_0:1
#   export NCCL_SOCKET_IFNAME=ib0 NCCL_IB_HCA=mlx5
