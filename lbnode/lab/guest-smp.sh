# The part of init.sh that is QEMU's: the root is 9p (initramfs.py mounted it), cached on this side, which shared
# directories must not be; the lines are virtio-serial ports.
# `modules` comes from the initramfs.

also='ip_gre ip6_gre fou fou6 nf_tables' # nothing asks the kernel for fou by itself
output=/dev/vport0p1
errors=/dev/vport0p2

devices() {
    mount -t devtmpfs devtmpfs /dev
    ln -s /proc/self/fd /dev/fd
    ln -s /proc/self/fd/0 /dev/stdin
    ln -s /proc/self/fd/1 /dev/stdout
    ln -s /proc/self/fd/2 /dev/stderr
}

# A second share of the whole, `live`, shows what the host changes meanwhile.
share() {
    [ -d /run/kernel/host ] || {
        mkdir /run/kernel/host
        mount -t 9p -o trans=virtio,version=9p2000.L,cache=none live /run/kernel/host
    }
    mkdir -p "$1"
    mount --bind "/run/kernel/host/$1" "$1"
}

lines() {
    :
}

listen() {
    while read -r name; do kill -"$name" "$command"; done </dev/vport0p3 4>&- 5>&- &
}
