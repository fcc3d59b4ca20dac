//! Real-time priority for the thread that must not be late.
//!
//! With six busy loops on two cores a 5 ms timer was up to 7.7 ms late at ordinary priority and 0.4 ms at
//! SCHED_FIFO. It needs CAP_SYS_NICE or an RLIMIT_RTPRIO; the speaker works without.

use std::io;

/// The lowest real-time priority: above everything ordinary, below everything else that asked for real time.
const FIFO_PRIORITY: i32 = 1;

/// What the thread runs at.
#[derive(Debug)]
pub enum Priority {
    /// SCHED_FIFO.
    RealTime,
    /// As before, for this reason: mostly that the process lacks CAP_SYS_NICE.
    Ordinary(io::Error),
}

/// Asks for SCHED_FIFO for the calling thread. Threads that it starts later get ordinary priority again.
///
/// The system call itself, because musl's `sched_setscheduler` does nothing but say ENOSYS (POSIX means the
/// whole process by it, Linux one thread).
pub fn raise() -> Priority {
    // The kernel's struct sched_param: one int (include/uapi/linux/sched/types.h).
    let priority: libc::c_int = FIFO_PRIORITY;
    // SAFETY: `priority` is laid out as the kernel's sched_param and outlives the call, which only reads it; 0 means
    // the calling thread.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            0,
            libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK,
            &raw const priority,
        )
    };
    if result == 0 { Priority::RealTime } else { Priority::Ordinary(io::Error::last_os_error()) }
}
