#!/usr/bin/env bash
# A SLURM cluster of this machine alone, for tests: slurm_cluster.sh start|stop
#
# Needs root and Debian's packages slurm-wlm and munge. The plugin of Snakemake asks SLURM's own
# programs, which read /etc/slurm/slurm.conf; a configuration that is there already is left alone.
set -euo pipefail
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"  # where the daemons are, and many users do not look

state=/tmp/audioxai-slurm
configuration=/etc/slurm/slurm.conf
gpus=/etc/slurm/gres.conf
mark="# written by audioxai's tests/slurm_cluster.sh"

fail() { printf 'slurm_cluster.sh: %s\n' "$*" >&2; exit 1; }
ours() { [[ -f $configuration && "$(head -n 1 "$configuration")" == "$mark" ]]; }

end() {  # the process of a pid file, if it is still the program that wrote it
    local file="$1" program="$2" pid
    [[ -f $file ]] || return 0
    pid="$(<"$file")"
    if [[ "$(cat "/proc/$pid/comm" 2>/dev/null)" == "$program" ]]; then
        kill "$pid"
        for _ in $(seq 100); do [[ -d /proc/$pid ]] || break; sleep 0.1; done
        [[ -d /proc/$pid ]] && kill -9 "$pid"
    fi
    rm -f -- "$file"
}

stop() {
    if ours; then
        scancel --quiet --user=root >/dev/null 2>&1 || true
        end "$state/slurmd.pid" slurmd
        end "$state/slurmctld.pid" slurmctld
        rm -f -- "$configuration" "$gpus"
    fi
    end "$state/munged.pid" munged
    rm -rf -- "$state"
}

write_configuration() {
    local cores memory host
    cores="$(getconf _NPROCESSORS_ONLN)"
    memory="$(awk '/^MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)"
    host="$(hostname -s)"
    mkdir -p "$(dirname "$configuration")"
    # linuxproc and task/none: no control groups, so that it runs in a container too. Jobs stay known
    # for MinJobAge seconds, because without accounting squeue alone can say how one ended.
    printf '%s\n' "$mark" "Name=gpu File=/dev/zero" >"$gpus"  # in name alone: a job that asks for one gets it
    cat >"$configuration" <<END
$mark
ClusterName=audioxai
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$state/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.log
StateSaveLocation=$state/ctld
SlurmdSpoolDir=$state/d
MinJobAge=600
KillWait=5
SchedulerParameters=sched_interval=1,bf_interval=1
ReturnToService=2
MpiDefault=none
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cores RealMemory=$memory Gres=gpu:1 State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=60 State=UP
END
}

start() {
    [[ $EUID -eq 0 ]] || fail "needs root"
    for program in munged slurmctld slurmd sbatch srun; do
        command -v "$program" >/dev/null || fail "needs $program (Debian: apt-get install slurm-wlm munge)"
    done
    [[ ! -e $configuration && ! -e $gpus ]] || ours || fail "$configuration is another cluster's"
    stop
    mkdir -p -m 0755 "$state" "$state/ctld" "$state/d" "$state/munge"
    dd if=/dev/urandom of="$state/munge.key" bs=32 count=4 status=none
    chmod 600 "$state/munge.key"
    chmod 700 "$state/munge"
    munged --force --socket "$state/munge.socket" --key-file "$state/munge.key" --pid-file "$state/munged.pid" \
        --log-file "$state/munge/munged.log" --seed-file "$state/munge/seed" || fail "munged did not start"
    write_configuration
    slurmctld || fail "slurmctld did not start: $(tail -n 2 "$state/slurmctld.log")"
    slurmd || fail "slurmd did not start: $(tail -n 2 "$state/slurmd.log")"
    for _ in $(seq 300); do
        [[ "$(sinfo --noheader --format=%T 2>/dev/null)" == idle ]] && return
        sleep 0.1
    done
    fail "the node did not become idle: $(sinfo 2>&1 | tail -n 1); $(tail -n 2 "$state/slurmd.log")"
}

case "${1:-}" in
    start | stop) "$1" ;;
    *) fail "start or stop, got '${1:-}'" ;;
esac
