# SPDX-License-Identifier: Apache-2.0
# private.sh: sourced; a Slurm of one's own on the loopback interface, beside any other that the machine may have.
# shellcheck shell=sh
#   slurm_start DIR   starts munged, slurmctld and slurmd with own ports, key and state in DIR (a short path: a socket lives
#                     there); exports SLURM_CONF. 1: it did not come up, and the end of its logs is printed
#   slurm_stop        ends everything that slurm_start began and every job; call it from a trap
# It runs as the caller, so its jobs do too. The node claims more cores than the machine may have: jobs of two ranks fit
# anywhere. The nodes big[1-32] are never there: sbatch --test-only wants them.
slurm_dir=

# A port of the loopback interface that nobody listens at. /proc/net/tcp lists them in hex.
slurm_free_port() {  # FIRST
    port=$1
    while grep -qi ":$(printf %04X "$port") " /proc/net/tcp /proc/net/tcp6 2>/dev/null; do port=$((port + 1)); done
    echo "$port"
}

slurm_write_conf() {
    ctld=$(slurm_free_port $((20000 + $$ % 10000)))
    node=$(slurm_free_port $((ctld + 1)))
    host=$(hostname -s)
    cat >"$slurm_dir/slurm.conf" <<END
ClusterName=imf
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$ctld
SlurmdPort=$node
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$slurm_dir/munge.socket
CredType=cred/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$slurm_dir/state
SlurmdSpoolDir=$slurm_dir/spool
SlurmctldPidFile=$slurm_dir/slurmctld.pid
SlurmdPidFile=$slurm_dir/slurmd.pid
SlurmctldLogFile=$slurm_dir/slurmctld.log
SlurmdLogFile=$slurm_dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=1,sched_interval=5,bf_interval=5
KillWait=5
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=8 RealMemory=16000
NodeName=big[1-32] NodeAddr=127.0.0.1 CPUs=128 RealMemory=512000 State=CLOUD
PartitionName=imf Nodes=$host,big[1-32] Default=YES MaxTime=7-0
END
}

slurm_wait_up() {  # the node is idle within 30 s
    for _ in $(seq 150); do
        sinfo -h -t idle -o %T 2>/dev/null | grep -q idle && return 0
        sleep 0.2
    done
    return 1
}

slurm_start() {  # DIR
    slurm_dir=$1
    mkdir -p "$slurm_dir/state" "$slurm_dir/spool" && chmod 755 "$slurm_dir" && slurm_write_conf || return 1
    export SLURM_CONF="$slurm_dir/slurm.conf" PATH="$PATH:/usr/sbin:/sbin"
    (umask 077; dd if=/dev/urandom of="$slurm_dir/munge.key" bs=128 count=1 2>/dev/null)
    munged --force --key-file="$slurm_dir/munge.key" --socket="$slurm_dir/munge.socket" --pid-file="$slurm_dir/munged.pid" \
        --log-file="$slurm_dir/munged.log" --seed-file="$slurm_dir/munged.seed" 2>"$slurm_dir/munged.err" &&
        slurmctld -c && slurmd -c && slurm_wait_up && return 0
    tail -n 5 "$slurm_dir"/*.err "$slurm_dir"/*.log 2>/dev/null
    return 1
}

slurm_stop() {
    [ -n "$slurm_dir" ] || return 0
    scancel --user="$(id -un)" 2>/dev/null
    for _ in $(seq 40); do
        [ -n "$(squeue -h -t running,completing 2>/dev/null)" ] || break
        sleep 0.25
    done
    for name in slurmd slurmctld munged; do
        pid=$(cat "$slurm_dir/$name.pid" 2>/dev/null) || continue
        kill "$pid" 2>/dev/null
        for _ in $(seq 40); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
        kill -9 "$pid" 2>/dev/null
    done
    slurm_dir=
}
