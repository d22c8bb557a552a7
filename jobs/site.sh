# SPDX-License-Identifier: Apache-2.0
# site.sh: the only file that a site edits. It is read by jobs/pipeline.sh and jobs/submit.sh (what to ask Slurm for) and
# inside every job (how to start the program). Plain sh: NAME=value. IMF_SITE=FILE takes another file in its place.
# shellcheck shell=sh disable=SC2034
PARTITION=                # sbatch --partition; empty: the cluster's default
ACCOUNT=                  # sbatch --account; empty: your default
NODES=1                   # nodes of a job
RANKS_PER_NODE=2          # MPI ranks of a node; a good start: one per NUMA domain (lscpu), and THREADS for its cores
THREADS=1                 # cores of a rank (sbatch --cpus-per-task), and so its threads
GPUS_PER_NODE=            # GPUs of a node, one for each rank (sbatch --gpus-per-node): sample, score, sft, dpo, eval and reward run there; empty: on CPUs
GPU_MEMORY=               # GiB that imf plan may use of a GPU: what it has less 3 for CUDA and NCCL (72 of 80 GB); empty: it does not look
MEMORY=                   # memory of a node, as sbatch --mem wants it (240G; 0: all of it); empty: the cluster's default
TIME=                     # longest job (24:00:00); empty: what the .slurm file says. At its end a job saves and is queued again
SBATCH_OPTIONS=           # anything else for sbatch, separated by blanks: --constraint=genoa --qos=long
MODULES=                  # modules to load, separated by blanks: gcc/12 openmpi/4.1 netcdf-c/4.9; empty: none
LAUNCHER=srun             # srun (--mpi=pmix: Slurm and Open MPI both have PMIx, see srun --mpi=list) or mpirun
LAUNCH_OPTIONS=           # anything else for the launcher: --cpu-bind=cores, or --bind-to core --map-by ppr:2:node:PE=8
IMF=$IMF_HOME/build/imf   # the program; IMF_HOME is the directory that holds jobs/. With GPUs: $IMF_HOME/build/cuda/imf
RUNS=runs                 # run directories: RUNS/NAME for a recipe NAME.yaml; must be on a file system that all nodes see
MAX_RESTARTS=20           # a job that was stopped and saved its work is queued again at most that often

# What one stage wants otherwise. $1: name of a script in jobs/ without .slurm.
site_stage() {
    case $1 in
    select | pair) NODES=1 RANKS_PER_NODE=1 GPUS_PER_NODE= ;;  # little to compute
    verify) GPUS_PER_NODE= ;;  # on CPUs only
    # sample) NODES=8 ;;
    # sft | dpo) TIME=48:00:00 ;;
    # dpo_llama8b) NODES=8 RANKS_PER_NODE=2 THREADS=32 MEMORY=0 ;;
    # dpo_llama8b) NODES=1 RANKS_PER_NODE=8 GPUS_PER_NODE=8 GPU_MEMORY=72 THREADS=8 MEMORY=0 ;;
    esac
}

# Knobs of MPI and file systems that some clusters need; take the # away.
# export OMPI_MCA_pml=ucx                  # Open MPI over UCX (InfiniBand)
# export OMPI_MCA_btl=self,vader,tcp       # Open MPI over Ethernet
# export UCX_TLS=rc,sm,self                # transports of UCX
# export HDF5_USE_FILE_LOCKING=FALSE       # Lustre, GPFS or NFS without locks: HDF5 says errno 37, 38 or 524
# export TMPDIR=/local/scratch             # local disk of a node, for the sandboxes of judged programs
