"""The system calls of a sandboxed Python: name=number on x86_64/aarch64 (- where it has none); all others are refused.

Numbers from the kernel's asm/unistd_64.h and asm-generic/unistd.h. Not here, because their arguments are looked at
(seccomp.py): clone, fcntl, ioctl, kill, prctl, prlimit64, socketpair, tgkill, tkill. Left out on purpose: what changes owner,
mode, times or attributes of a file (Landlock does not bound it), truncate by path, other processes' priorities and CPUs.
"""

_TABLE = """
read=0/63 write=1/64 readv=19/65 writev=20/66 pread64=17/67 pwrite64=18/68 preadv=295/69 pwritev=296/70 lseek=8/62
open=2/- openat=257/56 close=3/57 close_range=436/436 stat=4/- fstat=5/80 lstat=6/- newfstatat=262/79
statx=332/291 access=21/- faccessat=269/48 faccessat2=439/439 readlink=89/- readlinkat=267/78 getdents=78/-
getdents64=217/61 getcwd=79/17 chdir=80/49 fchdir=81/50 rename=82/- renameat=264/38 renameat2=316/276 mkdir=83/-
mkdirat=258/34 rmdir=84/- link=86/- linkat=265/37 unlink=87/- unlinkat=263/35 symlink=88/- symlinkat=266/36
ftruncate=77/46 fallocate=285/47 fadvise64=221/223 fsync=74/82 fdatasync=75/83 flock=73/32 sendfile=40/71
copy_file_range=326/285 statfs=137/43 fstatfs=138/44 umask=95/166 pipe=22/- pipe2=293/59 dup=32/23 dup2=33/-
dup3=292/24 poll=7/- ppoll=271/73 select=23/- pselect6=270/72 epoll_create1=291/20 epoll_ctl=233/21
epoll_wait=232/- epoll_pwait=281/22 eventfd2=290/19 timerfd_create=283/85 timerfd_settime=286/86
timerfd_gettime=287/87 signalfd4=289/74 splice=275/76 tee=276/77 sendto=44/206 sendmsg=46/211 recvfrom=45/207
recvmsg=47/212 shutdown=48/210 getsockname=51/204 getpeername=52/205 getsockopt=55/209 setsockopt=54/208
mmap=9/222 munmap=11/215 mprotect=10/226 mremap=25/216 brk=12/214 madvise=28/233 mincore=27/232 msync=26/227
mlock=149/228 munlock=150/229 membarrier=324/283 fork=57/- vfork=58/- execve=59/221 wait4=61/260 waitid=247/95
exit=60/93 exit_group=231/94 getpid=39/172 getppid=110/173 gettid=186/178 getpgrp=111/- getpgid=121/155
getsid=124/156 getuid=102/174 geteuid=107/175 getgid=104/176 getegid=108/177 getresuid=118/148 getresgid=120/150
getgroups=115/158 set_tid_address=218/96 set_robust_list=273/99 rseq=334/293 futex=202/98
restart_syscall=219/128 arch_prctl=158/- capget=125/90 capset=126/91 rt_sigaction=13/134 rt_sigprocmask=14/135
rt_sigreturn=15/139 rt_sigsuspend=130/133 rt_sigpending=127/136 rt_sigtimedwait=128/137 sigaltstack=131/132
pause=34/- alarm=37/- getitimer=36/102 setitimer=38/103 nanosleep=35/101 clock_nanosleep=230/115
clock_gettime=228/113 clock_getres=229/114 gettimeofday=96/169 time=201/- times=100/153 timer_create=222/107
timer_settime=223/110 timer_gettime=224/108 timer_getoverrun=225/109 timer_delete=226/111 getrlimit=97/163
setrlimit=160/164 getrusage=98/165 sysinfo=99/179 uname=63/160 getcpu=309/168 getrandom=318/278
getpriority=140/141 sched_yield=24/124 sched_getaffinity=204/123 sched_getparam=143/121 sched_getscheduler=145/120
sched_get_priority_max=146/125 sched_get_priority_min=147/126
"""


def numbers(machine: int) -> list[int]:
    """machine: the column, as `syscalls.machine` says."""
    columns = (entry.partition("=")[2].split("/")[machine] for entry in _TABLE.split())
    return [int(number) for number in columns if number != "-"]
