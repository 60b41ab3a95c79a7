# The part of init.sh that is user-mode-linux's: the root is hostfs, the lines are consoles.

modules=/usr/lib/uml/modules/$(uname -r)
also=
output=/dev/tty1
errors=/dev/tty2

devices() {
    :
}

# What is not covered is the host's own already.
share() {
    [ -d "$1" ] && return
    mkdir -p "$1"
    mount -t hostfs -o "$1" hostfs "$1"
}

lines() {
    echo 0 >/proc/sys/kernel/ctrl-alt-del
    stty raw -echo <"$output"
    stty raw -echo <"$errors"
}

# The host's Ctrl-C and SIGTERM arrive as ctrl-alt-del, that is SIGINT to this process; `signal` holds the name.
listen() {
    trap 'read -r name <"$work/signal" && kill -"$name" "$command"' INT
}
