//! One speaker per node (rule A2): the abstract unix socket "@herald-speaker".
//!
//! The kernel frees the name when the process ends, however it ends. Abstract names belong to a network namespace,
//! as do the interfaces a second speaker would disturb.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The name, without the leading NUL that makes it abstract.
pub const NAME: &str = "herald-speaker";

/// Holds the name for as long as it lives.
#[derive(Debug)]
pub struct InstanceLock {
    _socket: UnixDatagram,
}

/// The lock could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else has it.
    #[error(
        "another speaker runs in this network namespace (it holds the abstract unix socket \"@{NAME}\"): \
         stop it, or find it with `ss -xlp | grep {NAME}`"
    )]
    Taken,
    /// The socket could not be made.
    #[error("can't bind the abstract unix socket \"@{NAME}\"")]
    Io(#[source] io::Error),
}

impl InstanceLock {
    /// Takes the lock of this network namespace.
    pub fn take() -> Result<Self, LockError> {
        let name = SocketAddr::from_abstract_name(NAME).map_err(LockError::Io)?;
        match UnixDatagram::bind_addr(&name) {
            Ok(socket) => Ok(Self { _socket: socket }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(LockError::Taken),
            Err(error) => Err(LockError::Io(error)),
        }
    }
}
