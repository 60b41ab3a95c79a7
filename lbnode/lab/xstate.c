/*
 * A ptrace() for user-mode-linux on processors whose extended register state is larger than it knows (AMX).
 *
 * user-mode-linux before 6.13 keeps 2,696 bytes of XSAVE state (up to AVX-512 and PKRU) and writes them back with
 * PTRACE_SETREGSET; Linux refuses a write that is shorter than the whole state (xstateregs_set(): -EFAULT), so that
 * guest's init dies at its first instruction. Preloaded, this pads the write with zeros: components the guest never
 * saw stay in their initial state. Nothing from libc's headers is used, so a bare compiler is enough.
 */

#define SYS_PTRACE 101
#define PTRACE_SETREGSET 0x4205
#define NT_X86_XSTATE 0x202
#define STATE_MAX 65536

struct iovec {
    void *base;
    unsigned long len;
};

extern int *__errno_location(void);

/* Only the start is ever written: the tail stays zero. One tracer thread, so one buffer. */
static char state[STATE_MAX] __attribute__((aligned(64)));

static long call(long request, long pid, long addr, void *data)
{
    register void *r10 __asm__("r10") = data;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(SYS_PTRACE), "D"(request), "S"(pid), "d"(addr), "r"(r10)
                     : "rcx", "r11", "memory");
    return result;
}

long ptrace(long request, long pid, long addr, void *data)
{
    long peeked = 0, result;
    int peek = request >= 1 && request <= 3; /* the system call stores the word where the library returns it */

    request = (int)request;
    pid = (int)pid;
    if (request == PTRACE_SETREGSET && addr == NT_X86_XSTATE && ((struct iovec *)data)->len <= STATE_MAX) {
        struct iovec *given = data, padded = {state, STATE_MAX};
        void *to = state, *from = given->base;
        unsigned long count = given->len;
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
        result = call(request, pid, addr, &padded);
    } else {
        result = call(request, pid, addr, peek ? (void *)&peeked : data);
    }
    if (result < 0) {
        *__errno_location() = -(int)result;
        return -1;
    }
    if (peek)
        *__errno_location() = 0;
    return peek ? peeked : result;
}
