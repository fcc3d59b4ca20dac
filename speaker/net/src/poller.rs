//! What the L2 loop waits on: sockets, a deadline to the nanosecond, and a wake-up from other threads.
//!
//! The deadline is a timerfd on CLOCK_BOOTTIME: absolute, unlike an epoll timeout neither rounded nor delayed by
//! the thread's timer slack, and it also fires at the right time after the machine was suspended.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

/// Names what became ready; chosen by the caller, see [`Poller::add`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// The poller's own tokens, from the top of the range.
const DEADLINE: Token = Token(u64::MAX);
const WAKER: Token = Token(u64::MAX - 1);

/// How many tokens one wait returns at most; the others come with the next.
const BATCH: usize = 64;

/// Waits for readable descriptors, a deadline, or a [`Waker`].
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    timer: File,
    waker: Waker,
    /// The deadline the timer is set to, so that an unchanged one costs no system call.
    armed: Option<u64>,
}

/// What a poller can watch: whatever has a descriptor, or several.
pub trait Source {
    /// The descriptors, open for as long as the source lives.
    fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>>;
}

impl<T: AsFd> Source for T {
    fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.as_fd())
    }
}

/// Ends a [`Poller::wait`] from any thread, at once or as soon as it begins.
#[derive(Debug, Clone)]
pub struct Waker(Arc<File>);

/// What ended a wait. Several at once are usual, none as well (an interrupted wait).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// What has something to read, or an error to fetch, each once.
    pub tokens: Vec<Token>,
    /// The deadline has passed.
    pub deadline: bool,
    /// A [`Waker`] called.
    pub woken: bool,
}

