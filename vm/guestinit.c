// SPDX-License-Identifier: Apache-2.0
/* PID 1 of a guest on a root of our own (vm/guestroot.py): mounts, inserts modules, starts the
 * service, reaps. In C, because under software emulation each process that a shell starts costs
 * about as much as all of this together.
 *
 * What fails is said on the console and left out: a kernel may lack a file system.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define SERVICE "/etc/hookproof/service"
#define MODULES "/modules"
#define WORDS	1024

#define SAFE (MS_NOSUID | MS_NODEV | MS_NOEXEC)

/* As vm/fstab has them for the other kind of machine. */
static const struct {
	const char *type, *place;
	unsigned long flags;
	const char *options;
} mounts[] = {
	{"devtmpfs", "/dev", 0, "mode=0755"},
	{"proc", "/proc", SAFE, ""},
	{"sysfs", "/sys", SAFE, ""},
	{"tmpfs", "/run", 0, "mode=0755"},
	{"tmpfs", "/tmp", 0, "mode=1777"},
	{"tmpfs", "/var/tmp", 0, "mode=1777"},
	{"tmpfs", "/dev/shm", 0, "mode=1777"},
	{"devpts", "/dev/pts", 0, "mode=620,ptmxmode=666"},
	{"bpf", "/sys/fs/bpf", 0, "mode=0700"},
	{"cgroup2", "/sys/fs/cgroup", 0, ""},
	{"securityfs", "/sys/kernel/security", 0, ""},
	{"debugfs", "/sys/kernel/debug", 0, ""},
	{"tracefs", "/sys/kernel/tracing", 0, ""},
};

static char *environment[] = {
	"PATH=/usr/sbin:/usr/bin:/sbin:/bin", /* of which /usr/bin has all */
	"HOME=/root",
	"PYTHONPATH=/usr/lib/hookproof", /* where the packages are: guestroot.SITE */
	"PYTHONDONTWRITEBYTECODE=1",	 /* there are no sources to write it for */
	NULL,
};

static void say(const char *what, const char *which)
{
	dprintf(STDOUT_FILENO, "hookproof: %s %s: %s\n", what, which, strerror(errno));
}

static void mount_all(void)
{
	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		/* Those below /dev are not in the archive; the others exist, or cannot be made. */
		mkdir(mounts[i].place, 0755);
		if (mount(mounts[i].type, mounts[i].place, mounts[i].type, mounts[i].flags,
			  mounts[i].options))
			say("cannot mount", mounts[i].place);
	}
}

static int visible(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

/* The names begin with a number: they sort in the order of their needs. */
static void insert_modules(void)
{
	struct dirent **names;
	int count, fd;

	if (chdir(MODULES))
		return;
	count = scandir(".", &names, visible, alphasort);
	for (int i = 0; i < count; i++) {
		fd = open(names[i]->d_name, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || syscall(SYS_finit_module, fd, "", 0))
			say("cannot insert", names[i]->d_name);
		close(fd);
		unlink(names[i]->d_name);
	}
}

/* The kernel gives the loopback device its address once it is up. */
static void bring_up_loopback(void)
{
	struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request))
		say("cannot bring up", "lo");
	close(fd);
}

/* One word of the service's command a line. */
static pid_t start_service(void)
{
	static char text[1 << 16], *argv[WORDS + 1];
	char *rest = text;
	ssize_t length;
	int fd, words = 0;
	pid_t child;

	fd = open(SERVICE, O_RDONLY | O_CLOEXEC);
	length = read(fd, text, sizeof(text) - 1);
	if (length < 0)
		say("cannot read", SERVICE);
	close(fd);
	while (words < WORDS && (argv[words] = strsep(&rest, "\n")))
		words += *argv[words] != 0;
	argv[words] = NULL;
	child = words ? fork() : -1;
	if (child == 0) {
		setsid();
		execve(argv[0], argv, environment);
		say("cannot start", argv[0]);
		_exit(127);
	}
	return child;
}

int main(void)
{
	pid_t service, child;
	int status = 0;

	dprintf(STDOUT_FILENO, "hookproof: init\n");
	umask(022);
	mount_all();
	insert_modules();
	bring_up_loopback();
	sethostname("hookproof", 9);
	chdir("/");
	service = start_service();
	for (;;) {
		child = wait(&status);
		if (child != service && child > 0)
			continue;
		/* Without it the guest is of no use. QEMU ends instead of booting again, and
		 * whoever waits for an answer sees the end of the port. */
		dprintf(STDOUT_FILENO, "hookproof: the service ended, status %#x\n", status);
		tcdrain(STDOUT_FILENO); /* or the kernel ends before it has sent that */
		reboot(RB_AUTOBOOT);
	}
}
