#!@BUSYBOX@ sh
# SPDX-License-Identifier: Apache-2.0
# PID 1 of the guest, run by the static busybox of the host: it makes the
# read-only root usable, brings up the one network card, starts sshd and the
# service, and reaps. It stands in for virtme-ng's init because udev's coldplug
# there takes a quarter of a boot under software emulation and nothing here
# needs it. Every program run costs a tenth of a second there too, so each does
# as much as it can (docs/architecture.md, "Our own init").
#
# The host fills in the @WORDS@; every value is quoted for the shell by it.

export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/run/hookproof/home
bb=@BUSYBOX@
say() { echo "hookproof: $*"; }

$bb mount -t devtmpfs -o mode=0755 devtmpfs /dev
exec </dev/null >/dev/console 2>&1
# Until then the root shows the host's /proc, and "mount -a" below would find there that
# all of it is mounted already.
$bb mount -t proc -o nosuid,nodev,noexec proc /proc
$bb mkdir -p /dev/pts /dev/shm

# What the harness needs below a folder that a tmpfs is about to hide is
# set aside and put back at its place.
n=0
for path in @KEEP@; do
	$bb mkdir -p /dev/.keep/$n
	$bb mount -o bind "$path" /dev/.keep/$n
	n=$((n + 1))
done
$bb mount -a -T @RUNDIR@/fstab
n=0
for path in @KEEP@; do
	$bb mkdir -p "$path"
	$bb mount -o move /dev/.keep/$n "$path"
	n=$((n + 1))
done
$bb mkdir -p -m 0755 /run/sshd /run/hookproof/home
# The root account of the host may be locked, which sshd would honour.
$bb mount -o bind @RUNDIR@/shadow /etc/shadow

# The service listens on the loopback device, so that comes first; the rest of
# the network is brought up while the service loads.
$bb ifconfig lo 127.0.0.1 up
cd @WORKDIR@ || say "cannot enter the working folder"
@SERVICE@ &

# The files of the modules are the host's findings, in the order of their needs.
for module in @MODULES@; do
	$bb insmod "$module" 2>/run/hookproof/insmod || say "$($bb cat /run/hookproof/insmod)"
done
$bb ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up || say "no network card eth0"
@SSHD@ -D -e -f @RUNDIR@/sshd_config &
$bb hostname hookproof
while :; do
	wait
	$bb sleep 3600 &
done