impl Poller {
    /// A poller without descriptors.
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes no pointers; a returned descriptor is new and ours alone.
        let epoll = unsafe { owned(libc::epoll_create1(libc::EPOLL_CLOEXEC))? };
        // SAFETY: as above.
        let timer = unsafe {
            owned(libc::timerfd_create(libc::CLOCK_BOOTTIME, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK))?
        };
        // SAFETY: as above.
        let event = unsafe { owned(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))? };
        let poller =
            Self { epoll, timer: File::from(timer), waker: Waker(Arc::new(File::from(event))), armed: None };
        poller.add(&poller.timer, DEADLINE)?;
        poller.add(&*poller.waker.0, WAKER)?;
        Ok(poller)
    }

    /// Reports `source` as `token` whenever it is readable. A closed descriptor drops out by itself.
    pub fn add(&self, source: &impl Source, token: Token) -> io::Result<()> {
        source.descriptors().try_for_each(|fd| self.add_descriptor(fd, token))
    }

    fn add_descriptor(&self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        let mut event = libc::epoll_event { events: EPOLLIN, u64: token.0 };
        // SAFETY: both descriptors are open for the time of the call, as we borrow them; `event` outlives it.
        let result = unsafe {
            libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// A handle that ends this poller's waits.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Waits until something is ready or `deadline` has come, in nanoseconds of
    /// [`boottime_nanos`](crate::clock::boottime_nanos); without one only for something ready.
    pub fn wait(&mut self, deadline: Option<u64>) -> io::Result<Ready> {
        self.arm(deadline)?;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; BATCH];
        // SAFETY: `events` is valid for writing as many events as we say, and outlives the call.
        let count = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                events.as_mut_ptr(),
                i32::try_from(BATCH).unwrap_or(1),
                -1,
            )
        };
        let Ok(count) = usize::try_from(count) else {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted {
                Ok(Ready::default())
            } else {
                Err(error)
            };
        };
        let mut ready = Ready::default();
        for token in events.iter().take(count).map(|event| Token(event.u64)) {
            match token {
                DEADLINE => ready.deadline = self.deadline_has_passed()?,
                WAKER => ready.woken = drain(&self.waker.0)?,
                // Of one source several descriptors may be ready.
                token if ready.tokens.contains(&token) => {}
                token => ready.tokens.push(token),
            }
        }
        Ok(ready)
    }

    fn arm(&mut self, deadline: Option<u64>) -> io::Result<()> {
        if deadline == self.armed {
            return Ok(());
        }
        // Zero would disarm the timer: a deadline at the epoch has passed in any case.
        let nanos = deadline.map_or(0, |nanos| nanos.max(1));
        let spec = libc::itimerspec {
            it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: libc::timespec {
                tv_sec: i64::try_from(nanos / NANOS_PER_SECOND).unwrap_or(i64::MAX),
                tv_nsec: i64::try_from(nanos % NANOS_PER_SECOND).unwrap_or_default(),
            },
        };
        // SAFETY: the descriptor is ours and open, `spec` outlives the call, the old value is not asked for.
        let result = unsafe {
            libc::timerfd_settime(
                self.timer.as_raw_fd(),
                libc::TFD_TIMER_ABSTIME,
                &raw const spec,
                std::ptr::null_mut(),
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        self.armed = deadline;
        Ok(())
    }

    fn deadline_has_passed(&mut self) -> io::Result<bool> {
        let passed = drain(&self.timer)?;
        if passed {
            self.armed = None;
        }
        Ok(passed)
    }
}

impl Waker {
    /// Ends the current wait, or the next one if there is none.
    pub fn wake(&self) {
        // Fails only when the counter is full, and then the wait ends anyway.
        let _ = (&*self.0).write(&1_u64.to_ne_bytes());
    }
}

// The constants are signed in libc, the field they go into is not.
const EPOLLIN: u32 = libc::EPOLLIN.cast_unsigned();
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Takes over a descriptor that a system call returned.
///
/// # Safety
///
/// `fd` must be negative, or a new descriptor that nobody else closes.
unsafe fn owned(fd: i32) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: open and ours alone, as the caller promises.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Resets an eventfd's or timerfd's counter; false if it was zero.
fn drain(mut file: &File) -> io::Result<bool> {
    match file.read(&mut [0; 8]) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::thread;

    use super::*;
    use crate::clock::boottime_nanos;

    #[test]
    fn a_deadline_ends_the_wait_no_earlier() {
        let mut poller = Poller::new().unwrap();
        let deadline = boottime_nanos() + 3_000_000;
        let ready = poller.wait(Some(deadline)).unwrap();
        assert!(boottime_nanos() >= deadline);
        assert_eq!(ready, Ready { deadline: true, ..Ready::default() });
    }

    #[test]
    fn a_deadline_that_has_passed_ends_the_wait_every_time() {
        let mut poller = Poller::new().unwrap();
        for deadline in [0, 1, boottime_nanos(), boottime_nanos()] {
            assert!(poller.wait(Some(deadline)).unwrap().deadline);
            assert!(poller.wait(Some(deadline)).unwrap().deadline);
        }
    }

    #[test]
    fn a_waker_ends_the_wait_from_another_thread_and_beforehand() {
        let mut poller = Poller::new().unwrap();
        let waker = poller.waker();
        thread::scope(|scope| {
            scope.spawn(|| waker.wake());
            assert!(poller.wait(None).unwrap().woken);
        });
        waker.wake();
        waker.wake();
        assert!(poller.wait(None).unwrap().woken);
        let ready = poller.wait(Some(boottime_nanos())).unwrap();
        assert!(!ready.woken, "two calls are one wake-up");
    }

    #[test]
    fn a_readable_descriptor_is_named_by_its_token_until_it_is_closed() {
        let mut poller = Poller::new().unwrap();
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        poller.add(&ours, Token(7)).unwrap();
        theirs.send(b"x").unwrap();
        assert!(poller.wait(None).unwrap().tokens.contains(&Token(7)));
        assert!(poller.wait(None).unwrap().tokens.contains(&Token(7)), "it was not read");
        drop(ours);
        assert!(poller.wait(Some(0)).unwrap().tokens.is_empty());
    }
}
