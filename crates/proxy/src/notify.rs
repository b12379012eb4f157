//! A word to the service manager that started this process (`sd_notify`): a datagram to the socket that it named.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Says `state` (`READY=1`, one per line) to the service manager; does nothing where none wants to hear.
///
/// # Errors
/// It named a socket, and cannot be reached there.
pub fn notify(state: &str) -> io::Result<()> {
    match std::env::var_os("NOTIFY_SOCKET") {
        Some(socket) if !socket.is_empty() => say(socket.as_bytes(), state),
        _ => Ok(()),
    }
}

fn say(socket: &[u8], state: &str) -> io::Result<()> {
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address(socket)?)?;
    Ok(())
}

/// Of a path, or of `@NAME`, which is in no directory.
fn address(socket: &[u8]) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = socket.strip_prefix(b"@") {
        return <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name);
    }
    SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(socket))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_word_arrives_at_a_socket_with_a_path_and_at_one_without() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("convox-notify-{}", std::process::id());
        let abstract_name = address(format!("@{name}").as_bytes()).unwrap();
        for (listener, told) in [
            (UnixDatagram::bind(&path).unwrap(), path.as_os_str().as_bytes().to_vec()),
            (UnixDatagram::bind_addr(&abstract_name).unwrap(), format!("@{name}").into_bytes()),
        ] {
            say(&told, "READY=1").unwrap();
            let mut bytes = [0; 64];
            let count = listener.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..count], b"READY=1");
        }
        assert!(say(b"/nowhere/notify", "READY=1").is_err());
    }
}
