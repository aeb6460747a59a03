# One process of a command: worker.sh WHAT HOW SECONDS, with the names of files in the environment.
#
# WHAT is `count`, which increments the counter too, `live`, which only says that it is there, or
# `chain`, which also starts its successor in a session of its own, and ends.
# HOW it takes signals: `heeds`, `rolls-back` (works on for two seconds), or `deaf`.
# Each step is a line `TIME begin` and one `TIME end VALUE`, the time being that since boot.

what=$1 how=$2
exec 5>>"$JOURNAL"
read -r up _ </proc/uptime
end=$((${up%.*} + $3))
case $how in
    deaf) trap '' TERM INT HUP ;;
    rolls-back) trap 'read -r up _ </proc/uptime; end=$((${up%.*} + 2)); trap "" TERM INT HUP' TERM INT HUP ;;
esac
while read -r up _ </proc/uptime && ((${up%.*} < end)); do
    if [[ $what = count ]]; then
        echo "$up begin" >&5
        n=
        read -r n <"$COUNTER"
        sleep 0.0$((RANDOM % 6))
        echo $((n + 1)) >"$COUNTER.$$"
        mv "$COUNTER.$$" "$COUNTER" 2>/dev/null
        read -r up _ </proc/uptime
        echo "$up end $((n + 1))" >&5
    else
        echo "$up live" >&5
        if [[ $what = chain ]]; then
            setsid bash "$0" chain "$how" "$3" &
            exit 0
        fi
    fi
    sleep 0.05
done
exit 0
