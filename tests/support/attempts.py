"""Attempts to get out of a container, each a program with what it must print.

`refused` prints the error of what was refused, and `got …` for what was not.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attempt:
    """A program, and a pattern that all of its output must match; another one on `sandbox`."""

    name: str
    program: str
    expected: str
    sandbox: str | None = None

    def expected_on(self, runtime: str) -> str:
        """The pattern for a runtime."""
        return self.sandbox if self.sandbox and runtime == "sandbox" else self.expected


ATTEMPTS = (
    # --- the kernel
    Attempt(
        "mount",
        "print(libc.mount(b'none', b'/tmp', b'tmpfs', 0, None))\n"
        "print(libc.mount(b'/proc', b'/tmp', None, 4096, None), libc.umount2(b'/proc', 2))",
        r"-1\n-1 -1",
    ),
    Attempt(
        "namespaces",
        "print(*[call('unshare', flag) for flag in (0x10000000, 0x20000, 0x40000000, 0x20000000)],"
        " call('setns', 0, 0), refused(os.chroot, '/tmp'))",
        r"(EPERM ){5}EPERM",
    ),
    Attempt(
        "identity",
        "print(refused(os.setuid, 0) in ('EPERM', 'EINVAL'), refused(os.setgid, 0) in "
        "('EPERM', 'EINVAL'), refused(os.setgroups, [0]))\n"
        "print([l.split()[1] for l in open('/proc/self/status')"
        " if l.startswith(('Cap', 'NoNew'))])",
        r"True True EPERM\n\['0{16}'(, '0{16}'){4}, '1'\]",
    ),
    Attempt(
        "setuid programs",
        "found = [p for d in ('/usr/bin', '/usr/sbin') for p in glob.glob(d + '/*')"
        " if os.path.isfile(p) and os.stat(p).st_mode & stat.S_ISUID]\n"
        "def rights(path):\n"
        "    process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,"
        " stderr=subprocess.DEVNULL)\n"
        "    try: lines = open(f'/proc/{process.pid}/status').read()\n"
        "    finally: process.kill(); process.wait()\n"
        "    return lines.split('Uid:')[1].split()[:3]\n"
        "print(all(rights(p) == [str(os.getuid())] * 3 for p in found if p.endswith(('su', "
        "'passwd', 'mount'))))",
        r"True",
    ),
    Attempt(
        "devices",
        "print(refused(os.mknod, '/tmp/disk', stat.S_IFBLK | 0o600, os.makedev(254, 0)),"
        " refused(os.mknod, '/workspace/mem', stat.S_IFCHR | 0o600, os.makedev(1, 1)),"
        " [p for p in glob.glob('/dev/*') if stat.S_ISBLK(os.lstat(p).st_mode)])",
        r"EPERM EPERM \[\]",
    ),
    Attempt(
        "kernel log, keyrings, tracing",
        "buffer = ctypes.create_string_buffer(64)\n"
        "print(call('syslog', 3, buffer, 64), refused(open, '/dev/kmsg'), refused(open,"
        " '/proc/kcore') in ('ENOENT', 'EACCES') or os.path.getsize('/proc/kcore') == 0)\n"
        "print(call('keyctl', 0, -3, 1), call('add_key', b'user', b'x', b'y', 1, -4),"
        " call('bpf', 0, 0, 0), call('open_by_handle_at', 0, 0, 0),"
        " call('perf_event_open', 0, 0, 0, 0, 0), call('io_uring_setup', 8, buffer))",
        r"EPERM ENOENT True\nEPERM EPERM EPERM EPERM EPERM (EPERM|ENOSYS)",
    ),
    Attempt(
        "kernel settings",
        "for path in ('/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger',"
        " '/sys/kernel/uevent_helper', '/sys/fs/cgroup/memory/memory.limit_in_bytes',"
        " '/proc/sys/net/ipv4/ip_forward'):\n"
        "    print(refused(open, path, 'r+'))\n"
        "print(glob.glob('/sys/fs/cgroup/*/release_agent'))",
        r"(EROFS|EACCES)\n((EROFS|EACCES|ENOENT)\n){4}\[\]",
    ),
    Attempt(
        "core dumps",
        "print(resource.getrlimit(resource.RLIMIT_CORE))\n"
        "try: resource.setrlimit(resource.RLIMIT_CORE, (1, 1))\n"
        "except ValueError: print('no')\n"
        "pid = os.fork()\n"
        "if pid == 0: os.abort()\n"
        "print(os.WCOREDUMP(os.waitpid(pid, 0)[1]), glob.glob('core*'))",
        r"\(0, 0\)\nno\nFalse \[\]",
    ),
    # --- the network
    Attempt(
        "network",
        "print([name for _, name in socket.if_nameindex()])\n"
        "for address in ('169.254.169.254', '10.0.0.1', '172.17.0.1', '192.0.2.1'):\n"
        "    print(refused(socket.create_connection, (address, 80), 2))",
        r"\['lo'\]\nENETUNREACH\nENETUNREACH\nENETUNREACH\nENETUNREACH",
    ),
    Attempt(
        "raw sockets",
        "print(refused(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1),"
        " refused(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 3))",
        r"EPERM (EPERM|EAFNOSUPPORT)",
    ),
    Attempt(
        "sockets past the namespace",  # vsock, kernel crypto, bluetooth, tipc, xdp
        "print({refused(socket.socket, family, kind, 0)"
        " for family, kind in ((40, 1), (38, 5), (31, 3), (30, 1), (44, 3))})",
        r"\{'EAFNOSUPPORT'\}",
    ),
    Attempt(
        "services of this machine",
        "print(refused(socket.create_connection, ('127.0.0.1', {port}), 2))\n"
        "for address in ('\\0{abstract}', '{path}', '/var/run/docker.sock', '/run/docker.sock',"
        " '/run/containerd/containerd.sock'):\n"
        "    print(refused(socket.socket(socket.AF_UNIX).connect, address))",
        r"ECONNREFUSED\nECONNREFUSED\nENOENT\nENOENT\nENOENT\nENOENT",
    ),
    Attempt(
        "the neighbour's sockets",
        "print(os.listdir('/run/berth'), os.path.exists('{neighbour}'))\n"
        "names = [n for n in open('/proc/net/unix').read().split() if 'sock' in n]\n"
        "print(set(names))",
        r"\['worker.sock'\] False\n\{'/run/berth/worker.sock'\}",
    ),
    # --- the worker
    Attempt(
        "the worker's memory",
        "for name in ('environ', 'mem', 'maps', 'fd', 'root', 'cwd', 'exe', 'io', 'pagemap'):\n"
        "    path = f'/proc/{worker}/{name}'\n"
        "    look = os.listdir if name == 'fd' else os.readlink if name in ('root', 'cwd', 'exe') "
        "else lambda p: open(p, 'rb').read(8)\n"
        "    print(refused(look, path))",
        r"(EACCES\n){8}EACCES",
    ),
    Attempt(
        "tracing the worker",
        "print(call('ptrace', 16, worker, 0, 0), call('ptrace', 0x4206, worker, 0, 0))\n"
        "local = ctypes.create_string_buffer(8)\n"
        "class Span(ctypes.Structure): _fields_ = [('at', ctypes.c_void_p), "
        "('size', ctypes.c_size_t)]\n"
        "ours, theirs = Span(ctypes.addressof(local), 8), Span(0x400000, 8)\n"
        "print(libc.process_vm_readv(worker, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0))\n"
        "print(libc.syscall(438, os.pidfd_open(worker), 0, 0))",
        r"EPERM EPERM\n-1\n-1",
    ),
    Attempt(
        "the key in files and processes",
        "found = []\n"
        "open('/tmp/control', 'w').write('{half}' + '{rest}')\n"
        "for top in ('/workspace', '/run', '/tmp', '/home', '/etc', '/dev/shm'):\n"
        "    for place, _, names in os.walk(top):\n"
        "        for name in names:\n"
        "            path = os.path.join(place, name)\n"
        "            try: content = open(path, 'rb').read() if os.path.isfile(path) else b''\n"
        "            except OSError: continue\n"
        "            if b'{half}' + b'{rest}' in content: found.append(path)\n"
        "for path in glob.glob('/proc/[0-9]*/environ') + glob.glob('/proc/[0-9]*/cmdline'):\n"
        "    try: content = open(path, 'rb').read()\n"
        "    except OSError: continue\n"
        "    if b'{half}' + b'{rest}' in content: found.append(path)\n"
        "os.unlink('/tmp/control')\n"
        "print(found)",
        r"\['/tmp/control'\]",
    ),
    Attempt(
        "orders to the worker",
        "import http.client\n"
        "class Line(http.client.HTTPConnection):\n"
        "    def connect(self):\n"
        "        self.sock = socket.socket(socket.AF_UNIX)\n"
        "        self.sock.connect('/run/berth/worker.sock')\n"
        "def ask(method, path, key='guess-guess-guess-guess', body=None):\n"
        "    line = Line('worker')\n"
        "    line.request(method, path, body, {'Authorization': 'Bearer ' + key,"
        " 'Berth-Generation': '999', 'Content-Type': 'application/json'})\n"
        "    return line.getresponse().status\n"
        "print(ask('POST', '/claim', body='{\"key\": \"guess-guess-guess-guess\"}'),"
        " ask('POST', '/shutdown'), ask('GET', '/tasks/t/changes'), ask('GET', '/repositories'))",
        r"409 40[13] 40[13] 40[13]",
    ),
    # --- process 1
    Attempt(
        "process 1",
        "print(refused(open, '/proc/1/mem', 'r+b'), refused(os.readlink, '/proc/1/root'),"
        " refused(os.listdir, '/proc/1/fd'), refused(open, '/proc/1/environ'),"
        " call('ptrace', 0x4206, 1, 0, 0))\n"
        "print([l.split()[1] for l in open('/proc/1/status')"
        " if l.startswith(('CapEff', 'NoNewPrivs', 'Seccomp:'))])",
        r"EACCES EACCES EACCES EACCES EPERM\n\['0{16}', '1', '2'\]",
        # It is bubblewrap, under the tools' user and the same filter: tracing it brings nothing.
        sandbox=r"got .* got '/' got .* got .* allowed\n\['0{16}', '1', '2'\]",
    ),
    Attempt(
        "what process 1 has",
        "def told(path): return open(path).read()\n"
        "print({*(refused(told, '/proc/1/environ')).split('\\\\x00')} & {*{secrets}},"
        " [p for n in (os.listdir('/proc/1/fd') if os.access('/proc/1/fd', os.R_OK) else ())"
        " for p in [os.readlink('/proc/1/fd/' + n)]"
        " if not p.startswith(('/dev/null', 'pipe:', 'anon_inode:[eventfd]'))],"
        " refused(os.readlink, '/proc/1/root') in ('EACCES', \"got '/'\"))",
        r"set\(\) \[\] True",
    ),
    Attempt(
        "namespaces of this machine",
        "own = {os.readlink('/proc/self/ns/' + name) for name in ('mnt', 'pid', 'net', 'ipc',"
        " 'uts')}\n"
        "print(len(own), own & {*{namespaces}}, [p for p in glob.glob('/proc/[0-9]*/cmdline')"
        " if 'pytest' in open(p).read()])",
        r"5 set\(\) \[\]",
    ),
    Attempt(
        "new namespaces by clone",
        "for flag in (0x10000000, 0x20000, 0x40000000, 0x20000000, 0x8000000, 0x4000000):\n"
        "    print(call('clone', flag | 17, 0, 0, 0, 0))\n"
        "print(call('clone3', 0, 0))",
        r"(EPERM\n){6}ENOSYS",
    ),
    Attempt(
        "the directory of sockets",
        "print(refused(os.rename, '/run/berth', '/run/x') in ('EBUSY', 'EACCES', 'EROFS'),"
        " refused(os.listdir, '/run/berth/..'), refused(os.rmdir, '/run/berth')"
        " in ('EBUSY', 'EACCES', 'EROFS'))",
        r"True got \['berth'(, 'lock')?\] True",
        sandbox=r"True got \['berth'\] True",
    ),
    # --- the file system
    Attempt(
        "the image",
        "for path in ('/', '/usr/bin', '/etc', '/opt', '/opt/berth', '/var', '/proc/1'):\n"
        "    print(refused(open, path + '/planted', 'w'))\n"
        "print(refused(os.unlink, '/usr/bin/env'), refused(os.chmod, '/usr/bin/env', 0o777))",
        r"((EROFS|EACCES)\n){3}((EROFS|EACCES|ENOENT)\n){4}(EROFS|EACCES) (EROFS|EPERM)",
    ),
    Attempt(
        "other people's files",
        "print([p for p in ('{data}', '/root/.ssh', '/var/lib/docker', '/var/lib/berth')"
        " if os.path.exists(p) and os.access(p, os.R_OK)], refused(open, '/etc/shadow'))",
        r"\[\] (EACCES|ENOENT)",
    ),
    Attempt(
        "open files",
        "held = []\n"
        "try:\n"
        "    while len(held) < 10_000: held.append(open('/dev/null'))\n"
        "except OSError as error: print(errno.errorcode[error.errno], len(held) < 512)",
        r"EMFILE True",
    ),
    Attempt(
        "a file that grows",
        "with open('/workspace/large', 'wb') as file:\n"
        "    print(refused(file.truncate, 65 << 20), refused(file.truncate, 63 << 20))\n"
        "os.unlink('/workspace/large')",
        r"EFBIG got \d+",
    ),
    Attempt(
        "filling temporary places",
        "for place in ('/tmp', '/home/berth', '/dev/shm'):\n"
        "    said = None\n"
        "    for number in range(4):\n"
        "        try: os.posix_fallocate(os.open(f'{place}/fill{number}', os.O_RDWR |"
        " os.O_CREAT), 0, 40 << 20)\n"
        "        except OSError as error: said = errno.errorcode[error.errno]\n"
        "    for path in glob.glob(place + '/fill*'): os.unlink(path)\n"
        "    print(said)",
        r"ENOSPC\nENOSPC\nENOSPC",
    ),
    Attempt(
        "a fork bomb",
        "made = []\n"
        "try:\n"
        "    while len(made) < 200:  # where nothing stops it, this machine is not filled\n"
        "        pid = os.fork()\n"
        "        if pid == 0: time.sleep(60); os._exit(0)\n"
        "        made.append(pid)\n"
        "except OSError as error: print(errno.errorcode[error.errno], len(made) < 96)\n"
        "for pid in made: os.kill(pid, signal.SIGKILL)",
        r"EAGAIN True",
    ),
)
