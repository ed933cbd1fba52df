# What the script of each page begins with (script.rs).

set -euo pipefail

stays=()
names=()

# Runs a command beside the others until the end of the page. Returns when it runs: it has said something, or wants to hear of Ctrl-C;
# a development cluster is ready then. One that ends by itself must end well.
stay() {
    local said=$NOTES/stay-${#stays[@]}
    names+=("$*")
    [ "$2" != dev ] || set -- highwater dev --port 0 "${@:3}"
    # Shells have what runs in the background ignore Ctrl-C.
    env --default-signal=INT "$@" </dev/null >"$said" 2>&1 &
    stayed=$!
    stays+=("$stayed")
    until runs "$2" "$said"; do
        kill -0 "$stayed" 2>/dev/null || { ended_well "$said"; return; }
        sleep 0.02
    done
}

runs() {
    if [ "$1" = dev ]; then
        grep -q 'is ready' "$2"
    else
        [ -s "$2" ] || hears_of_interrupts
    fi
}

# Signal 2 is the second bit of the last digit. Before it is the program, it is a copy of this shell.
hears_of_interrupts() {
    [ "/proc/$stayed/exe" -ef "$(type -P highwater)" ] && grep -q '^SigCgt:.*[2367abef]$' "/proc/$stayed/status" 2>/dev/null
}

# 130: it leaves Ctrl-C to the system, which ends it.
ended_well() {
    local code=0
    wait "$stayed" || code=$?
    [ "$code" = 0 ] || [ "$code" = 130 ] || { tail -n 20 "$1"; return "$code"; }
}

# As Ctrl-C in each terminal, the last one first.
interrupt_all() {
    local place
    for ((place = ${#stays[@]} - 1; place >= 0; place--)); do
        stayed=${stays[place]}
        kill -INT "$stayed" 2>/dev/null || true
        echo "Interrupted: ${names[place]}"
        ended_well "$NOTES/stay-$place"
    done
}
