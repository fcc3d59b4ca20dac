//! The time of rule A2: CLOCK_BOOTTIME, monotonic, and going on while the machine is suspended, so that a speaker
//! that slept notices (rule A24).

use std::time::Duration;

/// Nanoseconds since the machine started.
pub fn boottime_nanos() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec that outlives the call. The call can fail only for an unknown clock or a
    // bad pointer, and Linux has had this clock since 2.6.39.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    // Neither is ever negative.
    let since = Duration::new(
        u64::try_from(now.tv_sec).unwrap_or_default(),
        u32::try_from(now.tv_nsec).unwrap_or_default(),
    );
    // 584 years of uptime fit.
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
