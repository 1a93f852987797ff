#!/bin/bash
# Trains on machines that ssh reaches without a password, a worker each, from clones at the same path as this one:
#
#     deploy/ssh.sh node1,node2,node3 --flagfile=configs/alexnet_v2_imagenet.cfg --dataset_dir=... --train_dir=...
#
# The first one is the chief; its train_dir counts. All end when one fails, at Ctrl-C or SIGTERM, and when this script
# or a connection is lost: they get SIGTERM, so that the chief saves, and SIGKILL a minute later.
# PORT and PYTHON say other than 2222 and .venv/bin/python. Needs bash 5.1.

set -u
IFS=, read -ra hosts <<<"${1:?the machines, separated by commas}"
shift
worker_hosts=$(printf ",%s:${PORT:-2222}" "${hosts[@]#*@}")
# By which the workers know each other from whatever else reaches their port.
token=${WORKERS_TOKEN:-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')}

# Runs there: a worker, which lives as long as the standard input of its ssh. One line, for any shell to hand it on.
keep_alive='exec 3<&0; "$@" </dev/null 3<&- & worker=$!;'
keep_alive+=' { read -r -u 3; kill -TERM $worker; sleep 60; kill -KILL $worker; } >/dev/null 2>&1 & guard=$!;'
keep_alive+=' exec 3<&-; wait $worker; status=$?; kill $guard; exit $status'

# The standard input of every ssh: it ends when this script closes it, or has ended in whatever way.
pipe=$(mktemp -u) && mkfifo -m 600 "$pipe" && exec 9<>"$pipe" 8<"$pipe" && rm "$pipe" || exit
trap 'exec 9>&-' INT TERM

declare -A task_of
for task in "${!hosts[@]}"; do
    flags=("$@" "--worker_hosts=${worker_hosts:1}" "--task=$task")
    worker=("${PYTHON:-.venv/bin/python}" train_image_classifier.py "${flags[@]}")
    command="cd $(printf %q "$PWD") && exec env WORKERS_TOKEN=$(printf %q "$token") bash -c $(printf '%q ' "$keep_alive" worker "${worker[@]}")"
    ssh -o BatchMode=yes -o ServerAliveInterval=15 "${hosts[task]}" "$command" <&8 8<&- 9>&- &
    task_of[$!]=$task
done

first=0
while ((${#task_of[@]})); do
    unset ended
    wait -n -p ended
    status=$?
    [ -n "${ended:-}" ] || continue # it was a signal
    task=${task_of[$ended]}
    unset "task_of[$ended]"
    ((status)) || continue
    echo "worker $task on ${hosts[task]} ended with status $status" >&2
    ((first)) || first=$status
    exec 9>&-
done
exit "$first"
