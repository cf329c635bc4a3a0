#!/usr/bin/env bash
# launch.sh: starts this node's part of the two-pool program. Run it once per node, by whatever starts
# processes on your cluster; nothing here logs in anywhere.
#   srun -N2 --ntasks-per-node=1 examples/disagg/launch.sh         Slurm: SLURM_PROCID says which node this is
#   mpirun -n 2 --map-by node examples/disagg/launch.sh            Open MPI: OMPI_COMM_WORLD_RANK
#   RANK=0 examples/disagg/launch.sh                               by hand: on the first machine,
#   RANK=1 examples/disagg/launch.sh                               and on the second
# Rank 0 is the producer, the others consume; DISAGG_ROLE overrides that. Needed: DISAGG_STORE_ROOT on a
# file system that the nodes share, and the variables of README.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
: "${DISAGG_STORE_ROOT:?set DISAGG_STORE_ROOT to a directory that all nodes share}"
export DISAGG_MANIFEST="${DISAGG_MANIFEST:-$DISAGG_STORE_ROOT/manifest.json}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(nproc)}" GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-5000}"
# The nodes start at once: a consumer must not believe what an earlier start left. (MANIFEST.done stays
# true: the producer then has nothing to do.)
if [[ -e "$DISAGG_MANIFEST.failed" ]]; then find "$DISAGG_MANIFEST.failed" -mmin +1 -delete; fi
program="${EYAS_DISAGG:-bazel-bin/examples/disagg/disagg}"
[[ -x "$program" ]] || bazel build --config=native //examples/disagg >&2
echo "launch: $(hostname) rank ${RANK:-${SLURM_PROCID:-${OMPI_COMM_WORLD_RANK:-none}}} role ${DISAGG_ROLE:-by rank}"
exec "$program"
