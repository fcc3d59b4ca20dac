//! A network namespace per test: anonymous, so it is gone with the test's last thread and socket, also after a
//! panic or a kill. Two ends of a veth pair in it, `ours` and `peer`.

#![cfg(test)]
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;

use herald_net::monitor::{Interface, Monitor};

/// Runs `test` on a thread of its own in a new network namespace.
pub(crate) fn in_a_new_one<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    let outcome = thread::scope(|scope| {
        scope
            .spawn(|| {
                // SAFETY: takes no pointers, and moves only this thread, which ends with the test.
                let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
                assert_eq!(
                    result,
                    0,
                    "these tests make network namespaces: run them as root ({})",
                    io::Error::last_os_error()
                );
                ip("link set lo up");
                test()
            })
            .join()
    });
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The same with `ours` (02:00:00:00:00:01) and `peer` (02:00:00:00:00:02) connected and up, without the kernel's own
/// IPv6 chatter. The thread keeps to one processor, so that frames arrive in the order they are sent.
/// One test at a time: all namespaces share the processor's queue of arriving frames, and a flood fills it.
pub(crate) fn with_veth<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    in_a_new_one(|| {
        write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        ip("link add ours address 02:00:00:00:00:01 type veth peer name peer address 02:00:00:00:00:02");
        ip("link set ours up");
        ip("link set peer up");
        wait_for_carrier(&["ours", "peer"]);
        keep_to_one_processor();
        test()
    })
}

/// Until frames sent on these interfaces are not lost: the kernel activates them a moment after they are set up.
pub(crate) fn wait_for_carrier(names: &[&str]) {
    let mut monitor = Monitor::open().expect("netlink");
    let up = |interfaces: Vec<Interface>| {
        let has_carrier =
            |name| interfaces.iter().any(|interface| interface.name == name && interface.carrier);
        names.iter().all(|name| has_carrier(*name))
    };
    while !up(monitor.changed().expect("netlink")) {}
}

fn keep_to_one_processor() {
    // SAFETY: an all-zero set is a valid, empty one; CPU_SET only writes into it; it outlives the call, which
    // changes this thread alone.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(usize::try_from(libc::sched_getcpu()).unwrap_or_default(), &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// `ip` of iproute2 in this namespace.
#[track_caller]
pub(crate) fn ip(arguments: &str) -> String {
    run("ip", arguments)
}

/// `tc` of iproute2 in this namespace.
#[track_caller]
pub(crate) fn tc(arguments: &str) -> String {
    run("tc", arguments)
}

#[track_caller]
fn run(command: &str, arguments: &str) -> String {
    let output =
        Command::new(command).args(arguments.split_whitespace()).output().expect("iproute2 is installed");
    assert!(output.status.success(), "{command} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Many commands of `ip` in one process.
#[track_caller]
pub(crate) fn ip_batch(commands: &[String]) {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("iproute2 is installed");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(commands.join("\n").as_bytes()).expect("ip reads its input");
    drop(input);
    assert!(child.wait().expect("ip ends").success());
}

/// The index of an interface.
#[track_caller]
pub(crate) fn ifindex(name: &str) -> u32 {
    let shown = ip(&format!("-o link show dev {name}"));
    shown.split(':').next().and_then(|index| index.trim().parse().ok()).expect("ip shows an index")
}

/// Writes to a sysctl of this namespace.
#[track_caller]
pub(crate) fn write(path: &str, value: &str) {
    fs::write(path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// Makes this thread an ordinary user's, without capabilities. glibc would change all threads.
pub(crate) fn become_nobody() {
    const NOBODY: libc::uid_t = 65534;
    // SAFETY: takes no pointers; only this thread changes.
    let result = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}
