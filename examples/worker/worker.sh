#!/bin/sh
# A service without a port: does a piece of work, says so, waits, and stops when told to.
job=0
stop() {
    echo "stopping after $job jobs"
    exit 0
}
trap stop TERM INT
echo "worker of release ${RELEASE:-none} started, one job every ${INTERVAL:-5} s"
while :; do
    job=$((job + 1))
    echo "job $job done"
    # In the background and waited for: a signal then need not wait for the sleep.
    sleep "${INTERVAL:-5}" &
    wait $!
done
