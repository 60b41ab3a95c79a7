#!/bin/sh
# The first process of a guest: makes the host's file system look like a machine of its own, runs one command, powers
# off. Beside this copy in the work directory: `kernel` (the part that depends on how the guest is made: guest-*.sh),
# `command` (what to run), `shared` (directories that are the host's own as they are now, wherever they stand), and what goes
# back: `booted`, `status`. Standard output is the console, which nobody reads unless something fails.

work=${0%/*}
. "$work/kernel"
exec 3<"$work/shared" # the work directory may be one of those that are covered now

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup 2>/dev/null
devices
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/kernel/lib /run/kernel/usr/lib
while read -r directory; do
    share "$directory"
done <&3
exec 3<&-
lines

# Module loading: by the guest's own programs (MODPROBE_OPTIONS, set with the command) and by the kernel.
mkdir /run/kernel/lib/modules /run/kernel/usr/lib/modules
ln -s "$modules" /run/kernel/lib/modules/
ln -s "$modules" /run/kernel/usr/lib/modules/
printf '#!/bin/sh\nexec /sbin/modprobe -d /run/kernel "$@"\n' >/run/kernel/modprobe
chmod 755 /run/kernel/modprobe
echo /run/kernel/modprobe >/proc/sys/kernel/modprobe
modprobe -d /run/kernel -a overlay ip_vs ip_vs_mh ipip ip6_tunnel veth dummy bridge sch_ingress cls_bpf $also

mkdir /run/kernel/etc /run/kernel/etc/upper /run/kernel/etc/work
mount -t overlay -o lowerdir=/etc,upperdir=/run/kernel/etc/upper,workdir=/run/kernel/etc/work etc /etc
mkdir -p /etc/lb

hostname lab
ip link set lo up
mkfifo /run/kernel/stdout /run/kernel/stderr
exec 4>"$output" 5>"$errors"
cat /run/kernel/stdout >&4 5>&- &
stdout=$!
cat /run/kernel/stderr >&5 4>&- &
stderr=$!

sh "$work/command" </dev/null >/run/kernel/stdout 2>/run/kernel/stderr 4>&- 5>&- &
command=$!
listen
: >"$work/booted"
while :; do
    wait "$command"
    status=$?
    kill -0 "$command" 2>/dev/null || break # a wait cut short by a trap goes on
done

# What the command left behind would hold its output open; the two copiers then end by themselves.
for process in /proc/[0-9]*; do
    case ${process#/proc/} in 1 | "$stdout" | "$stderr") ;; *) kill -KILL "${process#/proc/}" 2>/dev/null ;; esac
done
wait "$stdout"
wait "$stderr"
printf '\0' >&4 # the end, see boot.py
printf '\0' >&5
sync
echo "$status" >"$work/status.new"
mv "$work/status.new" "$work/status"
echo o >/proc/sysrq-trigger
read -r _ <>/run/kernel/stdout # power-off is asynchronous, and init must not end before it
