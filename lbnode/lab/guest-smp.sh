# The part of init.sh that is QEMU's: the root is 9p (initramfs.py mounted it), the lines are virtio-serial ports. The
# work directory is a share of its own, because the root's is cached on the guest's side and this one must not be.
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

# Without what is mounted over it, the root still shows the host's own.
share() {
    [ -d /run/kernel/host ] || { mkdir /run/kernel/host && mount --bind / /run/kernel/host; }
    mount --bind "/run/kernel/host/$1" "$1"
}

lines() {
    mkdir -p "$work"
    mount -t 9p -o trans=virtio,version=9p2000.L,cache=none work "$work"
}

listen() {
    while read -r name; do kill -"$name" "$command"; done </dev/vport0p3 4>&- 5>&- &
}
